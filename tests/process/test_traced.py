"""A traced run with Unity players: its picture holds all processes on one axis, and agrees with the counters.

A real run, for that is what the picture is of: evaluations, checkpoints and players take part.
"""

from __future__ import annotations

import bisect
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.learner import Phase
from core.ring import LINK_PHASES, WORKER_PHASES
from tests.process.runs import Run, Start

pytestmark = pytest.mark.thorough

KNOWN = {
    "learner": {phase.name.lower() for phase in Phase},
    "evaluator": {"evaluation"},
    "worker-0": {*WORKER_PHASES, *LINK_PHASES},
    "worker-1": {*WORKER_PHASES, *LINK_PHASES},
}
ROUNDED_US = 0.0015
"""begin and length of an event, to nanoseconds"""


class Event(NamedTuple):
    begin: float
    end: float
    name: str


class Traced(NamedTuple):
    run: Run
    tracks: dict[str, list[Event]]
    """microseconds; as they begin, what holds others before them"""

    def seconds(self, track: str, name: str) -> float:
        return sum(each.end - each.begin for each in self.tracks[track] if each.name == name) / 1e6


@pytest.fixture(scope="module")
def traced(start_once: Start, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    file = tmp_path_factory.mktemp("trace") / "out.json"
    player = ("--env", "unity:unity/players/3DBall", "--workers", 2, "--steps", 4000)
    small = ("--algo.hidden", 16, "--algo.batch-size", 32, "--algo.replay-ratio", 4)
    often = ("--eval-every", 1500, "--eval-episodes", 24, "--checkpoint-every", 1500)
    run = start_once(*player, *small, *often, "--trace", file)
    assert run.wait(60) == 0, run.stderr
    return Traced(run, read(file))


def read(file: Path) -> dict[str, list[Event]]:
    events: list[dict[str, Any]] = json.loads(file.read_text())["traceEvents"]
    names = {each["pid"]: each["args"]["name"] for each in events if each["name"] == "process_name"}
    tracks: dict[str, list[Event]] = {name: [] for name in names.values()}
    for each in events:
        if each["ph"] == "X":
            tracks[names[each["pid"]]].append(Event(each["ts"], each["ts"] + each["dur"], each["name"]))
    return {name: sorted(track, key=lambda each: (each.begin, -each.end)) for name, track in tracks.items()}


def test_each_process_did_what_it_is_known_to_do(traced: Traced) -> None:
    found = {name: {each.name for each in track} for name, track in traced.tracks.items()}
    assert found == KNOWN
    assert ", for ui.perfetto.dev\nrun: " in traced.run.stdout


def test_on_a_track_nothing_overlaps_and_the_link_lies_within_the_step(traced: Traced) -> None:
    for track in traced.tracks.values():
        outer = [each for each in track if each.name not in LINK_PHASES]
        parts = [each for each in track if each.name in LINK_PHASES]
        for events in (outer, parts):
            assert all(one.end <= other.begin + ROUNDED_US for one, other in pairwise(events))
        steps = [each for each in outer if each.name == "env"]
        inside = sum(any(_holds(step, part) for step in _near(steps, part)) for part in parts)
        assert inside == len(parts)


def _near(steps: list[Event], part: Event) -> list[Event]:
    """The last ones that begin before it ends."""
    return steps[: bisect.bisect(steps, part.end, key=lambda each: each.begin)][-1:]


def _holds(step: Event, part: Event) -> bool:
    return step.begin <= part.begin + ROUNDED_US and part.end <= step.end + ROUNDED_US


def test_all_processes_share_one_axis(traced: Traced) -> None:
    tracks = traced.tracks
    first_rows = min(each.end for each in tracks["worker-0"] + tracks["worker-1"] if each.name == "record")
    first_update = next(each.begin for each in tracks["learner"] if each.name == "update")
    assert first_rows < first_update, "nothing can be learned before there are rows"
    evaluation = tracks["evaluator"][0]
    assert first_update < evaluation.begin, "the first evaluation is of the policy after some updates"
    last_rows = max(each.begin for each in tracks["worker-0"] + tracks["worker-1"] if each.name == "record")
    assert first_update < last_rows, "workers and learner go on at once"


def test_its_times_add_up_to_what_the_progress_records_say(traced: Traced) -> None:
    records = traced.run.records("progress")
    spans = [0.5, *(other["wall_s"] - one["wall_s"] for one, other in pairwise(records))]

    def told(name: str) -> float:
        return float(sum(span * record[name] for span, record in zip(spans, records, strict=True)))

    assert traced.seconds("learner", "update") == pytest.approx(told("learner_update"), rel=0.1, abs=0.1)
    for phase in ("env", "exchange", "decode"):
        mean = (traced.seconds("worker-0", phase) + traced.seconds("worker-1", phase)) / 2
        assert mean == pytest.approx(told(f"workers_{phase}"), rel=0.1, abs=0.1)
    env, parts = told("workers_env"), told("workers_exchange") + told("workers_decode")
    assert 0.8 * env < parts <= 1.01 * env, "a step is exchange and decoding, and little else"
