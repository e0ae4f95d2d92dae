import collections
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.network import cost, network
from att_darts_tf.network.network import Network
from att_darts_tf.space import blocks, operations
from att_darts_tf.space.genotype import LAYER_NAMES, Cell, Edge, Genotype
from tests.network import toy


def skipping():
    """Returns a built network of three cells, each the sum of two skips."""
    node = tuple(Edge(source, ("skip_connect",)) for source in (0, 1))
    cell = Cell(nodes=(node,), concat=(2,))
    return network.create(
        Genotype(normal=cell, reduce=cell),
        image_shape=(8, 8, 1),
        num_classes=4,
        channels=4,
        cells=3,
        auxiliary=True,
    )


def test_multiply_adds_by_hand():
    # Cells 1 and 2 are reductions, from 8 x 8 to 4 x 4 to 2 x 2 pixels.
    stem = 64 * 9 * 1 * 12
    first = 2 * 64 * 12 * 4
    # Both inputs of cell 1 have 8 x 8 pixels; the older one of cell 2 is
    # halved, as are the inputs of the strided skips.
    second = 64 * 12 * 8 + 64 * 4 * 8 + 2 * 16 * 8 * 8
    third = 16 * 4 * 16 + 16 * 8 * 16 + 2 * 4 * 16 * 16
    classifier = 16 * 4
    assert cost.multiply_adds(skipping()) == (
        stem + first + second + third + classifier
    )


def test_activation_memory_by_hand():
    model = skipping()
    # What a convolution reads is what a ReLU kept; a normalisation reads what
    # a convolution made. The first convolution reads the image.
    stem = 64 * 12
    first = 2 * 64 * (12 + 4)
    second = 64 * (12 + 8) + 64 * (4 + 8)
    third = 2 * 16 * 4 + 64 * 4 + 16 * 16 + 16 * (8 + 16)
    # A strided skip keeps its ReLU, the two samplings and their convolutions.
    skips = 2 * (64 * 8 + 2 * 16 * 8 + 16 * 8)
    skips += 2 * (16 * 16 + 2 * 4 * 16 + 4 * 16)
    classifier = 16
    kept = stem + first + second + third + skips + classifier
    without = network.create(
        model.genotype,
        image_shape=(8, 8, 1),
        num_classes=4,
        channels=4,
        cells=3,
    )
    assert cost.activation_bytes(without) == 4 * kept
    assert cost.activation_bytes(model) > 4 * kept


def published(name, *, auxiliary):
    """Returns the network of published cells for ImageNet."""
    # Shapes are all that counts: no variable is given values.
    with keras.StatelessScope():
        return Network.from_genotype(
            name,
            image_shape=(224, 224, 3),
            num_classes=1000,
            channels=48,
            cells=14,
            stem="imagenet",
            auxiliary=auxiliary,
        )


def extras(layer):
    """Counts as flops-counter.pytorch does beside convolutions and dense."""

    def inputs(layer):
        return math.prod(layer.get_build_config()["input_shape"][1:])

    total = 0
    for below in layer._flatten_layers():
        if isinstance(below, blocks.BatchNormalization):
            total += 2 * inputs(below)
        elif isinstance(
            below,
            (blocks.FactorizedReduction, blocks.ReluConvolutionNormalization),
        ):
            total += inputs(below)
        elif isinstance(below, operations.SeparableConvolution):
            total += sum(map(inputs, below.depthwise))
        elif isinstance(below, operations.Pooling):
            total += inputs(below)
        elif isinstance(below, network.LargeStem):
            # Between its three convolutions, of 24 and of 48 channels.
            total += 24 * 112**2 + 48 * 56**2
    # The last pool, over maps of 7 x 7.
    return total + 49 * 4 * 192


