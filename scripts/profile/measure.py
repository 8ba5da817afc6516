"""Measuring several things in turns: a machine that others use changes its speed within seconds, and what is compared
should share each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np


def times(works: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Microseconds that one call of each takes: medians over calls in turns, for so long in all.

    For short things of one process. The first tenth of the calls, with cold caches, does not count.
    """
    taken: dict[str, list[int]] = {name: [] for name in works}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not all(taken.values()):
        for name, work in works.items():
            before = time.perf_counter_ns()
            work()
            taken[name].append(time.perf_counter_ns() - before)
    return {name: float(np.median(each[len(each) // 10 :])) / 1000 for name, each in taken.items()}


def in_rounds(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side returns, (rounds,) of each. For what takes its own time to measure, or is in another process."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            figures[name].append(side())
    return figures


def ratio(ones: list[float], others: list[float]) -> float:
    """Median over the rounds of one / other: a slow second hits both sides of a round, and cancels."""
    return median(one / other for one, other in zip(ones, others, strict=True))


def rate(work: Callable[[], int], seconds: float, slice_s: float = 0.1) -> float:
    """How many a second, the median over slices of `seconds`; `work` returns how many it did."""
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not rates:
        begun, done = time.perf_counter(), 0
        while time.perf_counter() < begun + slice_s:
            done += work()
        rates.append(done / (time.perf_counter() - begun))
    return median(rates)
