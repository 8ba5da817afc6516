"""Time by phase."""

from __future__ import annotations

import time

import numpy as np
import pytest

from core.stopwatch import Stopwatch


def test_each_lap_adds_what_passed_since_the_one_before_and_what_was_before_the_start_counts_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = iter([100, 130, 150, 1000, 1007])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(moments))
    totals = np.zeros(3, np.int64)
    stopwatch = Stopwatch(totals)
    stopwatch.start()
    stopwatch.lap(2)
    stopwatch.lap(0)
    stopwatch.start()
    stopwatch.lap(2)
    assert totals.tolist() == [20, 0, 37]
