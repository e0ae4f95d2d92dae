import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import optimizers
from att_darts_tf.errors import UsageError
from att_darts_tf.network import cost, evaluate, network, run
from att_darts_tf.network.densenet import DenseNet
from att_darts_tf.space import published
from tests.network import toy


def tiny(**options):
    options = {
        "image_shape": (9, 9, 3),
        "num_classes": 4,
        "channels": 2,
        "cells": 2,
        **options,
    }
    return network.create(published.DENSENET, **options)


def test_parameters_and_multiply_adds_by_hand():
    model = tiny(image_shape=(8, 8, 3))

    def layer(channels):
        """Weights of convolutions and of normalisations of one layer."""
        return channels * 8 + 9 * 8 * 2, 2 * channels + 2 * 8

    # Channels: 4, then 6 and 8 in a block; 4 after each of two transitions.
    convolutions, normalizations = (
        sum(pair) for pair in zip(layer(4), layer(6))
    )
    transition = 8 * 4
    stem = 9 * 3 * 4
    assert model.num_parameters() == (
        stem
        + 3 * (convolutions + normalizations)
        + 2 * (transition + 2 * 8)
        + 2 * 8
        + 8 * 4
        + 4
    )
    assert cost.multiply_adds(model) == (
        64 * (stem + convolutions + transition)
        + 16 * (convolutions + transition)
        + 4 * convolutions
        + 8 * 4
    )


def test_a_layer_reads_the_maps_of_all_before_it():
    model = tiny(cells=3)
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 3))
    maps = [model.stem(tf.constant(images, "float32"))]
    for bottleneck, layer in model.dense_layers[0]:
        maps.append(layer(bottleneck(tf.concat(maps, -1))))
    assert [each.shape[-1] for each in maps] == [4, 2, 2, 2]
    pooled = tf.nn.avg_pool2d(
        model.transitions[0](tf.concat(maps, -1)), 2, 2, "VALID"
    )
    assert pooled.shape == (2, 4, 4, 5)
    seen = []
    first = model.dense_layers[1][0][0]
    call = first.call
    first.call = lambda inputs, **options: (
        seen.append(inputs) or call(inputs, **options)
    )
    assert model(images).shape == (2, 4)
    np.testing.assert_allclose(seen[0], pooled, rtol=1e-5)


def test_mixed_precision_reaches_every_layer_but_the_logits():
    model = tiny(dtype="mixed_bfloat16")
    model.compile(optimizers.SGD(0.1), run_eagerly=True)
    images = np.ones((2, 9, 9, 3), "float32")
    assert model(images).dtype == tf.float32
    assert model.dense_layers[0][0][0].compute_dtype == "bfloat16"
    figures = model.train_step((images, tf.constant([0, 1])))
    assert np.isfinite(figures["loss"])


def test_survives_a_file(tmp_path):
    model = tiny()
    model.compile(optimizers.SGD(0.1))
    network.save(model, tmp_path / "model.keras")
    loaded = network.load(tmp_path / "model.keras")
    assert isinstance(loaded, DenseNet)
    assert loaded.get_config() == model.get_config()
    images = np.ones((2, 9, 9, 3), "float32")
    np.testing.assert_array_equal(model(images), loaded(images))


def test_is_trained_and_judged_by_name(tmp_path):
    data_dir = toy.prepare(tmp_path)
    config = toy.config()
    config.network.cell = published.DENSENET
    config.network.auxiliary_weight = config.network.drop_path = 0.0
    config.network.channels = 2
    config.network.epochs = 1
    result = run.run_training(
        config,
        data_dir=data_dir,
        genotype=published.DENSENET,
        output_dir=tmp_path / "training",
        seed=0,
    )
    model = network.load(tmp_path / "training" / "model.keras")
    assert (model.growth_rate, model.num_layers) == (2, 3)
    assert result["parameters"] == model.num_parameters()
    assert result["parameters_with_auxiliary"] == result["parameters"]
    judged = evaluate.run_evaluation(
        config,
        data_dir=data_dir,
        models=[tmp_path / "training"],
        output_dir=tmp_path / "evaluation",
    )
    assert judged["images"] == toy.TEST


@pytest.mark.parametrize(
    "options",
    [
        {"auxiliary": True},
        {"drop_path": 0.2},
        {"stem": "imagenet"},
        {"frozen": True},
    ],
)
def test_what_only_cells_have_is_refused(options):
    ((name, value),) = options.items()
    message = f"which has no cells. Received: .*'{name}': {value!r}"
    with pytest.raises(UsageError, match=message):
        tiny(**options)


def test_images_that_two_pools_would_leave_nothing_of_are_refused():
    with pytest.raises(UsageError, match="at least 4 pixels"):
        tiny(image_shape=(3, 9, 3))


@pytest.mark.parametrize("name", ["growth_rate", "num_layers", "num_classes"])
def test_argument_out_of_range_is_refused(name):
    options = {"num_classes": 4, name: 0}
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at"):
        DenseNet(**options)


def test_two_processes_would_begin_alike():
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        weights.append(tiny().get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
