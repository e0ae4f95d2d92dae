import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.errors import UsageError
from att_darts_tf.network import cell as cell_module
from att_darts_tf.space import blocks, genotype
from att_darts_tf.space.genotype import LAYER_NAMES, Cell, Edge


def maps(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return tf.constant(generator.normal(size=shape).astype("float32"))


def built(layer, shape):
    layer.build(shape)
    return layer


class TestEdge:
    """What must hold for every registered operation and attention."""

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("name", LAYER_NAMES)
    def test_first_layer_has_the_stride(self, name, stride):
        edge = built(cell_module.Edge((name,), stride), (None, 7, 6, 8))
        outputs = edge(maps(2, 7, 6, 8), training=True)
        expected = (2, 7, 6, 8) if stride == 1 else (2, 4, 3, 8)
        assert outputs.shape == expected
        assert edge.compute_output_shape((2, 7, 6, 8)) == expected

    @pytest.mark.parametrize("name", LAYER_NAMES)
    def test_second_layer_has_no_stride_and_keeps_the_policy(self, name):
        edge = cell_module.Edge(
            ("max_pool_3x3", name), stride=2, dtype="mixed_bfloat16"
        )
        built(edge, (None, 8, 8, 8))
        outputs = edge(maps(2, 8, 8, 8), training=True)
        assert outputs.shape == (2, 4, 4, 8)
        assert outputs.dtype == tf.bfloat16
        assert {v.dtype for v in edge.trainable_variables} <= {"float32"}

    def test_attention_on_a_strided_edge_follows_a_skip_without_scale(self):
        edge = built(cell_module.Edge(("SE", "CBAM"), 2), (None, 8, 8, 16))
        skip, *rest = edge.steps
        assert isinstance(skip, blocks.FactorizedReduction)
        assert not skip.affine
        assert len(rest) == 2

    @pytest.mark.parametrize(
        ("layers", "stride", "droppable"),
        [
            (("sep_conv_3x3",), 1, True),
            (("sep_conv_3x3", "CBAM"), 1, True),
            (("sep_conv_3x3", "Identity"), 1, False),
            (("skip_connect",), 1, False),
            (("skip_connect", "CBAM"), 1, False),
            # With a stride it is a factorized reduction.
            (("skip_connect",), 2, True),
            (("skip_connect", "Identity"), 2, False),
            (("max_pool_3x3", "BAM"), 2, True),
            (("SE", "skip_connect"), 2, False),
        ],
    )
    def test_drop_path_spares_edges_with_an_identity(
        self, layers, stride, droppable
    ):
        assert cell_module.Edge(layers, stride).droppable == droppable


def skips(**changes):
    """Returns a cell whose nodes are sums of states."""
    options = {
        "nodes": (
            (Edge(0, ("skip_connect",)), Edge(1, ("skip_connect",))),
            (
                Edge(2, ("skip_connect",)),
                Edge(2, ("skip_connect",)),
                Edge(0, ("skip_connect",)),
            ),
        ),
        "concat": (3, 1, 2),
        **changes,
    }
    return Cell(**options)


def test_nodes_sum_their_edges_and_the_output_concatenates_in_order():
    layer = cell_module.Cell(skips(), 2)
    layer.build([(None, 3, 3, 4), (None, 3, 3, 5)])
    inputs = [maps(2, 3, 3, 4), maps(2, 3, 3, 5, seed=1)]
    zero, one = (p(i) for p, i in zip(layer.preprocess, inputs))
    two = zero + one
    three = two + two + zero
    outputs = layer(inputs)
    assert outputs.shape == layer.compute_output_shape([(2, 3, 3, 4)] * 2)
    np.testing.assert_allclose(
        outputs, tf.concat([three, one, two], -1), rtol=1e-6
    )


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("reduction", [False, True])
def test_larger_state_of_a_cell_after_a_reduction_is_halved(size, reduction):
    half = -(-size // 2)
    layer = cell_module.Cell(
        skips(concat=(3, 2)), 2, reduction, previous_reduction=True
    )
    shapes = [(2, size, size, 4), (2, half, half, 4)]
    layer.build(shapes)
    outputs = layer([maps(*shape) for shape in shapes])
    assert isinstance(layer.preprocess[0], blocks.FactorizedReduction)
    assert layer.preprocess[0].affine
    assert outputs.shape == layer.compute_output_shape(shapes)
    assert outputs.shape[1] == (-(-half // 2) if reduction else half)


def test_output_of_a_reduction_cell_cannot_hold_its_inputs():
    with pytest.raises(UsageError, match=r"Received: concat \(3, 1, 2\)"):
        cell_module.Cell(skips(), 2, reduction=True)


def test_attention_on_the_output_sees_all_channels():
    layer = cell_module.Cell(skips(bottleneck="SE"), 16)
    shapes = [(None, 4, 4, 3), (None, 4, 4, 3)]
    layer.build(shapes)
    assert layer.bottleneck.squeeze.kernel.shape == (48, 3)
    without = cell_module.Cell(skips(), 16)
    without.build(shapes)
    for mine, its in zip(without.variables, layer.variables):
        mine.assign(its)
    inputs = [maps(2, 4, 4, 3), maps(2, 4, 4, 3, seed=1)]
    np.testing.assert_allclose(
        layer(inputs), layer.bottleneck(without(inputs)), rtol=1e-5
    )


def test_dropped_edge_is_dropped_for_that_example_and_the_others_scaled():
    edges = (Edge(0, ("max_pool_3x3",)), Edge(1, ("skip_connect",)))
    cell = Cell(nodes=(edges,), concat=(2,))
    layer = cell_module.Cell(cell, 2)
    layer.build([(None, 4, 4, 2)] * 2)
    assert layer.num_droppable == 1
    inputs = [maps(2, 4, 4, 2), maps(2, 4, 4, 2, seed=1)]
    zero, one = (p(i) for p, i in zip(layer.preprocess, inputs))
    outputs = layer(inputs, keep=tf.constant([[0.0], [1.25]]))
    np.testing.assert_allclose(outputs[0], one[0], rtol=1e-6)
    pooled = blocks.max_pool(zero)
    np.testing.assert_allclose(outputs[1], 1.25 * pooled[1] + one[1], rtol=1e-5)


def test_cell_survives_its_configuration_and_a_keras_file(tmp_path):
    edges = (Edge(0, ("sep_conv_3x3", "CBAM")), Edge(1, ("SE",)))
    cell = Cell(nodes=(edges,), concat=(2, 0), bottleneck="BAM")
    layer = cell_module.Cell(cell, 4, reduction=False, previous_reduction=True)
    first = keras.Input((8, 8, 3))
    second = keras.Input((4, 4, 3))
    model = keras.Model([first, second], layer([first, second]))
    model.save(tmp_path / "cell.keras")
    loaded = keras.saving.load_model(tmp_path / "cell.keras")
    (copy,) = (
        found for found in loaded.layers if isinstance(found, cell_module.Cell)
    )
    assert copy.cell == cell
    inputs = [maps(2, 8, 8, 3), maps(2, 4, 4, 3)]
    np.testing.assert_array_equal(model(inputs), loaded(inputs))


def test_every_layer_name_is_known_here():
    assert len(set(genotype.LAYER_NAMES)) == len(genotype.LAYER_NAMES) == 20
