"""From a file, or an image of another size, to the array a network reads.

Everything here can be traced, so a served model reads a file by the very
operations that prepared its training images.
"""

import tensorflow as tf

from att_darts_tf.errors import UsageError


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
    resized = tf.image.resize(
        tf.cast(images, tf.float32), (height, width), antialias=True
    )
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
