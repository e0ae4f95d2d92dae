"""Images that are kept as files, from training to the exported model."""

import shutil

import pytest
import tensorflow as tf

from att_darts_tf import serving
from att_darts_tf.data import input_pipeline, prepared, preprocess
from att_darts_tf.data import run as data_run
from att_darts_tf.errors import UsageError
from att_darts_tf.network import evaluate, network, run
from tests.data import toy as images
from tests.network import toy

CLASSES = tuple("abcdef")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    images.write_photos(root / "train", classes=CLASSES, count=6)
    images.write_photos(root / "test", classes=CLASSES, count=3)
    result = toy.config()
    result.data = images.encoded_config(root).data
    result.network.epochs = 1
    result.network.cutout = 0
    return result


@pytest.fixture(scope="module")
def data_dir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    data_run.run_prepare(config, output_dir=folder)
    return folder


@pytest.fixture(scope="module")
def trained(config, data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    toy.USEFUL.write(folder / "genotype.json")
    run.run_training(
        config,
        data_dir=data_dir,
        genotype=folder / "genotype.json",
        output_dir=folder / "out",
        seed=0,
    )
    return folder / "out"


def test_evaluation_reports_the_top_five_beside_the_first(
    config, data_dir, trained, tmp_path
):
    result = evaluate.run_evaluation(
        config,
        data_dir=data_dir,
        models=[trained, trained],
        output_dir=tmp_path,
    )
    data = prepared.load(data_dir)
    batches = input_pipeline.evaluation_batches(
        data.split("test"),
        preprocessing=preprocess.of(config.data, data),
        batch_size=18,
    )
    figures = network.load(trained / "model.keras").evaluate(
        batches, return_dict=True, verbose=0
    )
    assert result["accuracies"] == pytest.approx([figures["accuracy"]] * 2)
    assert result["losses"] == pytest.approx([figures["loss"]] * 2, rel=1e-5)
    ((inputs, labels),) = batches
    logits = network.load(trained / "model.keras")(inputs, training=False)
    expected = tf.math.in_top_k(labels, logits, k=5).numpy().mean()
    assert result["top_5_accuracies"] == pytest.approx([expected] * 2)
    assert result["top_5_mean"] == pytest.approx(expected)
    assert result["top_5_standard_deviation"] == 0.0
    assert result["mean"] < result["top_5_mean"]
    assert result["images"] == 18


def test_the_exported_model_fits_files_as_the_evaluation_does(
    config, data_dir, trained, tmp_path
):
    result = serving.run_export(
        config, data_dir=data_dir, model=trained, output_dir=tmp_path
    )
    assert result["largest_difference"] <= serving.TOLERANCE
    data = prepared.load(data_dir)
    split = data.split("test")
    batches = input_pipeline.evaluation_batches(
        split, preprocessing=preprocess.of(config.data, data), batch_size=18
    )
    logits = network.load(trained / "model.keras").predict(batches, verbose=0)
    model = tf.saved_model.load(result["model"])
    answer = model.signatures["encoded"](split.files())
    tf.debugging.assert_near(
        answer["probabilities"], tf.nn.softmax(logits), atol=1e-5
    )


@pytest.mark.parametrize("name", ["crop_area", "color_jitter", "flip"])
def test_what_augments_is_part_of_what_a_training_is(config, name):
    assert name in preprocess.training_settings(config.data)
    assert name not in preprocess.evaluation_settings(config.data)
    assert "evaluation_resize" in preprocess.evaluation_settings(config.data)


@pytest.mark.parametrize("damage", ["a byte", "the file"])
def test_damage_while_training_is_told_in_one_line(
    config, data_dir, tmp_path, damage
):
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    (shard,) = copy.glob("train-*.tfrecord")
    content = bytearray(shard.read_bytes())
    if damage == "the file":
        shard.unlink()
    else:
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    toy.USEFUL.write(tmp_path / "genotype.json")
    with pytest.raises(UsageError) as caught:
        run.run_training(
            config,
            data_dir=copy,
            genotype=tmp_path / "genotype.json",
            output_dir=tmp_path / "out",
            seed=0,
        )
    message = str(caught.value)
    assert str(shard) in message
    assert "\n" not in message
    assert "prepare the images again" in message
