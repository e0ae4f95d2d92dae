import pathlib
import shlex
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf import serving
from att_darts_tf.data import augment, prepared
from att_darts_tf.data import images as images_module
from att_darts_tf.engine import optimizers
from att_darts_tf.errors import UsageError
from att_darts_tf.network import cost
from att_darts_tf.network.network import Network, save
from tests.network import toy

SHAPE = (toy.SIDE, toy.SIDE, 3)
TOLERANCE = 1e-5

# Answers without this project, which is installed beside TensorFlow.
ALONE = """
import sys
sys.modules["att_darts_tf"] = None
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
classify = model.signatures["serving_default"]
images = np.load(sys.argv[2])
parts = [classify(tf.constant(part)) for part in np.split(images, [1, 3])]
answers = {
    name: np.concatenate([part[name].numpy() for part in parts])
    for name in parts[0]
}
np.savez(sys.argv[3], **{
    name: value.astype(str) if value.dtype == object else value
    for name, value in answers.items()
})
assert not any(name.startswith("att_darts_tf.") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return toy.prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def network(images):
    """A network with optimizer, auxiliary head and statistics of its own."""
    keras.utils.set_random_seed(0)
    result = Network.from_genotype(
        "darts_v2",
        image_shape=SHAPE,
        num_classes=2,
        cells=3,
        channels=2,
        auxiliary=True,
    )
    result.compile(optimizers.SGD(0.025, momentum=0.9))
    generator = np.random.default_rng(0)
    ranges = {"moving_mean": (-0.1, 0.1), "moving_variance": (0.01, 0.1)}
    for variable in result.non_trainable_variables:
        if variable.name in ranges:
            variable.assign(
                generator.uniform(*ranges[variable.name], variable.shape)
            )
    # Logits around 0, of a size at which every image has its probability.
    logits = result(images / np.float32(255)).numpy()
    spread = logits.std(0).max()
    result.classifier.kernel.assign(result.classifier.kernel / spread)
    result.classifier.bias.assign(-logits.mean(0) / spread)
    return result


@pytest.fixture(scope="module")
def training(network, tmp_path_factory):
    """Returns the folder of a training."""
    folder = tmp_path_factory.mktemp("training")
    save(network, folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def exported(data_dir, training, tmp_path_factory):
    """Returns the folder of an export, and its result."""
    folder = tmp_path_factory.mktemp("an export")
    return folder, export(data_dir, training, folder)


@pytest.fixture(scope="module")
def model(exported):
    return tf.saved_model.load(str(exported[0] / "model"))


@pytest.fixture(scope="module")
def images(data_dir):
    return prepared.load(data_dir).split("test").images


def export(data_dir, training, folder):
    return serving.run_export(
        toy.config(), data_dir=data_dir, model=training, output_dir=folder
    )


def probabilities_of(network, data_dir, images):
    data = prepared.load(data_dir)
    inputs = augment.normalise(images, mean=data.mean, std=data.std)
    return tf.nn.softmax(network(inputs, training=False)).numpy()


def run(*command, folder):
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )


def write(path, pixels):
    encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(pixels).numpy())
    return path


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_probabilities_are_those_of_the_trained_network(
    model, network, data_dir, images, batch
):
    answer = model.signatures["serving_default"](tf.constant(images[:batch]))
    expected = probabilities_of(network, data_dir, images[:batch])
    np.testing.assert_allclose(
        answer["probabilities"], expected, atol=TOLERANCE
    )
    labels = expected.argmax(-1)
    np.testing.assert_array_equal(answer["label"], labels)
    names = [name.decode() for name in answer["label_name"].numpy()]
    assert names == [("level", "upright")[label] for label in labels]


def test_probabilities_depend_on_the_image(model, images):
    answer = model.signatures["serving_default"](tf.constant(images))
    assert np.ptp(answer["probabilities"].numpy()[:, 0]) > 100 * TOLERANCE


def test_signatures_name_their_inputs_and_outputs(model):
    for name, key, kind in [
        ("serving_default", "images", tf.uint8),
        ("encoded", "contents", tf.string),
    ]:
        signature = model.signatures[name]
        (spec,) = signature.structured_input_signature[1].values()
        assert (spec.name, spec.dtype, spec.shape[0]) == (key, kind, None)
        outputs = signature.structured_outputs
        assert outputs["label"].dtype == tf.int32
        assert outputs["label_name"].dtype == tf.string
        assert outputs["probabilities"].shape.as_list() == [None, 2]


def test_encoded_images_of_the_right_size_answer_as_their_pixels(model, images):
    contents = tf.stack([tf.io.encode_png(image) for image in images[:3]])
    encoded = model.signatures["encoded"](contents)
    pixels = model.signatures["serving_default"](tf.constant(images[:3]))
    for name, value in pixels.items():
        np.testing.assert_array_equal(encoded[name], value)


def test_encoded_images_are_decoded_and_resized_as_for_training(model):
    generator = np.random.default_rng(1)
    colour = generator.integers(0, 256, (13, 21, 3)).astype(np.uint8)
    jpeg = tf.io.encode_jpeg(colour)
    grey = tf.io.encode_png(colour[:5, :, :1])
    transparent = tf.io.encode_png(
        np.concatenate([colour, colour[..., :1]], -1)
    )
    files = [jpeg, grey, transparent]
    answer = model.signatures["encoded"](tf.stack(files))
    fitted = [
        images_module.resize(
            images_module.decode(file, channels=3),
            height=toy.SIDE,
            width=toy.SIDE,
        )
        for file in files
    ]
    expected = model.signatures["serving_default"](tf.stack(fitted))
    np.testing.assert_allclose(
        answer["probabilities"], expected["probabilities"], atol=TOLERANCE
    )


def test_only_what_inference_reads_is_saved(network, exported):
    folder = exported[0] / "model"
    saved = tf.train.list_variables(str(folder / "variables" / "variables"))
    assert [name for name, _ in saved] == ["_CHECKPOINTABLE_OBJECT_GRAPH"]
    graph = (folder / "saved_model.pb").read_bytes()
    assert network.classifier.kernel.numpy().tobytes() in graph
    head = network.auxiliary_head.classifier.kernel.numpy().tobytes()
    assert head not in graph


def test_a_process_without_this_project_answers(
    exported, network, data_dir, images, tmp_path
):
    np.save(tmp_path / "images.npy", images)
    process = run(
        *(sys.executable, "-I", "-c", ALONE, exported[0] / "model"),
        *("images.npy", "answers.npz"),
        folder=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    answers = np.load(tmp_path / "answers.npz")
    expected = probabilities_of(network, data_dir, images)
    np.testing.assert_allclose(
        answers["probabilities"], expected, atol=TOLERANCE
    )
    assert set(answers["label_name"]) <= {"level", "upright"}


def test_saved_model_cli_runs_it(exported, network, data_dir, images, tmp_path):
    np.save(tmp_path / "images.npy", images[:2])
    process = run(
        *(
            sys.executable,
            "-I",
            "-m",
            "tensorflow.python.tools.saved_model_cli",
        ),
        *("run", "--dir", exported[0] / "model", "--tag_set", "serve"),
        *("--signature_def", "serving_default", "--outdir", tmp_path),
        *("--inputs", "images=images.npy"),
        folder=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "probabilities.npy"),
        probabilities_of(network, data_dir, images[:2]),
        atol=TOLERANCE,
    )
    assert np.load(tmp_path / "label.npy").shape == (2,)


def test_the_command_classifies_images_and_names_what_it_cannot_read(
    exported, model, images, tmp_path
):
    right = write(tmp_path / "a photo.png", images[0])
    large = write(tmp_path / "large.jpg", np.full((30, 17, 3), 90, np.uint8))
    (tmp_path / "text.png").write_text("no image")
    command = shlex.split(exported[1]["command"])
    assert command.pop() == "IMAGE"
    process = run(
        *(*command, right, "text.png", "absent.png", large.name),
        folder=tmp_path,
    )
    answer = model.signatures["serving_default"](tf.constant(images[:1]))
    label = answer["label_name"].numpy()[0].decode()
    probability = 100 * answer["probabilities"].numpy().max()
    first, second = process.stdout.splitlines()
    assert first == f"{right}: {label} {probability:.2f} %"
    assert second.startswith("large.jpg: ")
    undecodable, absent = process.stderr.splitlines()
    assert "text.png, which cannot be decoded" in undecodable
    assert "absent.png: No such file" in absent
    assert process.returncode == 2


def test_the_command_refuses_in_one_line(exported, tmp_path):
    script = shutil.copy(exported[0] / "classify.py", tmp_path)
    # Without site-packages there is no TensorFlow.
    for arguments, status, expected in [
        ([], 2, "Run: python classify.py IMAGE"),
        (["a.png"], 2, "Run: pip install tensorflow"),
    ]:
        process = run(
            *(sys.executable, "-I", "-S", script, *arguments), folder=tmp_path
        )
        assert process.returncode == status
        assert expected in process.stderr
        assert len(process.stderr.splitlines()) == 1
    process = run(sys.executable, "-I", "-S", script, "--help", folder=tmp_path)
    assert process.returncode == 0
    assert "IMAGE [IMAGE ...]" in process.stdout


def test_result_describes_the_export(exported, network):
    folder, result = exported
    assert result["model"] == str(folder / "model")
    assert result["signatures"] == ["serving_default", "encoded"]
    assert result["class_names"] == ["level", "upright"]
    assert result["image_shape"] == list(SHAPE)
    assert result["largest_difference"] <= TOLERANCE
    assert result["cost"] == cost.count(network)
    assert [times["batch"] for times in result["latencies"]] == [1, 32]
    for times in result["latencies"]:
        assert 0 < times["least"] <= times["median"] <= times["most"]
    assert {path.name for path in folder.iterdir()} == {
        *("model", "classify.py", "result.json", "identity.json", ".lock")
    }


def test_a_second_call_returns_at_once(
    exported, data_dir, training, monkeypatch
):
    def fail(*arguments, **options):
        raise AssertionError("nothing was to be read or written")

    monkeypatch.setattr(serving.network_module, "load", fail)
    folder, result = exported
    assert export(data_dir, training, folder) == result


def test_a_model_that_differs_is_kept_back_and_then_done_again(
    data_dir, training, tmp_path, monkeypatch
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("of an interrupted run")
    with monkeypatch.context() as patch:
        patch.setattr(serving, "TOLERANCE", -1.0)
        with pytest.raises(RuntimeError, match="Received: a difference of"):
            export(data_dir, training, tmp_path)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "result.json").exists()
    # What a process leaves that is killed there is no obstacle.
    (tmp_path / ".partial-left" / "model").mkdir(parents=True)
    result = export(data_dir, training, tmp_path)
    assert result["largest_difference"] <= TOLERANCE
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("damage", ["missing", "text", "cut"])
def test_a_file_without_a_network_is_refused_in_one_line(
    training, data_dir, tmp_path, damage
):
    folder = tmp_path / "training"
    folder.mkdir()
    whole = (training / "model.keras").read_bytes()
    content = {"text": b"no network", "cut": whole[: len(whole) // 2]}
    if damage in content:
        (folder / "model.keras").write_bytes(content[damage])
    with pytest.raises(UsageError) as caught:
        export(data_dir, folder, tmp_path / "export")
    assert str(folder / "model.keras") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_that_diverged_is_refused(network, data_dir, tmp_path):
    weights = network.get_weights()
    network.classifier.bias.assign([np.nan, 0.0])
    (tmp_path / "training").mkdir()
    save(network, tmp_path / "training" / "model.keras")
    network.set_weights(weights)
    with pytest.raises(UsageError, match="training diverged"):
        export(data_dir, tmp_path / "training", tmp_path / "export")


def test_a_network_of_other_images_is_refused(training, data_dir, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(data_dir, other)
    file = other / "dataset.json"
    file.write_text(file.read_text().replace('"level"', '"level", "third"'))
    with pytest.raises(UsageError, match="in 3 classes"):
        export(other, training, tmp_path / "export")


def test_a_full_disk_is_named(training, data_dir, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(UsageError, match=r"model\. Received: No space left"):
        export(data_dir, training, tmp_path)
    assert not pathlib.Path(tmp_path, "model").exists()
