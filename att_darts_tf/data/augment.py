"""Training augmentation of whole batches; the same seed gives the same batch.

Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, appendix A, whose
released code pads with zeros before it normalises.
"""

import numpy as np
import tensorflow as tf


def augment(images, *, seed, mean, std, padding, flip, cutout):
    """Turns stored images into training inputs.

    Args:
        images: `uint8` tensor of shape `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`.
        mean: As in `normalise`.
        std: As in `normalise`.
        padding: As in `random_crop`.
        flip: Boolean. Whether to mirror half of the images.
        cutout: As in `random_cutout`.

    Returns:
        A `float32` tensor of the shape of `images`.
    """
    crop_seed, flip_seed, cutout_seed = tf.unstack(tf.random.split(seed, num=3))
    images = random_crop(images, seed=crop_seed, padding=padding)
    if flip:
        images = random_flip(images, seed=flip_seed)
    images = normalise(images, mean=mean, std=std)
    return random_cutout(images, seed=cutout_seed, length=cutout)


def random_crop(images, *, seed, padding):
    """Shifts each image by up to `padding` pixels; zeros enter at the border.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`, of which
            only the batch may be unknown.
        seed: Integer tensor of shape `(2,)`.
        padding: Integer. Zeros added on each side before the original size is
            cut out; 0 changes nothing.
    """
    if not padding:
        return images
    _, height, width, _ = images.shape
    sides = (padding, padding)
    padded = tf.pad(images, ((0, 0), sides, sides, (0, 0)))
    corners = tf.random.stateless_uniform(
        (tf.shape(images)[0], 2),
        seed,
        minval=0,
        maxval=2 * padding + 1,
        dtype=tf.int32,
    )
    rows = corners[:, :1] + tf.range(height)
    columns = corners[:, 1:] + tf.range(width)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def random_flip(images, *, seed):
    """Mirrors each image left to right with probability one half.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`.
    """
    mirrored = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed)
    return tf.where(mirrored < 0.5, tf.reverse(images, (2,)), images)


def normalise(images, *, mean, std):
    """Centres and scales each channel.

    Args:
        images: Tensor of shape `(..., channels)` with values from 0 to 255.
        mean: Sequence of one float a channel, on the scale where 255 is 1.
        std: Sequence of one float a channel, on that scale.

    Returns:
        A `float32` tensor of the shape of `images`.
    """
    # As one product and one sum: the graph optimiser turns divisions into
    # products, and a traced call would differ from an eager one.
    std = np.asarray(std, np.float64)
    scale = tf.constant(1.0 / (255.0 * std), tf.float32)
    shift = tf.constant(np.asarray(mean) / std, tf.float32)
    return tf.cast(images, tf.float32) * scale - shift


def random_cutout(images, *, seed, length):
    """Erases a square around a uniformly drawn pixel of each image.

    Source: DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552, section
    3.2. The square is clipped where it leaves the image.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`, of which
            only the batch may be unknown. Zero is the erased value.
        seed: Integer tensor of shape `(2,)`.
        length: Integer. Side of the square in pixels, rounded down to an even
            number; 0 changes nothing.
    """
    if not length:
        return images
    batch = tf.shape(images)[0]
    outside = []
    for size, axis_seed in zip(
        images.shape[1:3], tf.unstack(tf.random.split(seed, num=2))
    ):
        centers = tf.random.stateless_uniform(
            (batch, 1), axis_seed, minval=0, maxval=size, dtype=tf.int32
        )
        # Position p is erased where center - half <= p < center + half.
        offsets = tf.range(size) - centers
        half = length // 2
        outside.append((offsets < -half) | (offsets >= half))
    rows, columns = outside
    kept = rows[:, :, None, None] | columns[:, None, :, None]
    return tf.where(kept, images, tf.zeros((), images.dtype))
