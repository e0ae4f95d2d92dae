import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.space import blocks


def first_and_second_gradient(function, *arguments):
    """Returns the outputs, a gradient, and the gradient of its square."""
    arguments = [tf.constant(argument) for argument in arguments]
    with tf.GradientTape() as outer:
        outer.watch(arguments)
        with tf.GradientTape() as inner:
            inner.watch(arguments)
            outputs = function(*arguments)
            total = tf.reduce_sum(outputs**3)
        gradients = inner.gradient(total, arguments)
        squares = sum(tf.reduce_sum(each**2) for each in gradients)
    return [outputs, *gradients, *outer.gradient(squares, arguments)]


def assert_alike(received, expected):
    for ours, theirs in zip(received, expected, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-5)


@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_depthwise_gradients_of_both_orders_equal_those_in_float64(
    size, stride, rate
):
    draw = np.random.default_rng(0)
    maps = draw.normal(size=(2, 9, 8, 4)).astype("float32")
    kernel = draw.normal(size=(size, size, 4, 1)).astype("float32")

    def convolve(maps, kernel):
        return blocks.symmetric_convolution(
            maps, kernel, stride=stride, rate=rate, depthwise=True
        )

    assert_alike(
        first_and_second_gradient(convolve, maps, kernel),
        first_and_second_gradient(
            convolve, maps.astype("float64"), kernel.astype("float64")
        ),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_has_the_gradients_of_tensorflows(stride):
    # Whole numbers, so that windows hold several of the largest.
    maps = np.random.default_rng(0).integers(0, 5, (2, 8, 8, 3))

    def plain(maps):
        sides = [[0, 0], [1, 1], [1, 1], [0, 0]]
        padded = tf.pad(maps, sides, constant_values=maps.dtype.min)
        return tf.nn.max_pool2d(padded, 3, stride, "VALID")

    for dtype in ("float32", "float64"):
        assert_alike(
            first_and_second_gradient(
                lambda maps: blocks.max_pool(maps, stride=stride),
                maps.astype(dtype),
            ),
            first_and_second_gradient(plain, maps.astype(dtype)),
        )


@pytest.mark.parametrize("axis", [-1, (1, 2)])
def test_largest_has_the_gradients_of_reduce_max(axis):
    maps = np.random.default_rng(0).integers(0, 5, (2, 4, 4, 3)).astype("f4")
    assert_alike(
        first_and_second_gradient(
            lambda maps: blocks.largest(maps, axis), maps
        ),
        first_and_second_gradient(
            lambda maps: tf.reduce_max(maps, axis, keepdims=True), maps
        ),
    )


@pytest.mark.parametrize("shape", [(1, 4, 6, 1), (1, 5, 3, 1)])
def test_interleaved_pixels_lie_on_even_and_odd_rows_and_columns(shape):
    maps = np.arange(1, np.prod(shape) + 1, dtype="float32").reshape(shape)
    even, odd = blocks.interleaved(tf.constant(maps))
    np.testing.assert_array_equal(even, maps[:, ::2, ::2])
    expected = np.zeros(even.shape, "float32")
    part = maps[:, 1::2, 1::2]
    expected[:, : part.shape[1], : part.shape[2]] = part
    np.testing.assert_array_equal(odd, expected)
    np.testing.assert_array_equal(
        blocks.even_pixels(tf.constant(maps)), maps[:, ::2, ::2]
    )
