"""ReplayRatio: what learning and collecting owe each other.

After the first `warmup` rows, a row shall be sampled `ratio` times on average. Both sides wait: the learner while
it has sampled more than was collected for, the workers while they are more than `lead` rows ahead of the learner.
(A ratio that stops only the learner lets free-running workers eat the machine; one that stops only the workers lets
the learner train on nothing new. Reverb's rate limiter works like this.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.ring import FOREVER
from core.types import IntArray


@dataclass(frozen=True)
class ReplayRatio:
    """All counts are totals since the run began: rows over all lanes, updates of the learner."""

    ratio: float
    """samples per row; 0: the learner never updates and the workers never wait"""
    batch_size: int
    warmup: int
    """rows collected before the first update"""
    lead: int
    """rows that the workers may be ahead"""

    def __post_init__(self) -> None:
        if not (self.ratio >= 0 and np.isfinite(self.ratio)):
            raise ValueError(f"--replay-ratio {self.ratio}; it must be a number >= 0")
        if 0 < self.ratio * self.lead < self.batch_size:
            # else there are moments when neither side may move
            raise ValueError(f"a lead of {self.lead} rows at ratio {self.ratio} is less than one batch")

    def due(self, rows: int, updates: int) -> bool:
        """Whether the learner may do one more update."""
        return self.ratio > 0 and self.batch_size * (updates + 1) <= self.ratio * (rows - self.warmup)

    def limit(self, updates: int) -> int:
        """How many rows the workers may have collected by now."""
        if self.ratio == 0:
            return FOREVER
        return self.warmup + self.lead + int(self.batch_size * updates / self.ratio)

    def held(self, rows: int, updates: int) -> float:
        """The ratio so far."""
        return self.batch_size * updates / max(rows - self.warmup, 1)


def share(limit: int, published: IntArray) -> IntArray:
    """(lanes,) how far each lane may go so that all together stay below `limit` rows.

    What is left is split evenly and split again at each call, so that a slow lane's share does not stay unused.
    """
    left = max(limit - int(published.sum()), 0)
    result: IntArray = published + -(-left // len(published))
    return result
