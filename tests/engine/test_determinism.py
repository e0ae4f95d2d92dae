import itertools

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import determinism


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_fan_out_gives_the_tensor_to_each_reader(count):
    tensor = tf.constant([1.0, 2.0])
    copies = determinism.fan_out(tensor, count)
    assert len(copies) == count
    for copy in copies:
        np.testing.assert_array_equal(copy, tensor)


def test_gradients_of_readers_are_added_in_their_order():
    # One huge, its opposite, and one that drowns if it comes between them.
    shares = [1e8, -1e8, 1.0]
    sums = {
        order: sum(np.float32(order), np.float32(0))
        for order in itertools.permutations(shares)
    }
    assert set(sums.values()) == {0.0, 1.0}
    for order, expected in sums.items():
        tensor = tf.constant(1.0)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            copies = determinism.fan_out(tensor, 3)
            total = sum(c * share for c, share in zip(copies, order))
        assert tape.gradient(total, tensor) == expected


def test_second_derivatives_pass():
    tensor = tf.constant(2.0)
    with tf.GradientTape() as outer:
        outer.watch(tensor)
        with tf.GradientTape() as inner:
            inner.watch(tensor)
            first, second, third = determinism.fan_out(tensor, 3)
            product = first * second * third
        gradient = inner.gradient(product, tensor)
    assert gradient == 12.0
    assert outer.gradient(gradient, tensor) == 12.0
