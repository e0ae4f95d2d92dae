import base64
import concurrent.futures
import contextlib
import json
import math
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from att_darts_tf import litert, model_card, serving, warm_up
from att_darts_tf.data import augment, prepared
from att_darts_tf.data import images as images_module
from att_darts_tf.engine import lineage, optimizers, stage_folder, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.network import cost, evaluate
from att_darts_tf.network.network import Network, save
from att_darts_tf.space.attentions import ATTENTIONS
from tests.network import toy

SHAPE = (toy.SIDE, toy.SIDE, 3)
TOLERANCE = 1e-5
NAME, VERSION = "stripes-net", 3
NAMED = {"name": NAME, "version": VERSION}

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
def evaluation(data_dir, training, network, images, tmp_path_factory):
    """Returns the folder of an evaluation, in which ours is the second."""
    other = tmp_path_factory.mktemp("other")
    before = network.classifier.bias.numpy()
    upright = probabilities_of(network, data_dir, images)[:, 1]
    # One more image, or one less, is upright.
    first = np.sort(np.log(upright / (1 - upright)))[5:7].mean()
    network.classifier.bias.assign(before - [0.0, first])
    save(network, other / "model.keras")
    network.classifier.bias.assign(before)
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate.run_evaluation(
        toy.config(),
        data_dir=data_dir,
        models=[other, training],
        output_dir=folder,
    )
    return folder


@pytest.fixture(scope="module")
def exported(data_dir, training, evaluation, tmp_path_factory):
    """Returns the folder of an export, and its result."""
    folder = tmp_path_factory.mktemp("an export")
    return folder, export(
        data_dir, training, folder, evaluation, litert=True, **NAMED
    )


@pytest.fixture(scope="module")
def saved(exported):
    """Returns the folder of the SavedModel."""
    return exported[0] / NAME / str(VERSION)


@pytest.fixture(scope="module")
def card(saved):
    return (saved / "assets.extra" / "model_card.md").read_text()


@pytest.fixture(scope="module")
def model(saved):
    return tf.saved_model.load(str(saved))


@pytest.fixture(scope="module")
def images(data_dir):
    return prepared.load(data_dir).split("test").images


def export(data_dir, training, folder, evaluation=None, **settings):
    config = toy.config()
    config.export.update(settings)
    return serving.run_export(
        config,
        data_dir=data_dir,
        model=training,
        output_dir=folder,
        evaluation=evaluation,
    )


