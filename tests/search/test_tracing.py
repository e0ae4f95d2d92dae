import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.search import bilevel, tracing
from att_darts_tf.search.mixed import MixedBundle
from att_darts_tf.space import search_space

# Every candidate, by whether the edges share the input.
STAGES = {
    "operations": (search_space.OPERATION_NAMES, True),
    "attentions": (search_space.ATTENTION_NAMES, False),
}
NUM_IMAGES, SIDE, CHANNELS, EDGES = 2, 8, 8, 2


def make(stage):
    names, shared = STAGES[stage]
    layer = MixedBundle(names, EDGES, shared=shared, dtype="float64")
    joint = CHANNELS * (1 if shared else EDGES)
    layer.build((None, SIDE, SIDE, joint))
    draw = np.random.default_rng(0)
    return layer, [
        tf.constant(draw.normal(size=shape))
        for shape in (
            (NUM_IMAGES, SIDE, SIDE, joint),
            (EDGES, len(names)),
            layer.packing.vector.shape,
        )
    ]


def gradients(layer, inputs, weights, vector, *, recompute):
    """Returns a function that gives first and second derivatives."""
    traces = tracing.SharedTraces()

    @tf.function(autograph=False)
    def compute(inputs, weights, vector):
        layer.packing.vector.assign(vector)
        watched = (inputs, weights)
        with tf.GradientTape() as outer:
            outer.watch(watched)
            with tf.GradientTape() as inner:
                inner.watch(watched)
                outputs = traces.call(
                    layer,
                    inputs,
                    weights,
                    training=True,
                    mode=tracing.DEFAULT_MODE,
                    recompute=recompute,
                )
                total = tf.reduce_sum(outputs**3)
            first = inner.gradient(total, watched)
            squares = sum(tf.reduce_sum(each**2) for each in first)
        return *first, *outer.gradient(squares, watched)

    return compute


@pytest.mark.parametrize("stage", STAGES)
def test_computed_again_derivatives_of_both_orders_are_the_same(stage):
    layer, values = make(stage)
    received, expected = (
        gradients(layer, *values, recompute=again)(*values)
        for again in (True, False)
    )
    for ours, theirs in zip(received, expected, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-12)


@pytest.mark.parametrize("recompute", [True, False])
def test_what_is_computed_again_is_not_kept(recompute):
    layer, values = make("operations")
    graph = (
        gradients(layer, *values, recompute=recompute)
        .get_concrete_function(*values)
        .graph
    )
    forward = next(
        operation
        for operation in graph.get_operations()
        if "PartitionedCall" in operation.type
    )
    # The maps, and both moving statistics.
    kept = len(forward.outputs) - 3
    assert (kept == 0) == recompute


def test_no_gradient_comes_of_inputs_that_are_constants():
    layer, (inputs, weights, _) = make("operations")
    traces = tracing.SharedTraces()
    with tf.GradientTape() as tape:
        tape.watch((inputs, weights))
        outputs = traces.call(
            layer,
            inputs,
            weights,
            training=True,
            mode=tracing.Mode(constants=(bilevel.WEIGHTS,)),
            constant_inputs=True,
        )
        total = tf.reduce_sum(outputs**3)
    of_inputs, of_weights = tape.gradient(total, (inputs, weights))
    assert of_inputs is None or not np.any(of_inputs)
    # All but that of "none".
    assert np.all(of_weights[:, 1:])
