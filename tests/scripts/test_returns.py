"""The statistics of returns, against the same written slowly and otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.returns import interquartile_mean, interval_of_interquartile_mean


def slow_interquartile_mean(values: list[float]) -> float:
    left = list(values)
    for _ in range(len(values) // 4):
        left.remove(min(left))
        left.remove(max(left))
    return sum(left) / len(left)


def slow_percentile(values: list[float], percent: float) -> float:
    """Between the two nearest in order, in proportion."""
    ordered, place = sorted(values), percent / 100 * (len(values) - 1)
    below = int(place)
    return ordered[below] + (place - below) * (ordered[min(below + 1, len(values) - 1)] - ordered[below])


@pytest.mark.parametrize(
    ("values", "expected"), [([7.0], 7.0), ([1, 2, 6], 3.0), ([9, 1, 2, 100], 5.5), ([8, 7, 6, 5, 4, 3, 2, 1], 4.5)]
)
def test_the_lowest_and_the_highest_quarter_do_not_count(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values, np.float64)) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_interquartile_mean_is_that_of_the_slow_reference(values: list[float]) -> None:
    assert interquartile_mean(np.array(values)) == pytest.approx(slow_interquartile_mean(values), abs=1e-6)


def test_the_interval_is_that_of_2000_resamples_drawn_one_by_one() -> None:
    values = np.random.default_rng(5).normal(10, 3, 23)
    random = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        drawn = [float(values[place]) for place in random.integers(0, 23, 23)]
        means.append(slow_interquartile_mean(drawn))
    expected = [slow_percentile(means, percent) for percent in (2.5, 97.5)]
    assert interval_of_interquartile_mean(values) == pytest.approx(expected)
    assert interval_of_interquartile_mean(values) == interval_of_interquartile_mean(values)


def test_the_interval_holds_the_true_value_as_often_as_it_says() -> None:
    """Of symmetric returns the interquartile mean is the middle. Of 24 intervals, 23 on average."""
    random = np.random.default_rng(1)
    intervals = [interval_of_interquartile_mean(random.normal(5, 2, 40)) for _ in range(24)]
    assert 19 <= sum(low <= 5 <= high for low, high in intervals) < 24