def served(folder, request):
    """Answers as a server does, by the tensors that a signature names."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], str(folder)
        )
        signature = loaded.signature_def[request.model_spec.signature_name]
        assert set(request.inputs) == set(signature.inputs)
        feeds = {}
        for name, value in request.inputs.items():
            promised = signature.inputs[name]
            assert value.dtype == promised.dtype
            assert tf.TensorShape(promised.tensor_shape).is_compatible_with(
                tf.TensorShape(value.tensor_shape)
            )
            feeds[promised.name] = tf.make_ndarray(value)
        answers = session.run(
            {name: each.name for name, each in signature.outputs.items()}, feeds
        )
        for name, value in answers.items():
            promised = signature.outputs[name]
            shape = tf.TensorShape(promised.tensor_shape)
            assert shape.is_compatible_with(value.shape)
            assert value.dtype == tf.as_dtype(promised.dtype).as_numpy_dtype
        return answers


def requests_in(folder):
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        yield log.predict_log.request


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


def test_only_what_inference_reads_is_saved(network, saved):
    found = tf.train.list_variables(str(saved / "variables" / "variables"))
    assert [name for name, _ in found] == ["_CHECKPOINTABLE_OBJECT_GRAPH"]
    graph = (saved / "saved_model.pb").read_bytes()
    assert network.classifier.kernel.numpy().tobytes() in graph
    head = network.auxiliary_head.classifier.kernel.numpy().tobytes()
    assert head not in graph


def test_a_process_without_this_project_answers(
    saved, network, data_dir, images, tmp_path
):
    np.save(tmp_path / "images.npy", images)
    process = run(
        *(sys.executable, "-I", "-c", ALONE, saved),
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


def test_saved_model_cli_runs_it(saved, network, data_dir, images, tmp_path):
    np.save(tmp_path / "images.npy", images[:2])
    process = run(
        *(
            sys.executable,
            "-I",
            "-m",
            "tensorflow.python.tools.saved_model_cli",
        ),
        *("run", "--dir", saved, "--tag_set", "serve"),
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


def test_the_command_finds_a_model_that_was_copied_with_it(
    exported, images, tmp_path
):
    script = shutil.copy(exported[0] / "classify.py", tmp_path)
    image = write(tmp_path / "photo.png", images[0])
    alone = run(sys.executable, script, image, folder=tmp_path)
    assert (alone.returncode, alone.stdout) == (2, "")
    assert f"beside the exported folder `{NAME}`" in alone.stderr
    shutil.copytree(exported[0] / NAME, tmp_path / NAME)
    process = run(sys.executable, script, image, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"{image}: ")


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
    assert result["model"] == str(folder / NAME / str(VERSION))
    assert result["signatures"] == ["serving_default", "encoded"]
    assert result["class_names"] == ["level", "upright"]
    assert result["image_shape"] == list(SHAPE)
    assert result["largest_difference"] <= TOLERANCE
    assert result["cost"] == cost.count(network)
    assert [times["batch"] for times in result["latencies"]] == [1, 32]
    for times in result["latencies"]:
        assert 0 < times["least"] <= times["median"] <= times["most"]
    assert {path.name for path in folder.iterdir()} == {
        *(NAME, f"{NAME}.tflite", "classify.py"),
        *("result.json", "identity.json", "lineage.json", ".lock"),
    }


def test_a_second_call_returns_at_once(
    exported, data_dir, training, evaluation, monkeypatch
):
    def fail(*arguments, **options):
        raise AssertionError("nothing was to be read or written")

    monkeypatch.setattr(serving.network_module, "load", fail)
    folder, result = exported
    again = export(
        data_dir, training, folder, evaluation, litert=True, **NAMED
    )
    assert again == result
    with pytest.raises(UsageError, match="config.export.litert=True, with wh"):
        export(data_dir, training, folder, evaluation, **NAMED)
    # A card with other figures would be another export.
    with pytest.raises(UsageError, match="inputs.evaluation="):
        export(data_dir, training, folder, litert=True, **NAMED)


class TestLineage:
    def test_of_a_copied_model_tells_what_it_was_exported_from(
        self, exported, saved, tmp_path
    ):
        copy = shutil.copytree(saved, tmp_path / "elsewhere")
        file = lineage.find(copy)
        record = lineage.load(file)
        assert record["stage"] == "export"
        assert lineage.fits(file, record)
        network = exported[0] / "result.json"
        beside = lineage.load(exported[0] / "lineage.json")
        assert beside["result"]["sha256"] == workdir.digest(network)
        assert record["made_from"] == beside["made_from"]
        assert record["made_from"]["inputs"]["model"]

    def test_of_another_graph_is_noticed(self, saved, tmp_path):
        copy = shutil.copytree(saved, tmp_path / "elsewhere")
        file = lineage.find(copy)
        assert lineage.fits(file, lineage.load(file))
        for name in (
            *("saved_model.pb", "variables/variables.index"),
            "assets.extra/labels.txt",
        ):
            content = (copy / name).read_bytes()
            (copy / name).write_bytes(content + b"\0")
            assert not lineage.fits(file, lineage.load(file)), name
            (copy / name).write_bytes(content)


class TestLeastAccuracy:
    def test_without_an_evaluation_is_refused(
        self, data_dir, training, tmp_path
    ):
        with pytest.raises(UsageError, match="=0.25. Received: no evaluation"):
            export(data_dir, training, tmp_path, least_accuracy=0.25)
        assert not (tmp_path / "att_darts").exists()

    def test_is_that_of_the_mean(self, evaluation):
        mean = json.loads((evaluation / "result.json").read_text())["mean"]
        judged = model_card.Evaluation({"mean": mean}, 0)
        serving._check_accuracy(mean, judged)
        with pytest.raises(UsageError, match=f"Received: {mean:.4f}"):
            serving._check_accuracy(math.nextafter(mean, 1), judged)
        serving._check_accuracy(0.0, None)


def test_a_model_that_differs_is_kept_back_and_then_done_again(
    data_dir, training, tmp_path, monkeypatch
):
    place = tmp_path / NAME / str(VERSION)
    place.mkdir(parents=True)
    (place / "saved_model.pb").write_text("of an interrupted run")
    for tolerance, error in (
        ("TOLERANCE", RuntimeError),
        ("LITERT_TOLERANCE", UsageError),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(serving, tolerance, -1.0)
            with pytest.raises(error, match="Received: a difference of"):
                export(data_dir, training, tmp_path, litert=True, **NAMED)
        assert not place.exists()
        assert not (tmp_path / f"{NAME}.tflite").exists()
        assert not (tmp_path / "result.json").exists()
    # What a process leaves that is killed there is no obstacle.
    (tmp_path / ".partial-left" / "model").mkdir(parents=True)
    result = export(data_dir, training, tmp_path, litert=True, **NAMED)
    assert result["largest_difference"] <= TOLERANCE
    assert (place / "saved_model.pb").exists()
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
    with pytest.raises(UsageError, match=r"att_darts/1\. Received: No space"):
        export(data_dir, training, tmp_path)
    assert not pathlib.Path(tmp_path, "att_darts").exists()


def test_the_folder_is_one_that_a_server_takes(saved):
    found = {
        path.relative_to(saved.parent).as_posix()
        for path in saved.parent.rglob("*")
        if path.is_file()
    }
    assert found == {
        f"{VERSION}/{name}"
        for name in (
            "saved_model.pb",
            "fingerprint.pb",
            "variables/variables.index",
            "variables/variables.data-00000-of-00001",
            "assets.extra/tf_serving_warmup_requests",
            "assets.extra/labels.txt",
            "assets.extra/lineage.json",
            "assets.extra/model_card.md",
        )
    }
    labels = (saved / "assets.extra" / "labels.txt").read_text()
    assert labels == "level\nupright\n"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("signature", ["serving_default", "encoded"])
def test_a_request_by_the_signature_is_answered_as_promised(
    saved, network, data_dir, images, signature, batch
):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    request.model_spec.signature_name = signature
    name, value = {
        "serving_default": ("images", images[:batch]),
        "encoded": (
            "contents",
            [tf.io.encode_png(image).numpy() for image in images[:batch]],
        ),
    }[signature]
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    answers = served(saved, request)
    assert set(answers) == {"probabilities", "label", "label_name"}
    expected = probabilities_of(network, data_dir, images[:batch])
    np.testing.assert_allclose(
        answers["probabilities"], expected, atol=TOLERANCE
    )
    assert list(answers["label_name"]) == [
        (b"level", b"upright")[label] for label in expected.argmax(-1)
    ]


def test_warm_up_requests_hold_training_images_and_are_answered(
    saved, network, data_dir
):
    images = prepared.load(data_dir).split("train").images
    found = []
    for request in requests_in(saved):
        assert request.model_spec.name == NAME
        signature = request.model_spec.signature_name
        (values,) = map(tf.make_ndarray, request.inputs.values())
        if signature == "encoded":
            values = np.stack([tf.io.decode_png(each) for each in values])
        found.append((signature, len(values)))
        np.testing.assert_array_equal(values, images[: len(values)])
        np.testing.assert_allclose(
            served(saved, request)["probabilities"],
            probabilities_of(network, data_dir, values),
            atol=TOLERANCE,
        )
    assert found == [
        ("serving_default", 1),
        ("serving_default", 8),
        ("encoded", 1),
        ("encoded", 8),
    ]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"pixels": np.zeros((1, *SHAPE), "uint8")}, "'images'.*'pixels'"),
        ({"images": np.zeros((1, *SHAPE), "float32")}, "uint8.*float32"),
        ({"images": np.zeros((1, 8, 9, 3), "uint8")}, r"9, 9, 3.*1, 8, 9, 3"),
        ({}, r"'images'.*\[\]"),
    ],
)
def test_a_request_that_does_not_fit_is_told(saved, model, inputs, expected):
    signature = warm_up.signatures_of(saved)["serving_default"]
    request = warm_up.request(NAME, "serving_default", inputs)
    with pytest.raises(ValueError, match=expected):
        warm_up.answer(
            request, signature, model.signatures["serving_default"]
        )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"logits": tf.zeros((1, 2))}, "Received: .*'logits'"),
        ({"label": tf.zeros(1, tf.int64)}, "int32.*int64"),
        ({"probabilities": tf.zeros((1, 3))}, r"None, 2.*1, 3"),
    ],
)
def test_an_answer_that_does_not_fit_is_told(saved, model, changes, expected):
    signature = warm_up.signatures_of(saved)["serving_default"]
    images = np.zeros((1, *SHAPE), "uint8")
    request = warm_up.request(NAME, "serving_default", {"images": images})
    given = model.signatures["serving_default"](tf.constant(images))
    assert set(warm_up.answer(request, signature, lambda images: given))
    with pytest.raises(ValueError, match=expected):
        warm_up.answer(request, signature, lambda images: given | changes)


def test_an_export_whose_requests_do_not_fit_is_kept_back(
    data_dir, training, tmp_path, monkeypatch
):
    request = warm_up.request

    def renamed(model, signature, inputs):
        (value,) = inputs.values()
        return request(model, signature, {"pictures": value})

    monkeypatch.setattr(warm_up, "request", renamed)
    with pytest.raises(ValueError, match="'images'.*'pictures'"):
        export(data_dir, training, tmp_path)
    assert not (tmp_path / "att_darts").exists()


def test_names_of_classes_stay_one_a_line(training, data_dir, tmp_path):
    other = shutil.copytree(data_dir, tmp_path / "data")
    file = other / "dataset.json"
    file.write_text(file.read_text().replace('"level"', '"le\\nv\\u2028l"'))
    result = export(other, training, tmp_path / "export")
    labels = pathlib.Path(result["model"], "assets.extra", "labels.txt")
    assert labels.read_text() == "le\\nv\\u2028l\nupright\n"


class TestLiteRT:
    @pytest.mark.parametrize("batch", [1, 5])
    def test_file_gives_the_probabilities_of_the_network(
        self, exported, network, data_dir, images, batch
    ):
        folder, result = exported
        file = folder / f"{NAME}.tflite"
        assert result["litert"]["model"] == str(file)
        assert result["litert"]["largest_difference"] <= TOLERANCE
        interpreter = tf.lite.Interpreter(model_path=str(file))
        (details,) = interpreter.get_input_details()
        assert details["dtype"] == np.uint8
        interpreter.resize_tensor_input(details["index"], (batch, *SHAPE))
        interpreter.allocate_tensors()
        interpreter.set_tensor(details["index"], images[:batch])
        interpreter.invoke()
        (details,) = interpreter.get_output_details()
        np.testing.assert_allclose(
            interpreter.get_tensor(details["index"]),
            probabilities_of(network, data_dir, images[:batch]),
            atol=TOLERANCE,
        )

    @pytest.mark.parametrize("attention", ATTENTIONS.names())
    def test_every_attention_is_computed_by_its_own_operations(
        self, attention, data_dir, images
    ):
        keras.utils.set_random_seed(0)
        network = Network.from_genotype(
            toy.genotype(
                ("dil_conv_3x3", attention),
                ("max_pool_3x3", attention),
                attention,
            ),
            image_shape=SHAPE,
            num_classes=2,
            cells=3,
            channels=8,
        )
        # Statistics of these images, so that answers depend on them.
        for layer in network._flatten_layers():
            if hasattr(layer, "momentum"):
                layer.momentum = 0.0
        data = prepared.load(data_dir)
        inputs = augment.normalise(images, mean=data.mean, std=data.std)
        network(inputs, training=True)
        logits = network(inputs).numpy()
        spread = logits.std(0).max()
        network.classifier.kernel.assign(network.classifier.kernel / spread)
        bias = network.classifier.bias
        bias.assign((bias - logits.mean(0)) / spread)
        classifier = serving.Classifier(
            network, data, serving.preprocess.of(toy.config().data, data)
        )
        pixels = tf.TensorSpec((None, *SHAPE), tf.uint8, "images")
        content = litert.convert(classifier.classify, pixels)
        expected = classifier.classify(tf.constant(images))["probabilities"]
        assert np.ptp(expected[:, 0]) > 1e-2
        received = litert.probabilities(content, images)
        np.testing.assert_allclose(received, expected, atol=TOLERANCE)
        interpreter = tf.lite.Interpreter(model_content=content)
        names = {each["op_name"] for each in interpreter._get_ops_details()}
        assert not [name for name in names if not name.isupper()]
        kinds = {
            each["dtype"].__name__
            for each in interpreter.get_tensor_details()
            if each["name"] != "images"
        }
        assert "float32" in kinds
        assert not kinds & {"float16", "int8"}

    def test_is_not_written_unless_asked_for(
        self, data_dir, training, tmp_path
    ):
        assert export(data_dir, training, tmp_path)["litert"] is None
        assert not list(tmp_path.rglob("*.tflite"))

    def test_bfloat16_is_refused_before_anything_is_written(
        self, data_dir, tmp_path
    ):
        network = Network.from_genotype(
            toy.USEFUL,
            image_shape=SHAPE,
            num_classes=2,
            cells=3,
            channels=4,
            dtype="mixed_bfloat16",
        )
        (tmp_path / "training").mkdir()
        save(network, tmp_path / "training" / "model.keras")
        folder = tmp_path / "export"
        with pytest.raises(UsageError, match="Received: bfloat16.*litert=fals"):
            export(data_dir, tmp_path / "training", folder, litert=True)
        assert {path.name for path in folder.iterdir()} == {".lock"}
        export(data_dir, tmp_path / "training", folder)

    def test_operation_that_it_lacks_is_named_in_one_line(self):
        def classify(images):
            squares = tf.cast(images[..., 0], "float32")
            return {"probabilities": tf.linalg.det(squares)}

        pixels = tf.TensorSpec((None, *SHAPE), tf.uint8, "images")
        with pytest.raises(UsageError, match="litert=false") as caught:
            litert.convert(classify, pixels)
        assert len(str(caught.value).splitlines()) == 1


class TestModelCard:
    def test_shows_the_figures_of_the_evaluation(self, card, evaluation):
        result = json.loads((evaluation / "result.json").read_text())
        first, second = result["accuracies"]
        assert first != second
        rows = dict(re.findall(r"^\| (accuracy|cross entropy) \| (.*) \|$",
                               card, re.M))
        assert rows["accuracy"].startswith(f"{100 * second:.2f} % | ")
        assert rows["cross entropy"].startswith(f"{result['losses'][1]:.4f}")
        mean = 50 * (first + second)
        # Student's t of one degree of freedom, by two values' deviation.
        half = 100 * 12.7062 * abs(first - second) / 2
        assert f"- accuracy: {mean:.2f} +- {half:.2f} % (" in card
        assert "Of 2 trainings" in card
        assert "On 10 test images" in card

    def test_without_an_evaluation_says_so(self, data_dir, training, tmp_path):
        result = export(data_dir, training, tmp_path)
        file = pathlib.Path(result["model"], "assets.extra", "model_card.md")
        assert "Not judged yet" in file.read_text()
        assert "accuracy" not in file.read_text()

    def test_tells_what_the_model_is(self, card, exported, data_dir, network):
        data = prepared.load(data_dir)
        assert card.startswith(f"# Model card: {NAME}, version {VERSION}\n")
        titles = re.findall("^## (.*)$", card, re.M)
        assert titles == [
            *("Model details", "Intended use", "Training data", "Evaluation"),
            *("Cost", "Lineage", "Licence", "How to serve it"),
        ]
        for text in (
            "images of 9 x 9 pixels and 3 channels into 2 classes",
            "Network: 3 cells, 2 channels of the first cells",
            "sep_conv_3x3(0)",
            "48 images for training, 10 for the evaluation",
            f"`{data.digest}`",
            f"{network.num_parameters():,} parameters",
            f"{cost.multiply_adds(network):,} multiply-adds",
            "4 requests of up to 8 training images",
            "Apache License 2.0",
            "| prepare | `",
            "| evaluate | `",
        ):
            assert text in card, text
        for times in exported[1]["latencies"]:
            assert f"Batch of {times['batch']}: {times['median']:,.1f}" in card

    def test_without_records_says_so(self):
        assert "No stage before has left a record" in model_card._lineage([])[0]

    def test_shows_the_lineage_but_no_path_of_this_machine(
        self, data_dir, training, tmp_path
    ):
        data = shutil.copytree(data_dir, tmp_path / "data")
        folder = shutil.copytree(training, tmp_path / "training")
        (folder / "result.json").write_text("{}")
        made_from = {
            "config": {"network": {"cell": "/home/somebody/cells.json"}},
            "data": {"digest": 4 * "0123456789abcdef"},
            "seed": 271828,
            "code": 4 * "fedcba9876543210",
        }
        with stage_folder.StageFolder(
            folder, stage="train", identity=made_from, reads=[data]
        ) as held:
            held.finish({})
        result = export(data, folder, tmp_path / "export")
        file = pathlib.Path(result["model"], "assets.extra", "model_card.md")
        text = file.read_text()
        (row,) = re.findall(r"^\| train \|.*$", text, re.M)
        digest = workdir.digest(folder / "result.json")
        assert row == (
            f"| train | `{digest[:16]}` | `fedcba9876543210` | "
            "`0123456789abcdef` | 271828 |"
        )
        digest = workdir.digest(data / "dataset.json")
        assert f"| prepare | `{digest[:16]}` | " in text
        assert f"tensorflow {tf.__version__}" in text
        assert "/home" not in text
        assert str(tmp_path) not in text
        # It is among what the export was made from.
        record = folder / "lineage.json"
        record.write_text(record.read_text().replace("271828", "314159"))
        with pytest.raises(UsageError, match="inputs.lineage_model="):
            export(data, folder, tmp_path / "export")

    def test_somebody_elses_text_is_no_markup(self):
        assert model_card.plain("a_b<script>|[x](y)`\n# d") == (
            r"a\_b\<script\>\|\[x\](y)\`\\n# d"
        )

    def test_its_command_sends_a_request_of_the_signature(
        self, card, saved, images, tmp_path
    ):
        photo = write(tmp_path / "photo.jpg", images[0])
        (command,) = re.findall(r"```\n(echo .*?)```", card, re.S)
        sending = f"curl --data @- http://localhost:8501/v1/models/{NAME}:predi"
        assert sending in command
        script = command.replace(sending, "cat # ")
        process = run("bash", "-c", script, folder=tmp_path)
        sent = json.loads(process.stdout)
        assert sent["signature_name"] == "encoded"
        (instance,) = sent["instances"]
        signature = warm_up.signatures_of(saved)["encoded"]
        assert set(instance) == set(signature.inputs)
        content = base64.b64decode(instance["contents"]["b64"])
        assert content == photo.read_bytes()

    def test_its_program_is_answered(
        self, card, saved, model, images, tmp_path, monkeypatch, capsys
    ):
        write(tmp_path / "photo.jpg", images[0])
        (program,) = re.findall(r"```python\n(.*?)```", card, re.S)
        assert '"localhost:8500"' in program
        monkeypatch.chdir(tmp_path)
        with serving_at(saved) as port:
            exec(program.replace("localhost:8500", f"localhost:{port}"), {})
        content = (tmp_path / "photo.jpg").read_bytes()
        answer = model.signatures["encoded"](tf.constant([content]))
        expected = answer["label_name"].numpy()
        assert capsys.readouterr().out == f"{expected}\n"

    def test_its_container_finds_the_model(self, card):
        assert f"-e MODEL_NAME={NAME} " in card
        assert f'-v "$PWD/{NAME}:/models/{NAME}:ro" tensorflow/serving' in card


@contextlib.contextmanager
def serving_at(folder):
    """Gives the port of a gRPC server that answers by a SavedModel."""

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            assert request.model_spec.name == NAME
            response = predict_pb2.PredictResponse()
            for name, value in served(folder, request).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            Servicer(), server
        )
        port = server.add_insecure_port("localhost:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


def test_another_export_of_the_same_has_the_same_bytes(
    exported, data_dir, training, evaluation, tmp_path
):
    first, _ = exported
    export(data_dir, training, tmp_path, evaluation, litert=True, **NAMED)
    names = {
        path.relative_to(first).as_posix()
        for path in (first / NAME).rglob("*")
        if path.is_file()
    }
    names.add("classify.py")
    # Layers and functions of one process are counted in their names; another
    # process has the same, but for the number in the fingerprint.
    names -= {
        f"{NAME}/{VERSION}/{name}"
        for name in (
            "fingerprint.pb",
            "saved_model.pb",
            # It tells when, in what time and of which graph.
            "assets.extra/lineage.json",
        )
    }
    for name in sorted(names):
        contents = [(root / name).read_bytes() for root in (first, tmp_path)]
        if name.endswith(".md"):
            contents = [
                re.sub(rb"Batch of .*", b"", each) for each in contents
            ]
        assert contents[0] == contents[1], name


def test_an_evaluation_of_other_networks_is_refused(
    data_dir, training, evaluation, tmp_path
):
    folder = shutil.copytree(training, tmp_path / "training")
    network = Network.from_genotype(
        toy.USEFUL, image_shape=SHAPE, num_classes=2, cells=3, channels=4
    )
    save(network, folder / "model.keras")
    with pytest.raises(UsageError, match="Received: one of other networks"):
        export(data_dir, folder, tmp_path / "export", evaluation)
    # The mended command is welcome there.
    assert not list((tmp_path / "export").glob("*.json"))


@pytest.mark.parametrize(
    ("file", "field"), [("result", "accuracies"), ("identity", "inputs")]
)
def test_a_damaged_evaluation_is_named(
    data_dir, training, evaluation, tmp_path, file, field
):
    other = shutil.copytree(evaluation, tmp_path / "evaluation")
    path = other / f"{file}.json"
    record = json.loads(path.read_text())
    record[field] = 3
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=f"`{field}` of .*{file}.json"):
        export(data_dir, training, tmp_path / "export", other)
