"""From a file, or an image of another size, to the array a network reads.

Everything here can be traced, so a served model reads a file by the very
operations that prepared its training images.
"""

import tensorflow as tf

from att_darts_tf.errors import UsageError

# How the files begin that everything here can read.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def decode(contents, *, channels):
    """Decodes a JPEG or PNG file. Transparency is dropped, 16 bits become 8.

    Args:
        contents: Scalar string tensor, the bytes of the file.
        channels: Integer. 1 for grey, 3 for colour, 0 for what the file has.

    Returns:
        A `uint8` tensor of shape `(height, width, channels)`.
    """
    image = tf.io.decode_image(
        contents, channels=channels, expand_animations=False
    )
    image.set_shape((None, None, channels or None))
    if channels:
        return image
    # A second channel beside grey, or a fourth beside colour, is transparency.
    return image[..., : tf.where(tf.shape(image)[-1] < 3, 1, 3)]


def is_readable(contents):
    """Tells whether bytes begin as a JPEG or PNG file does.

    Args:
        contents: Bytes.
    """
    return contents.startswith(_SIGNATURES)


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
        size = tf.strings.substr(contents, 16, 8)
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
        lambda: tf.io.decode_and_crop_jpeg(contents, window, channels=channels),
        png,
    )


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
    resized = tf.image.resize(
        tf.cast(images, tf.float32), size, antialias=True
    )
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
