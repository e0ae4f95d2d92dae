"""Every published network: counted at full size, used at toy size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf import serving
from att_darts_tf.engine import optimizers
from att_darts_tf.network import cost, network
from att_darts_tf.space import published
from att_darts_tf.space.genotype import Genotype
from tests.network import toy

CIFAR = {"image_shape": (32, 32, 3), "num_classes": 10}
IMAGENET = {
    "image_shape": (224, 224, 3),
    "num_classes": 1000,
    "stem": "imagenet",
}
COUNTED = [
    (name, size)
    for name in published.network_names()
    for size in published.parameters(name)
]

# Three have both kinds of cell, one of them behind a reduction. Where that
# kind reads but one input, the cell before the last would feed none.
CELLS = {"snas_aggressive": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), COUNTED)
def test_counts_are_those_of_the_network(name, size):
    data, channels, _, cells, _ = size.split("_")
    options = {"cifar10": CIFAR, "imagenet": IMAGENET}[data]
    # Shapes are all that counts: no variable is given values before the end.
    with keras.StatelessScope():
        model = network.create(
            name, channels=int(channels), cells=int(cells), **options
        )
        assert model.num_parameters() == published.parameters(name)[size]
        assert cost.multiply_adds(model) == published.multiply_adds(name)[size]


def test_the_network_of_cifar100_has_the_published_weights():
    # As of 10 classes, and 90 more of 576 weights and a bias each.
    with keras.StatelessScope():
        model = network.create("att_darts", **{**CIFAR, "num_classes": 100})
        assert model.num_parameters() == 3_283_273


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return toy.prepare(tmp_path_factory.mktemp("prepared"))


@pytest.mark.slow
@pytest.mark.parametrize("name", published.network_names())
def test_is_trained_written_read_and_exported(
    name, data_dir, tmp_path, monkeypatch
):
    keras.utils.set_random_seed(0)
    architecture = published.resolve_network(name)
    if architecture != published.DENSENET:
        written = Genotype.from_json(architecture.to_json())
        assert written == architecture
        architecture = written
    model = network.create(
        architecture,
        image_shape=(toy.SIDE, toy.SIDE, 3),
        num_classes=2,
        channels=8,
        cells=CELLS.get(name, 3),
    )
    model.compile(optimizers.SGD(0.05, momentum=0.9), run_eagerly=True)
    old = model.get_weights()
    generator = np.random.default_rng(0)
    images = generator.normal(size=(3, toy.SIDE, toy.SIDE, 3))
    images = tf.constant(images, tf.float32)
    figures = model.train_step((images, tf.constant([0, 1, 1])))
    assert np.isfinite(figures["loss"])
    new = model.get_weights()
    assert all(np.isfinite(weights).all() for weights in new)
    moved = [np.any(a != b) for a, b in zip(old, new, strict=True)]
    assert np.mean(moved) > 0.9
    network.save(model, tmp_path / "model.keras")
    loaded = network.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(images), loaded(images))
    # Which the export would read once more.
    monkeypatch.setattr(network, "load", lambda file: loaded)
    exported = serving.run_export(
        toy.config(),
        data_dir=data_dir,
        model=tmp_path,
        output_dir=tmp_path / "export",
    )
    assert exported["largest_difference"] <= serving.TOLERANCE
    assert exported["cost"]["parameters"] == model.num_parameters()
