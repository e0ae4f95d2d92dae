import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.search.mixed import MixedBundle, PlainMixedBundle
from att_darts_tf.space import search_space
from tests.search import pairing

EDGES, CHANNELS = 3, 4
EITHER = search_space.EITHER_NAMES
PLACES = [(1, True), (2, True), (1, False)]


def both(names, stride, shared, size=(8, 6)):
    shape = (None, *size, CHANNELS * (1 if shared else EDGES))
    layers = []
    for kind in (MixedBundle, PlainMixedBundle):
        layer = kind(names, EDGES, stride, shared, dtype="float64")
        layer.build(shape)
        layers.append(layer)
    pairing.copy(layers[1], layers[0])
    return (*layers, shape)


def evaluate(layer, inputs, weights, upstream):
    with tf.GradientTape() as tape:
        tape.watch([inputs, weights])
        outputs = layer(inputs, weights, training=True)
        total = tf.reduce_sum(outputs * upstream)
    variables = layer.trainable_variables
    gradients = tape.gradient(
        total,
        [inputs, weights, *(v.value for v in variables)],
        unconnected_gradients="zero",
    )
    by_variable = dict(zip(map(id, variables), gradients[2:], strict=True))
    return outputs, gradients[0], gradients[1], by_variable


@pytest.mark.parametrize("stride,shared", PLACES)
@pytest.mark.parametrize("name", (*EITHER[1:], "Identity"))
def test_a_bundle_equals_its_plain_layers_weight_by_weight(
    name, stride, shared
):
    mixed, plain, shape = both((name,), stride, shared)
    draw = np.random.default_rng(0)
    inputs = tf.constant(draw.normal(size=(4, *shape[1:])))
    weights = tf.constant(draw.uniform(0.1, 1, (EDGES, 1)))
    upstream = draw.normal(size=plain(inputs, weights).shape)
    ours = evaluate(mixed, inputs, weights, upstream)
    truth = evaluate(plain, inputs, weights, upstream)
    for received, expected in zip(ours[:3], truth[:3], strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-10)
    compared = {id(v): 0 for v in mixed.variables}
    for mine, theirs in pairing.pairs(mixed, plain):
        received, expected = mine.variable, theirs.variable
        compared[id(received)] += int(np.prod(mine.shape))
        if received.trainable:
            received = ours[3][id(received)]
            expected = truth[3][id(expected)]
        np.testing.assert_allclose(
            pairing.part(received, mine),
            pairing.part(expected, theirs),
            rtol=0,
            atol=1e-10,
            err_msg=theirs.variable.path,
        )
    for variable in mixed.variables:
        assert compared[id(variable)] >= np.prod(variable.shape)
    outputs = [
        layer(inputs, weights, training=False) for layer in (mixed, plain)
    ]
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stride,shared", PLACES)
def test_a_mixture_of_all_candidates_equals_the_sum_of_plain_layers(
    stride, shared
):
    mixed, plain, shape = both(EITHER, stride, shared, size=(7, 5))
    draw = np.random.default_rng(1)
    inputs = tf.constant(draw.normal(size=(4, *shape[1:])))
    logits = draw.normal(size=(EDGES, len(EITHER)))
    weights = tf.nn.softmax(tf.constant(logits))
    np.testing.assert_allclose(
        mixed(inputs, weights, training=True),
        plain(inputs, weights, training=True),
        rtol=0,
        atol=1e-10,
    )


def test_an_unknown_candidate_is_refused_by_name():
    with pytest.raises(ValueError, match="sep_conv_9x9"):
        MixedBundle(("sep_conv_9x9",), 2).build((None, 8, 8, 4))
