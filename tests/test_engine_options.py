"""`config.engine.precision` and `config.engine.jit`, in search and network."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf import settings
from att_darts_tf.configs import base
from att_darts_tf.errors import UsageError
from att_darts_tf.network import trainer
from att_darts_tf.search import run
from att_darts_tf.space import published
from att_darts_tf.space.genotype import Genotype

# What a file of the model says of XLA.
SAVED = {"search": {"jit": True}, "network": {"jit_compile": True}}
SHAPE, CLASSES = (16, 16, 3), 4


def batch(seed):
    draw = np.random.default_rng(seed)
    images = draw.normal(size=(8, *SHAPE)).astype("float32")
    return tf.constant(images), tf.constant(np.arange(8) % CLASSES)


@pytest.fixture
def eagerly():
    """Runs functions step by step: nothing here takes many steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def first_half(genotype):
    """Returns cells of the first two nodes: they have every kind of edge."""
    cells = {}
    for name in ("normal", "reduce"):
        cell = getattr(genotype, name)
        half = dataclasses.replace(cell, nodes=cell.nodes[:2], concat=(2, 3))
        assert kinds_of(half) == kinds_of(cell)
        cells[name] = half
    return Genotype(**cells)


def kinds_of(cell):
    return {edge.layers for node in cell.nodes for edge in node}


def make(kind, location="after_every", **engine):
    config = base.get_config()
    config.engine.deterministic = False
    config.engine.update(engine)
    settings.validate(config)
    keras.utils.set_random_seed(0)
    if kind == "search":
        config.search.cells, config.search.channels = 1, 4
        # Of one cell "large" is none.
        config.search.recompute = "all"
        config.space.location = location
        return run.make_search(config, image_shape=SHAPE, num_classes=CLASSES)
    config.network.cells, config.network.channels = 3, 4
    # The auxiliary head takes half a minute of XLA more.
    config.network.auxiliary_weight = 0.0
    return trainer.make_network(
        config,
        config.network,
        data=types.SimpleNamespace(
            image_shape=SHAPE, class_names=range(CLASSES)
        ),
        genotype=first_half(published.get("att_darts")),
    )


def train(model, kind):
    """Takes two steps; returns their losses and the trained values."""
    pairs = [(batch(0), batch(1)) if kind == "search" else batch(0)] * 2
    losses = []
    for pair in pairs:
        history = model.fit(
            tf.data.Dataset.from_tensors(pair), verbose=0
        ).history
        losses += history["loss"]
    return losses, [v.numpy() for v in model.trainable_variables]


@pytest.mark.parametrize("kind", ["search", "network"])
def test_lower_precision_keeps_weights_and_follows_the_full(kind, eagerly):
    model = make(kind, precision="mixed_bfloat16")
    losses, values = train(model, kind)
    assert {value.dtype.name for value in values} == {"float32"}
    policies = {layer.compute_dtype for layer in model._flatten_layers()}
    assert "bfloat16" in policies
    expected, _ = train(make(kind), kind)
    np.testing.assert_allclose(losses, expected, rtol=0.05)
    assert losses != expected


def is_compiled(model, kind):
    """Whether XLA compiles what the option is about."""
    if kind == "network":
        return model.jit_compile
    kinds = model.supernet.cells[0].traces._functions.values()
    traced = [getattr(each, "_traced", each) for each in kinds]
    return all(
        concrete.function_def.attr["_XlaMustCompile"].b
        for each in traced
        for concrete in each._list_all_concrete_functions()
    )


@pytest.mark.parametrize("kind", ["search", "network"])
def test_compiled_by_xla_it_is_the_same_training(kind):
    location = "no_attention"
    model = make(kind, location, jit=True)
    losses, values = train(model, kind)
    assert is_compiled(model, kind)
    assert model.get_compile_config().items() >= SAVED[kind].items()
    expected_losses, expected = train(make(kind, location), kind)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for ours, theirs in zip(values, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_xla_is_not_promised_to_be_deterministic():
    config = base.get_config()
    config.engine.jit = True
    with pytest.raises(UsageError, match="config.engine.deterministic=false"):
        settings.validate(config)


def test_finite_differences_need_more_than_bfloat16():
    config = base.get_config()
    config.engine.precision = "mixed_bfloat16"
    settings.validate(config)
    config.search.order = "second"
    with pytest.raises(UsageError, match="implicit=exact"):
        settings.validate(config)
    config.search.implicit = "exact"
    settings.validate(config)
