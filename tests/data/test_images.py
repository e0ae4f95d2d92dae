import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from att_darts_tf.data import images
from att_darts_tf.errors import UsageError
from tests.data import toy


def file_of(array, mode, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "mode, channels, expected",
    [
        ("L", 0, 1),
        ("LA", 0, 1),
        ("RGB", 0, 3),
        ("RGBA", 0, 3),
        ("P", 0, 3),
        ("RGB", 1, 1),
        ("RGBA", 1, 1),
        ("L", 3, 3),
        ("LA", 3, 3),
        ("RGBA", 3, 3),
    ],
)
def test_every_kind_of_png_has_the_channels_asked_for(mode, channels, expected):
    contents = file_of(toy.images(1, shape=(5, 7, 3))[0], mode)
    image = images.decode(contents, channels=channels)
    assert image.dtype == tf.uint8 and image.shape == (5, 7, expected)


def test_a_png_is_decoded_without_loss_as_pillow_decodes_it():
    array = toy.images(1, shape=(5, 7, 3))[0]
    for mode in ("RGB", "RGBA"):
        contents = file_of(array, mode)
        for channels in (0, 3):
            decoded = images.decode(contents, channels=channels)
            np.testing.assert_array_equal(decoded, array)


def test_a_jpeg_is_decoded_as_pillow_decodes_it():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    contents = file_of(np.stack([ramp, ramp.T, ramp[::-1]], -1), "RGB", "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(contents))).astype(int)
    received = images.decode(contents, channels=0).numpy().astype(int)
    # Decoders may round their colour conversion differently.
    assert np.abs(received - expected).max() <= 6


def test_sixteen_bits_become_eight():
    array = np.array([[0, 256, 65535]], np.uint16)[..., None]
    contents = tf.io.encode_png(array)
    received = images.decode(contents, channels=0).numpy()
    assert received.ravel().tolist() == [0, 1, 255]


def test_grey_becomes_colour_and_colour_becomes_grey():
    grey = toy.images(1, shape=(4, 5, 1))[0]
    colour = images.convert(tf.constant(grey), channels=3)
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=-1))
    back = images.convert(colour, channels=1).numpy()
    assert np.abs(back.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_no_channels_asked_for_leaves_an_image_as_it_is(channels):
    image = tf.constant(toy.images(1, shape=(4, 5, channels))[0])
    assert images.convert(image, channels=0) is image


def test_four_channels_are_neither_grey_nor_colour():
    with pytest.raises(UsageError, match="1 or 3 channels.*Received: 4"):
        images.convert(tf.zeros((2, 2, 4), tf.uint8), channels=3)


def test_shrinking_to_one_half_averages_the_neighbourhood():
    image = np.zeros((4, 8, 1), np.uint8)
    image[:, 4:] = 200
    received = images.resize(image, height=2, width=4).numpy()[..., 0]
    # The triangle filter of width 4 weighs columns 1 3 3 1 (of 8); at the
    # border the weights inside are scaled up: by hand, 0, 25, 175, 200.
    assert received.tolist() == [[0, 25, 175, 200]] * 2


def test_a_flat_image_stays_flat_in_any_size():
    image = np.full((5, 9, 3), 77, np.uint8)
    for height, width in ((3, 4), (20, 33), (5, 9)):
        received = images.resize(image, height=height, width=width)
        assert received.shape == (height, width, 3)
        assert received.dtype == tf.uint8
        assert set(received.numpy().ravel()) == {77}


def test_the_right_size_is_left_to_the_bit():
    image = tf.constant(toy.images(1)[0])
    assert images.resize(image, height=8, width=8) is image


def test_a_traced_file_reader_gives_the_same_bits():
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def traced(contents):
        image = images.decode(contents, channels=3)
        return images.resize(image, height=6, width=5)

    contents = file_of(toy.images(1, shape=(9, 11, 3))[0], "RGB", "JPEG")
    image = images.decode(contents, channels=3)
    expected = images.resize(image, height=6, width=5)
    np.testing.assert_array_equal(traced(contents), expected)
    assert traced.get_concrete_function().structured_outputs.shape == (6, 5, 3)
