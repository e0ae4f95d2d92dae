"""Intervals against tables and simulation."""

import math
import statistics

import numpy as np
import pytest

from att_darts_tf import intervals


@pytest.mark.parametrize(
    ("count", "quantile"),
    # Source: table of the t-distribution, NIST/SEMATECH e-Handbook of
    # Statistical Methods, section 1.3.6.7.2.
    [(2, 12.706), (3, 4.303), (5, 2.776), (11, 2.228), (31, 2.042)],
)
def test_mean_has_the_quantiles_of_tables(count, quantile):
    values = [0.9 + 0.01 * i**2 for i in range(count)]
    expected = quantile * statistics.stdev(values) / math.sqrt(count)
    assert intervals.of_mean(values) == pytest.approx(expected, rel=3e-4)


def test_difference_of_equal_spreads_and_sizes_is_students():
    values, others = [0.1, 0.2, 0.4], [0.5, 0.6, 0.8]
    # Four degrees of freedom: the pooled test.
    deviation = statistics.stdev(values)
    expected = 2.776 * deviation * math.sqrt(2 / 3)
    received = intervals.of_difference(values, others)
    assert received == pytest.approx(expected, rel=3e-4)


def test_difference_to_a_mean_without_spread_is_that_of_the_other():
    values = [0.1, 0.2, 0.4]
    received = intervals.of_difference(values, [0.5, 0.5])
    assert received == pytest.approx(intervals.of_mean(values))
    assert intervals.of_difference([0.5, 0.5], [0.3, 0.3]) == 0


def test_difference_holds_the_true_one_as_often_as_promised():
    random = np.random.default_rng(0)
    draws, inside = 400, 0
    for _ in range(draws):
        values = random.normal(0.0, 1.0, 4)
        others = random.normal(1.0, 3.0, 6)
        apart = others.mean() - values.mean() - 1.0
        inside += abs(apart) <= intervals.of_difference(values, others)
    # Within three deviations of 95 %.
    assert abs(inside / draws - 0.95) < 3 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(
    ("right", "count", "expected"),
    [
        # Newcombe, 1998, table I, the score method without correction.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_share_has_the_interval_of_wilson(right, count, expected):
    received = intervals.of_share(right / count, count)
    assert received == pytest.approx(expected, abs=5e-5)
