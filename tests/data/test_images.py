import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from att_darts_tf.data import images
from att_darts_tf.errors import UsageError
from tests import fuzz
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


FILES = {
    "smoothed colour": {"subsampling": 2},
    "full colour": {"subsampling": 0},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "PNG": {"kind": "PNG"},
    "grey PNG": {"kind": "PNG", "mode": "L"},
    "transparent PNG": {"kind": "PNG", "mode": "RGBA"},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [(375, 500), (33, 17), (1, 1)])
def test_the_size_is_read_from_the_head_of_a_file(name, size):
    contents = toy.encode(toy.photo(size=size), **FILES[name])
    received = images.size_of(contents)
    assert received.dtype == tf.int32
    assert tuple(received.numpy()) == size


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_a_window_is_that_of_the_whole_image(name, channels):
    contents = toy.encode(toy.photo(size=(97, 130)), **FILES[name])
    if (name, channels) == ("CMYK", 1):
        # TensorFlow's decoder has no way from one to the other.
        with pytest.raises(tf.errors.InvalidArgumentError):
            images.decode(contents, channels=channels)
        return
    whole = images.decode(contents, channels=channels).numpy().astype(int)
    generator = np.random.default_rng(0)
    for _ in range(25):
        height, width = generator.integers(1, (98, 131))
        top, left = generator.integers(0, (98 - height, 131 - width))
        window = tf.constant([top, left, height, width], tf.int32)
        received = images.decode_window(contents, window, channels=channels)
        assert received.shape == (height, width, channels)
        expected = whole[top : top + height, left : left + width]
        difference = np.abs(received.numpy() - expected)
        if name in ("smoothed colour", "progressive", "CMYK"):
            # Only the border lacks neighbours, of whose colour it takes 1/4.
            assert difference[1:-1, 1:-1].max(initial=0) == 0
            assert difference.max() <= 24
        else:
            assert difference.max() == 0


@pytest.mark.parametrize(
    "size", [(375, 500), (500, 375), (301, 64), (20, 33), (7, 5), (256, 256)]
)
def test_resizing_and_cropping_is_pillow_s(size):
    image = toy.photo(size=size, seed=4)
    received = images.resize_and_crop(
        tf.constant(image), shorter_side=64, height=56, width=49
    )
    assert received.dtype == tf.uint8 and received.shape == (56, 49, 3)
    # As torchvision does it, in its words.
    height, width = size
    short, long = sorted(size)
    long = int(64 * long / short)
    shape = (64, long) if width <= height else (long, 64)
    resized = Image.fromarray(image).resize(shape, Image.BILINEAR)
    left = int(round((resized.width - 49) / 2.0))
    top = int(round((resized.height - 56) / 2.0))
    cropped = resized.crop((left, top, left + 49, top + 56))
    difference = received.numpy().astype(int) - np.asarray(cropped)
    # Pillow rounds between its two passes.
    assert np.abs(difference).max() <= 1


def refused(contents, reason):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        images.decode(contents, channels=0)
    assert reason in images.reason(caught.value)


def png_of(width, height, *, first=b"", rows=b""):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            *(fuzz.PNG, first, fuzz.chunk(b"IHDR", head)),
            fuzz.chunk(b"IDAT", zlib.compress(rows)),
            fuzz.chunk(b"IEND", b""),
        )
    )


def jpeg_of(width, height):
    contents = toy.encode(toy.photo(size=(16, 16)))
    at = contents.index(b"\xff\xc0") + 5
    size = struct.pack(">HH", height, width)
    return contents[:at] + size + contents[at + 4 :]


@pytest.mark.parametrize("make", [png_of, jpeg_of])
@pytest.mark.parametrize("size", [(8193, 8192), (20_000, 20_000)])
def test_a_head_of_too_many_pixels_is_refused(make, size):
    refused(make(*size), f"more than {2**26}")


@pytest.mark.parametrize("size", [(10**5, 10**5), (2**31, 2**31), (0, 4)])
def test_a_size_that_no_decoder_takes_is_refused(size):
    refused(png_of(*size), f"more than {2**26}")


@pytest.mark.parametrize("make", [png_of, jpeg_of])
@pytest.mark.parametrize("size", [(60_000, 1), (3, 385)])
def test_an_image_that_would_be_enormous_once_resized_is_refused(make, size):
    refused(make(*size), "over 128 times longer")


def test_the_longest_image_is_read():
    contents = toy.encode(toy.photo(size=(3, 384)))
    assert images.decode(contents, channels=3).shape == (3, 384, 3)


def test_a_chunk_before_the_head_says_no_size():
    small = fuzz.chunk(b"abCd", struct.pack(">II", 4, 4))
    contents = png_of(20_000, 20_000, first=small)
    refused(contents, "cannot be decoded as JPEG or PNG")


def test_a_file_of_many_scans_is_refused():
    contents = toy.encode(toy.photo(size=(16, 16)), progressive=True)
    *_, last = contents[:-2].split(b"\xff\xda")
    assert images.decode(contents, channels=3).shape == (16, 16, 3)
    scans = (b"\xff\xda" + last) * 100
    refused(contents[:-2] + scans + contents[-2:], "more than 100 scans")


@pytest.mark.parametrize("start", [fuzz.PNG, b"\xff\xd8\xff"])
def test_a_file_of_too_many_bytes_is_refused(start, monkeypatch):
    most = 2**26 if start[0] == 0xFF else images.MOST_BYTES
    refused(start + bytes(most), "too many bytes")


def test_a_window_and_its_size_are_of_no_other_file():
    for contents in (b"", b"\xff\xd8\xff", fuzz.PNG, b"GIF89a" + bytes(99)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            images.size_of(tf.constant(contents))
    for contents in (png_of(20_000, 20_000), jpeg_of(20_000, 20_000)):
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            images.decode_window(contents, (0, 0, 1, 1), channels=3)
        assert "more than" in images.reason(caught.value)


def test_only_jpeg_and_png_files_are_readable():
    image = toy.photo(size=(4, 5))
    for kind in ("JPEG", "PNG"):
        assert images.decode(toy.encode(image, kind), channels=0).shape[0] == 4
    for kind in ("GIF", "BMP", "TIFF", "WEBP"):
        refused(toy.encode(image, kind), "cannot be decoded")
    refused(b"", "cannot be decoded")
