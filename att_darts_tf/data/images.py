"""From a file, or an image of another size, to the array a network reads.

Everything here can be traced, so a served model reads a file by the very
operations that prepared its training images.
"""

import functools
import re

import tensorflow as tf

from att_darts_tf.errors import UsageError

# How a PNG file begins.
_PNG = b"\x89PNG\r\n\x1a\n"
# Of an image. A head of a few bytes may claim any size; this one takes 1 GB at
# the most while it is decoded and resized. ImageNet's are smaller.
MOST_PIXELS = 2**26
# Shapes whose shorter side is resized to some hundreds of pixels.
_MOST_ELONGATED = 128
# Of a file. PNG files of so many pixels are shorter.
MOST_BYTES = 2**28
# Of a JPEG file, and its passes over all pixels. An ordinary one has ten.
_MOST_JPEG_BYTES = 2**26
_MOST_SCANS = 100
_SCAN = (0xFF, 0xDA)
_NEITHER = "cannot be decoded as JPEG or PNG"


def decode(contents, *, channels):
    """Decodes a JPEG or PNG file. Transparency is dropped, 16 bits become 8.

    Args:
        contents: Scalar string tensor, the bytes of the file.
        channels: Integer. 1 for grey, 3 for colour, 0 for what the file has.

    Returns:
        A `uint8` tensor of shape `(height, width, channels)`.
    """
    return _decoder(channels)(contents)


@functools.cache
def _decoder(channels):
    """Returns one call instead of thirty where nothing is traced."""
    return tf.function(
        functools.partial(_decode, channels=channels),
        input_signature=[tf.TensorSpec((), tf.string)],
        autograph=False,
    )


def _decode(contents, *, channels):
    image = tf.io.decode_image(
        _checked(contents), channels=channels, expand_animations=False
    )
    image.set_shape((None, None, channels or None))
    if channels:
        return image
    # A second channel beside grey, or a fourth beside colour, is transparency.
    return image[..., : tf.where(tf.shape(image)[-1] < 3, 1, 3)]


def reason(error):
    """Says of a file, in a few words, why it was not decoded.

    Args:
        error: What `decode` raised.
    """
    found = re.search(r"assertion failed: \[([^\]]+)\]", error.message)
    return found[1] if found else "cannot be decoded"


def size_of(contents):
    """Reads height and width from the head of a JPEG or PNG file.

    Args:
        contents: Scalar string tensor, the bytes of the file.

    Returns:
        An `int32` tensor of shape `(2,)`.
    """

    def png():
        # Source: https://www.w3.org/TR/png/, section 11.2.1: after the
        # signature and the chunk's head come width and height.
        head = _where(
            tf.strings.length(contents) >= 24, contents, _NEITHER
        )
        is_png = (tf.strings.substr(head, 0, len(_PNG)) == _PNG) & (
            tf.strings.substr(head, 12, 4) == "IHDR"
        )
        size = tf.strings.substr(_where(is_png, head, _NEITHER), 16, 8)
        width_and_height = tf.io.decode_raw(size, tf.int32, little_endian=False)
        return tf.reverse(width_and_height, (0,))

    size = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.extract_jpeg_shape(contents)[:2],
        png,
    )
    return tf.ensure_shape(size, (2,))


def decode_window(contents, window, *, channels):
    """Decodes a part of a JPEG or PNG file.

    Of a JPEG file only what the window needs is decoded. Where its colour has
    half of the resolution, the decoder has no neighbours to smooth it by at
    the window's border: there colours may differ from those of the whole.

    Args:
        contents: Scalar string tensor, the bytes of the file.
        window: `int32` tensor of `(top, left, height, width)`.
        channels: Integer. 1 for grey, 3 for colour.

    Returns:
        A `uint8` tensor of shape `(height, width, channels)`.
    """

    def png():
        top, left, height, width = tf.unstack(window)
        image = decode(contents, channels=channels)
        return image[top : top + height, left : left + width]

    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_and_crop_jpeg(
            _checked(contents), window, channels=channels
        ),
        png,
    )


