"""Stopwatch: where a loop's time goes, by phase. Always on: a lap takes a fifth of a microsecond. One that is also a
timeline is in core/trace.py."""

from __future__ import annotations

import time

from core.types import IntArray


class Stopwatch:
    """Adds the time since its last lap to one of several totals."""

    def __init__(self, totals: IntArray) -> None:
        """`totals`: nanoseconds by phase, written in place, perhaps in shared memory."""
        self._totals = totals
        self._last = 0

    def start(self) -> None:
        """What went before belongs to no phase."""
        self._last = time.perf_counter_ns()

    def lap(self, phase: int) -> None:
        """The time since the last lap, or the start, was spent on this."""
        now = time.perf_counter_ns()
        self._totals[phase] += now - self._last
        self._last = now
