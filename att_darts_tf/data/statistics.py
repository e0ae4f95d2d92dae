"""The mean and standard deviation that images are normalised by."""

import fractions
import math
from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """Of each channel, on the scale where 255 is 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


# Of the full training splits, as the released code normalises by.
PUBLISHED = {
    "cifar10": Statistics(
        (0.49139968, 0.48215827, 0.44653124),
        (0.24703233, 0.24348505, 0.26158768),
    ),
    "cifar100": Statistics((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
# What those hold for: other sizes and grey images have other deviations.
PUBLISHED_SHAPE = (32, 32, 3)
# Of colour images as their files have them.
PUBLISHED_OF_FILES = {
    **PUBLISHED,
    "imagenet2012": Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def channel_sums(image: np.ndarray) -> np.ndarray:
    """Counts an image's pixels and sums them and their squares, exactly.

    Integers, so that the sums of many images are the same in any order.

    Returns:
        An `int64` array of shape `(3, channels)`; add those of all images.
    """
    values = image.reshape(-1, image.shape[-1]).astype(np.int64)
    counts = np.full(values.shape[1], values.shape[0])
    return np.stack([counts, values.sum(0), np.square(values).sum(0)])


def from_sums(sums: np.ndarray) -> Statistics:
    """Turns sums into the mean and the deviation of the population.

    A channel that never changes gets deviation 1: it is normalised to zero.
    """
    mean, std = [], []
    for count, total, squares in sums.T.tolist():
        average = fractions.Fraction(total, 255 * count)
        variance = fractions.Fraction(squares, 255**2 * count) - average**2
        mean.append(float(average))
        std.append(math.sqrt(variance) or 1.0)
    return Statistics(tuple(mean), tuple(std))
