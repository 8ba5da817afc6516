"""What many returns say together: the interquartile mean, and how sure it is.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". There the scores are
those of many runs; here they are the episodes of one policy, so the interval says how well that policy is known, and
nothing about what another seed would have learned.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_RESAMPLES = 2000


class Interval(NamedTuple):
    """Where the true value lies with a confidence of 95 %."""

    low: float
    high: float


def interquartile_mean(values: Array) -> float:
    """The mean of the middle half: of n values, floor(n / 4) at either end do not count."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())


def interval_of_interquartile_mean(values: Array) -> Interval:
    """The percentile bootstrap's; the same values, in the same order, have the same one."""
    random = np.random.default_rng(0)
    means = [interquartile_mean(random.choice(values, len(values))) for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    return Interval(low, high)
