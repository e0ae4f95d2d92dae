"""Training augmentation of whole batches; the same seed gives the same batch.

Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, appendix A, whose
released code pads with zeros before it normalises.
"""

import numpy as np
import tensorflow as tf


def augment(images, *, seed, mean, std, padding, flip, cutout, rows=None):
    """Turns stored images into training inputs.

    Args:
        images: `uint8` tensor of shape `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`.
        mean: As in `normalise`.
        std: As in `normalise`.
        padding: As in `random_crop`.
        flip: Boolean. Whether to mirror half of the images.
        cutout: As in `random_cutout`.
        rows: As in `draws`.

    Returns:
        A `float32` tensor of the shape of `images`.
    """
    crop_seed, flip_seed, cutout_seed = tf.unstack(tf.random.split(seed, num=3))
    images = random_crop(images, seed=crop_seed, padding=padding, rows=rows)
    if flip:
        images = random_flip(images, seed=flip_seed, rows=rows)
    images = normalise(images, mean=mean, std=std)
    return random_cutout(images, seed=cutout_seed, length=cutout, rows=rows)


def draws(images, shape, *, seed, rows, **options):
    """Draws uniform numbers for each image.

    Those of a part of a batch are the rows of those of the whole batch, so
    that nothing depends on how a batch is divided.

    Args:
        images: Tensor whose first axis is the batch.
        shape: Tuple of integers. Of the numbers of one image.
        seed: Integer tensor of shape `(2,)`.
        rows: Three integers, where the images begin and end in the batch that
            they are a part of, and its size; `None` for a whole batch.
        **options: Those of `tf.random.stateless_uniform`.

    Returns:
        A tensor of shape `(batch, *shape)`.
    """
    first, last, whole = rows or whole_batch(images)
    drawn = tf.random.stateless_uniform((whole, *shape), seed, **options)
    return drawn[first:last]


def whole_batch(images):
    """Returns the `rows` of images that are a batch of their own."""
    size = tf.shape(images)[0]
    return 0, size, size


def random_crop(images, *, seed, padding, rows=None):
    """Shifts each image by up to `padding` pixels; zeros enter at the border.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`, of which
            only the batch may be unknown.
        seed: Integer tensor of shape `(2,)`.
        padding: Integer. Zeros added on each side before the original size is
            cut out; 0 changes nothing.
        rows: As in `draws`.
    """
    if not padding:
        return images
    _, height, width, _ = images.shape
    sides = (padding, padding)
    padded = tf.pad(images, ((0, 0), sides, sides, (0, 0)))
    corners = draws(
        images,
        (2,),
        seed=seed,
        rows=rows,
        minval=0,
        maxval=2 * padding + 1,
        dtype=tf.int32,
    )
    rows = corners[:, :1] + tf.range(height)
    columns = corners[:, 1:] + tf.range(width)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def random_flip(images, *, seed, rows=None):
    """Mirrors each image left to right with probability one half.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`.
        rows: As in `draws`.
    """
    mirrored = draws(images, (1, 1, 1), seed=seed, rows=rows)
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


def random_cutout(images, *, seed, length, rows=None):
    """Erases a square around a uniformly drawn pixel of each image.

    Source: DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552, section
    3.2. The square is clipped where it leaves the image.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`, of which
            only the batch may be unknown. Zero is the erased value.
        seed: Integer tensor of shape `(2,)`.
        length: Integer. Side of the square in pixels, rounded down to an even
            number; 0 changes nothing.
        rows: As in `draws`.
    """
    if not length:
        return images
    outside = []
    for size, axis_seed in zip(
        images.shape[1:3], tf.unstack(tf.random.split(seed, num=2))
    ):
        centers = draws(
            images,
            (1,),
            seed=axis_seed,
            rows=rows,
            minval=0,
            maxval=size,
            dtype=tf.int32,
        )
        # Position p is erased where center - half <= p < center + half.
        offsets = tf.range(size) - centers
        half = length // 2
        outside.append((offsets < -half) | (offsets >= half))
    rows, columns = outside
    kept = rows[:, :, None, None] | columns[:, None, :, None]
    return tf.where(kept, images, tf.zeros((), images.dtype))
