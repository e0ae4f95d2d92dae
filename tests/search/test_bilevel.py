"""A problem whose gradients are known in closed form.

`L_train(w, a) = |w - A a|^2 / 2` and `L_search(w, a) = |w - b|^2 / 2 +
c . a`, so `grad_w L_train = w - A a`, the mixed derivative is `-A^T`, and
with `w' = w - rate (momentum m + w - A a + decay w)` the gradient of the
search loss is `c + rate A^T (w' - b)`.
"""

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.search import bilevel

DRAW = np.random.default_rng(0)
MIXING = DRAW.normal(size=(5, 3))
TARGET = DRAW.normal(size=5)
SLOPE = DRAW.normal(size=3)
WEIGHTS = DRAW.normal(size=5)
ARCHITECTURE = DRAW.normal(size=3)
VELOCITY = DRAW.normal(size=5)
RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def loss_fn(weights, architecture, batch, constants):
    # In two tensors, as a network's weights are several.
    joined = tf.concat(weights, 0)
    if batch == "train":
        rest = joined - tf.linalg.matvec(MIXING, architecture[0])
        return tf.reduce_sum(rest**2) / 2, joined
    rest = joined - TARGET
    slope = tf.reduce_sum(SLOPE * architecture[0])
    return tf.reduce_sum(rest**2) / 2 + slope, joined


def halves(vector):
    return [tf.constant(vector[:2]), tf.constant(vector[2:])]


def moved(momentum):
    return WEIGHTS - RATE * (
        momentum * VELOCITY + WEIGHTS - MIXING @ ARCHITECTURE + DECAY * WEIGHTS
    )


def second_order(implicit, momentum=MOMENTUM):
    return bilevel.second_order(
        bilevel.Gradients(loss_fn),
        halves(WEIGHTS),
        [tf.constant(ARCHITECTURE)],
        "train",
        "search",
        step=bilevel.VirtualStep(RATE, momentum, halves(VELOCITY), DECAY),
        implicit=implicit,
    )


@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
@pytest.mark.parametrize("implicit", bilevel.IMPLICIT)
def test_second_order_equals_the_closed_form(implicit, momentum):
    (gradient,), loss, _ = second_order(implicit, momentum)
    there = moved(momentum)
    expected = SLOPE + RATE * MIXING.T @ (there - TARGET)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)
    value = np.sum((there - TARGET) ** 2) / 2 + SLOPE @ ARCHITECTURE
    np.testing.assert_allclose(loss, value, rtol=1e-12)


def test_second_order_is_the_slope_of_the_loss_after_the_step():
    (gradient,), _, _ = second_order("exact")

    def after(architecture):
        step = WEIGHTS - MIXING @ architecture + DECAY * WEIGHTS
        there = WEIGHTS - RATE * (MOMENTUM * VELOCITY + step)
        return np.sum((there - TARGET) ** 2) / 2 + SLOPE @ architecture

    for i in range(3):
        shift = 1e-5 * np.eye(3)[i]
        slope = after(ARCHITECTURE + shift) - after(ARCHITECTURE - shift)
        np.testing.assert_allclose(gradient[i], slope / 2e-5, rtol=1e-8)


def test_first_order_leaves_the_step_out():
    (gradient,), loss, _ = bilevel.Gradients(loss_fn).architecture(
        halves(WEIGHTS), [tf.constant(ARCHITECTURE)], "search"
    )
    np.testing.assert_allclose(gradient, SLOPE, rtol=1e-12)
    value = np.sum((WEIGHTS - TARGET) ** 2) / 2 + SLOPE @ ARCHITECTURE
    np.testing.assert_allclose(loss, value, rtol=1e-12)
