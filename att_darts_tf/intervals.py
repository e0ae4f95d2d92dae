"""Confidence intervals of 95 percent."""

import math
import statistics
from collections.abc import Sequence

# The 97.5 % quantile of the normal distribution.
_NORMAL = 1.959963984540054


def of_share(share: float, count: int) -> tuple[float, float]:
    """Returns the interval of a share of independent images.

    Source: Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953. Unlike
    `share +- 2 s` it stays within [0, 1].

    Args:
        share: Float in [0, 1], that of `count` images.
        count: Positive integer.
    """
    spread = _NORMAL**2 / count
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def of_mean(values: Sequence[float]) -> float:
    """Returns half the width of the interval of a mean.

    It is `t * s / sqrt(n)` of n values with the sample deviation s, where t is
    the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom.

    Args:
        values: Two or more numbers, taken for independent and normal.
    """
    t = _student(len(values) - 1)
    return t * statistics.stdev(values) / math.sqrt(len(values))


def of_difference(
    values: Sequence[float], others: Sequence[float]
) -> float:
    """Returns half the width of the interval of a difference of means.

    Source: Welch, 1947, https://doi.org/10.1093/biomet/34.1-2.28. The spreads
    of both need not be alike.

    Args:
        values: Two or more numbers, taken for independent and normal.
        others: The same.
    """
    squares = [
        statistics.variance(each) / len(each) for each in (values, others)
    ]
    total = sum(squares)
    if not total:
        return 0.0
    freedom = total**2 / sum(
        square**2 / (len(each) - 1)
        for square, each in zip(squares, (values, others), strict=True)
    )
    return _student(freedom) * math.sqrt(total)


def _student(freedom: float) -> float:
    """Returns the 97.5 % quantile of Student's distribution."""
    # The pages of results load no TensorFlow before they need this.
    import tensorflow as tf

    low, high = 0.0, 1e3
    for _ in range(80):
        middle = (low + high) / 2
        # The probability of both tails beyond `middle`.
        tails = tf.math.betainc(
            *tf.constant(
                [freedom / 2, 0.5, freedom / (freedom + middle**2)], tf.float64
            )
        )
        low, high = (middle, high) if tails > 0.05 else (low, middle)
    return middle