# One call where nothing is traced.
@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _checked(contents):
    """Returns the bytes of a file that takes no more than a bounded effort.

    Any other fails as in a decoder, with an `InvalidArgumentError`, but before
    memory is set aside for what its head claims.
    """
    length = tf.strings.length(contents)
    is_jpeg = tf.io.is_jpeg(contents)
    most = tf.where(is_jpeg, _MOST_JPEG_BYTES, MOST_BYTES)
    contents = _where(length <= most, contents, "has too many bytes")
    scans = tf.cond(is_jpeg, lambda: _num_scans(contents), lambda: 0)
    size = tf.cast(size_of(contents), tf.int64)
    shorter, longer = tf.reduce_min(size), tf.reduce_max(size)
    contents = _where(
        (shorter > 0) & (shorter * longer <= MOST_PIXELS),
        contents,
        f"has no pixels, or more than {MOST_PIXELS}",
    )
    contents = _where(
        longer <= _MOST_ELONGATED * shorter,
        contents,
        f"is over {_MOST_ELONGATED} times longer one way than the other",
    )
    return _where(
        scans <= _MOST_SCANS,
        contents,
        f"has more than {_MOST_SCANS} scans",
    )


def _where(condition, value, otherwise):
    """Returns a value, but fails with a text where a condition is false."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [otherwise])]):
        return tf.identity(value)


def _num_scans(contents):
    octets = tf.io.decode_raw(contents, tf.uint8)
    marker, name = _SCAN
    return tf.size(tf.where((octets[:-1] == marker) & (octets[1:] == name)))


def resize_and_crop(image, *, shorter_side, height, width):
    """Resizes an image, keeping its shape, and cuts out the middle.

    Source: torchvision's `Resize` and `CenterCrop`, by which networks for
    ImageNet are judged: https://github.com/pytorch/vision,
    `torchvision/transforms/functional.py`.

    Args:
        image: `uint8` tensor of shape `(height, width, channels)`.
        shorter_side: Integer. Pixels of the shorter side once resized.
        height: Integer. Rows of the result, at most `shorter_side`.
        width: Integer. Columns of the result, at most `shorter_side`.
    """
    size = tf.shape(image)[:2]
    resized = size * shorter_side // tf.reduce_min(size)
    image = _smoothed(image, resized)
    top, left = tf.unstack(
        tf.cast(tf.round((resized - (height, width)) / 2), tf.int32)
    )
    return tf.ensure_shape(
        image[top : top + height, left : left + width],
        (height, width, image.shape[-1]),
    )


def convert(images, *, channels):
    """Turns grey images into colour ones or the other way round.

    Args:
        images: `uint8` tensor of shape `(..., height, width, channels)`.
        channels: Integer. 1 for grey, 3 for colour, 0 for no change.
    """
    images = tf.convert_to_tensor(images)
    received = images.shape[-1]
    if channels in (0, received):
        return images
    if (received, channels) == (1, 3):
        return tf.image.grayscale_to_rgb(images)
    if (received, channels) == (3, 1):
        return tf.image.rgb_to_grayscale(images)
    raise UsageError(
        f"Expected images of 1 or 3 channels to turn into {channels}. "
        f"Received: {received} channels. Set config.data.channels=0"
    )


def resize(images, *, height, width):
    """Stretches images to a size, smoothing where they shrink.

    Args:
        images: `uint8` tensor of shape `(height, width, channels)`, also with
            a batch axis before it.
        height: Integer. Rows of the result.
        width: Integer. Columns of the result.
    """
    images = tf.convert_to_tensor(images)
    if tuple(images.shape[-3:-1]) == (height, width):
        return images
    return _smoothed(images, (height, width))


def _smoothed(images, size):
    # Of `float32` a large image would take four times the memory.
    resized = tf.image.resize(images, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
