import numpy as np
import pytest

from att_darts_tf.data import statistics
from tests.data import toy


def sums_of(images):
    return sum(statistics.channel_sums(image) for image in images)


def test_two_pixels_have_the_mean_and_deviation_found_by_hand():
    image = np.array([[[0, 51], [255, 51]]], np.uint8)
    received = statistics.from_sums(statistics.channel_sums(image))
    assert received.mean == (0.5, 0.2)
    # The second channel never changes: it must not be divided by zero.
    assert received.std == (0.5, 1.0)


@pytest.mark.parametrize("shape", [(8, 8, 3), (28, 28, 1), (5, 7, 4)])
def test_the_statistics_are_those_of_numpy(shape):
    images = toy.images(20, shape=shape)
    received = statistics.from_sums(sums_of(images))
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(
        received.mean, scaled.mean((0, 1, 2)), rtol=1e-12
    )
    np.testing.assert_allclose(received.std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_the_order_of_the_images_does_not_matter_to_the_last_bit():
    images = toy.images(50)
    forwards = statistics.from_sums(sums_of(images))
    assert forwards == statistics.from_sums(sums_of(images[::-1]))


def test_sums_of_a_very_large_data_set_do_not_overflow():
    image = np.full((1000, 1000, 1), 255, np.uint8)
    millions = statistics.channel_sums(image) * 10_000_000
    assert statistics.from_sums(millions) == ((1.0,), (1.0,))
