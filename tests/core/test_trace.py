"""Tracks of events, and the picture that is made of them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import trace as tracing
from core.trace import Trace, Traced, Track

TRACKS = {"learner": {"sample": 0, "update": 1}, "worker-0": {"act": 37, "env": 38}, "worker-1": {"act": 37}}
MOST = 8


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EVENTS", MOST)


def read(trace: Trace, directory: Path) -> tuple[list[dict[str, Any]], str]:
    """The events, and what is said about them."""
    told = trace.write(directory / "out.json")
    events: list[dict[str, Any]] = json.loads((directory / "out.json").read_text())["traceEvents"]
    return events, told


def test_a_stopwatch_that_is_traced_counts_the_same_and_writes_down_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([1000, 1300, 1500, 9000, 9070])
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(moments))
    totals = np.zeros(2, np.int64)
    with Trace(TRACKS, first=2) as trace:
        stopwatch = Traced(totals, trace.track("learner"))
        stopwatch.start()
        stopwatch.lap(1)
        stopwatch.lap(0)
        stopwatch.start()
        stopwatch.lap(1)
        events, _ = read(trace, tmp_path)
    assert totals.tolist() == [200, 370]
    done = [(each["name"], each["ts"], each["dur"]) for each in events if each["ph"] == "X"]
    assert done == [("update", 0.0, 0.3), ("sample", 0.3, 0.2), ("update", 8.0, 0.07)], "microseconds"


def test_each_process_has_a_track_with_its_name_and_who_did_nothing_has_none(tmp_path: Path) -> None:
    with Trace(TRACKS, first=2) as trace:
        trace.track("learner").add(0, 10_000, 20_000)
        for life in range(2):  # whoever comes next goes on behind the last one
            with closing(Track.attach(trace.address("worker-0"))) as track:
                track.add(38, 5_000 + life, 6_000 + life)
        events, told = read(trace, tmp_path)
    names = {each["pid"]: each["args"]["name"] for each in events if each["name"] == "process_name"}
    done = [(names[each["pid"]], each["name"], each["ts"]) for each in events if each["ph"] == "X"]
    assert done == [("learner", "sample", 5.0), ("worker-0", "env", 0.0), ("worker-0", "env", 0.001)]
    assert "newest" not in told


@pytest.mark.parametrize("count", [MOST, MOST + 1, 2 * MOST, 2 * MOST + 3])
def test_of_too_many_events_the_newest_stay_and_that_is_said(count: int, tmp_path: Path) -> None:
    with Trace(TRACKS, first=2) as trace:
        track = trace.track("learner")
        for number in range(count):
            track.add(0, 1000 * number, 1000 * number + 500)
        events, told = read(trace, tmp_path)
    begins = [each["ts"] for each in events if each["ph"] == "X"]
    assert begins == list(range(min(count, MOST))), "counted from the first that is there"
    labels = [each["args"]["labels"] for each in events if each["name"] == "process_labels"]
    assert labels == ([f"{count - MOST} older events dropped"] if count > MOST else [])
    assert ("the newest 8 events of each of learner" in told) == (count > MOST)


def test_a_worker_that_is_added_later_gets_a_track(tmp_path: Path) -> None:
    with Trace(TRACKS, first=2) as trace:
        with closing(Track.attach(trace.address("worker-1"))) as track:
            track.add(37, 1, 2)
        assert [each["name"] for each in read(trace, tmp_path)[0] if each["ph"] == "X"] == ["act"]
