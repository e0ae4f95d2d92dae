"""Training augmentation of one large image, as for ImageNet.

The same seed gives the same image.

Source: the released code's ImageNet training, which is made of torchvision's
`RandomResizedCrop` and `ColorJitter`: https://github.com/pytorch/vision,
`torchvision/transforms/transforms.py`.
"""

import functools
import math

import tensorflow as tf

# Width by height of a window, from and to.
_RATIO = (3 / 4, 4 / 3)
_TRIES = 10
# Of red, green and blue: ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


def sample_window(size, *, seed, area):
    """Draws the part of an image that becomes a training image.

    A share of the area and a ratio of the sides, evenly on a logarithmic
    scale, are drawn until a window fits; after ten that do not, the largest
    one in the middle whose ratio is allowed is taken.

    Args:
        size: `int32` tensor of `(height, width)`.
        seed: Integer tensor of shape `(2,)`.
        area: Two floats, the smallest and the largest share of the image.

    Returns:
        An `int32` tensor of `(top, left, height, width)`.
    """
    shape_seed, corner_seed = tf.unstack(tf.random.split(seed, num=2))
    drawn = tf.random.stateless_uniform((2, _TRIES), shape_seed)
    pixels = tf.cast(tf.reduce_prod(size), tf.float32)
    areas = pixels * _between(area, drawn[0])
    ratios = tf.exp(_between([math.log(ratio) for ratio in _RATIO], drawn[1]))
    sides = tf.sqrt(tf.stack([areas / ratios, areas * ratios], 1))
    shapes = tf.cast(tf.round(sides), tf.int32)
    fits = tf.reduce_all((shapes > 0) & (shapes <= size), -1)
    found = tf.reduce_any(fits)
    first = tf.argmax(tf.cast(fits, tf.int32))
    shape = tf.where(found, shapes[first], _largest_shape(size))
    corners = tf.random.stateless_uniform((2,), corner_seed)
    room = tf.cast(size - shape + 1, tf.float32)
    corner = tf.cast(tf.floor(corners * room), tf.int32)
    corner = tf.where(found, corner, (size - shape) // 2)
    return tf.concat([corner, shape], 0)


def color_jitter(image, *, seed, strengths):
    """Changes brightness, contrast, saturation and hue in a random order.

    Args:
        image: `float32` tensor of shape `(height, width, channels)` with
            values from 0 to 255. Of a grey image the first two change.
        seed: Integer tensor of shape `(2,)`.
        strengths: Four floats, one each. A factor is drawn evenly from
            `1 - strength`, at least 0, to `1 + strength`; the hue is turned
            by up to `strength` of its circle either way. 0 changes nothing.

    Returns:
        A tensor of the shape of `image`, with values from 0 to 255.
    """
    steps = [
        (adjust, (max(centre - strength, least), centre + strength))
        for (adjust, centre, least), strength in zip(
            _ADJUSTMENTS, strengths, strict=True
        )
        if strength and (image.shape[-1] == 3 or adjust in _OF_GREY)
    ]
    if not steps:
        return image
    order_seed, factor_seed = tf.unstack(tf.random.split(seed, num=2))
    drawn = tf.random.stateless_uniform((len(steps),), factor_seed)
    order = tf.random.experimental.stateless_shuffle(
        tf.range(len(steps)), order_seed
    )
    for chosen in tf.unstack(order):
        image = tf.switch_case(
            chosen,
            [
                functools.partial(adjust, image, _between(bounds, drawn[i]))
                for i, (adjust, bounds) in enumerate(steps)
            ],
        )
    return image


def adjust_brightness(image, factor):
    """Scales every value by a factor; 0 gives black."""
    return _within(image * factor)


def adjust_contrast(image, factor):
    """Scales distances from the mean of the image in grey."""
    return _blend(image, tf.reduce_mean(_grey(image)), factor)


def adjust_saturation(image, factor):
    """Scales distances from the image in grey."""
    return _blend(image, _grey(image), factor)


def adjust_hue(image, turn):
    """Turns every hue by a share of the colour circle."""
    return tf.image.adjust_hue(image, turn)


# In torchvision's order: what is changed, from which value, to no less than.
_ADJUSTMENTS = (
    (adjust_brightness, 1.0, 0.0),
    (adjust_contrast, 1.0, 0.0),
    (adjust_saturation, 1.0, 0.0),
    (adjust_hue, 0.0, -0.5),
)
_OF_GREY = (adjust_brightness, adjust_contrast)


def _largest_shape(size):
    height, width = tf.unstack(size)
    least, most = _RATIO

    def rounded(side):
        return tf.cast(tf.round(side), tf.int32)

    return tf.stack(
        [
            tf.minimum(height, rounded(tf.cast(width, tf.float32) / least)),
            tf.minimum(width, rounded(tf.cast(height, tf.float32) * most)),
        ]
    )


def _grey(image):
    if image.shape[-1] == 1:
        return image
    return tf.linalg.matvec(image, tf.constant(_LUMA))[..., None]


def _blend(image, other, factor):
    return _within(factor * image + (1.0 - factor) * other)


def _within(image):
    return tf.clip_by_value(image, 0.0, 255.0)


def _between(bounds, share):
    first, last = bounds
    return first + share * (last - first)