# Source: Xu et al., 2020, https://arxiv.org/abs/1907.05737, table 2; what
# others measured of `darts_v2`: https://github.com/quark0/darts/issues/46.
@pytest.mark.parametrize(
    ("name", "counted", "millions", "error"),
    [
        ("pc_darts_imagenet", 581_627_328, 597, 0.5),
        ("darts_v2", 529_911_552, 544.59, 0.005),
    ],
)
def test_published_multiply_adds_are_these_and_what_a_tool_adds(
    name, counted, millions, error
):
    model = published(name, auxiliary=False)
    assert cost.multiply_adds(model) == counted
    others = (counted + extras(model)) / 1e6
    assert others == pytest.approx(millions, abs=error)
    assert cost.multiply_adds(published(name, auxiliary=True)) == counted


def every_layer():
    """Returns cells that hold every operation and every attention."""
    node = tuple(Edge(i % 2, (name,)) for i, name in enumerate(LAYER_NAMES))
    cell = Cell(nodes=(node,), concat=(2,), bottleneck="CBAM")
    return Genotype(normal=cell, reduce=cell)


def test_layers_are_called_with_the_shapes_that_were_counted(monkeypatch):
    model = network.create(
        every_layer(),
        image_shape=(9, 10, 3),
        num_classes=4,
        channels=4,
        cells=3,
    )
    seen = collections.Counter()

    def record(kind):
        call = kind.call

        def recorded(layer, inputs, **options):
            outputs = call(layer, inputs, **options)
            pixels = math.prod(outputs.shape[1:-1])
            seen["layers"] += pixels * math.prod(layer.kernel.shape)
            return outputs

        monkeypatch.setattr(kind, "call", recorded)

    for kind in (
        blocks.Convolution,
        blocks.DepthwiseConvolution,
        keras.layers.Dense,
    ):
        record(kind)
    multiply = tf.matmul

    def product(a, b, **options):
        result = multiply(a, b, **options)
        if a.shape.rank == 3:
            inner = a.shape[1] if options.get("transpose_a") else a.shape[2]
            seen["products"] += inner * math.prod(result.shape[1:])
        return result

    monkeypatch.setattr(tf, "matmul", product)
    model(np.ones((1, 9, 10, 3), "float32"))
    seen["gathered"] = sum(
        math.prod(layer.kernel.shape)
        for layer in model._flatten_layers()
        if type(layer).__name__ == "GatherExcite"
    )
    assert min(seen.values()) > 0
    assert cost.multiply_adds(model) == sum(seen.values())


def test_a_layer_of_unknown_cost_is_refused():
    layer = keras.layers.PReLU()
    layer.build((None, 4))
    with pytest.raises(ValueError, match="Received: PReLU. Give it a method"):
        cost.multiply_adds(layer)


def test_a_layer_may_tell_its_own_cost():
    class Slope(keras.layers.PReLU):
        def multiply_adds(self):
            return 7

    layer = Slope()
    layer.build((None, 4))
    assert cost.multiply_adds(layer) == 7


def test_costs_are_plain_data():
    model = Network.from_genotype(
        toy.USEFUL,
        image_shape=(9, 9, 3),
        num_classes=2,
        channels=4,
        cells=3,
        auxiliary=True,
        dtype="mixed_bfloat16",
    )
    counted = cost.count(model)
    assert counted == {
        "parameters": model.num_parameters(),
        "parameters_with_auxiliary": model.num_parameters(auxiliary=True),
        "multiply_adds": cost.multiply_adds(model),
        "activation_bytes": cost.activation_bytes(model),
    }
    assert {type(value) for value in counted.values()} == {int}


def test_table_holds_every_cost():
    lines = list(cost.describe(skipping()))
    assert [line[:17].rstrip() for line in lines] == [
        "Parameters",
        "",
        "Multiply-adds",
        "Activation memory",
        "Latency, batch 1",
        "Latency, batch 32",
    ]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(100.0, cost.RUNS), (0.0, cost.FEWEST_RUNS)]
)
def test_latency_is_that_of_several_runs(monkeypatch, seconds, expected):
    monkeypatch.setattr(cost, "SECONDS", seconds)
    found = dict(cost.latencies(skipping()))
    assert set(found) == set(cost.LATENCY_BATCHES)
    for runs in found.values():
        assert len(runs) == expected
        assert runs == sorted(runs)
        assert runs[0] > 0
