"""What is made of a run that is looked at from outside, and how better settings are searched for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.shm import Segment
from scripts.command_line import UsageError
from scripts.profile import advise, pipeline
from scripts.profile.processes import Family, Process, family
from scripts.profile.trial import summarized

MIB = 2**20


def record(wall_s: float, steps: int, updates: int, **fields: Any) -> dict[str, Any]:
    shares = {"learner_waits": 0.0, "learner_update": 0.9, "workers_wait": 0.5, "workers_env": 0.4}
    totals = {"wall_s": wall_s, "agent_steps": steps, "env_steps": steps // 12, "updates": updates, "weights_lag": 3.0}
    return {**shares, **totals, "row_age": 100.0, **fields}


BEFORE = Family(10.0, {1: Process("learner", 3.0, MIB), 2: Process("worker-0", 1.0, MIB)}, {}, 50.0)
AFTER = Family(
    20.0,
    {1: Process("learner", 12.0, 4 * MIB), 2: Process("worker-0", 3.0, MIB), 3: Process("worker-1", 5.0, 2 * MIB)},
    {"ring": 3 * MIB},
    69.0,
)


def test_rates_are_of_the_whole_time_and_shares_are_means_over_it() -> None:
    window = [
        record(1.0, 1000, 10, learner_update=0.1),
        record(1.5, 1600, 20, learner_update=0.6, row_age=None),
        record(3.0, 5000, 90, learner_update=1.0, row_age=40.0, workers_exchange=0.3),
    ]
    seen = summarized(window, BEFORE, AFTER, start_s=4.0, stop_s=0.5)
    assert (seen.seconds, seen.agent_steps_per_s, seen.updates_per_s) == (2.0, 2000, 40)
    assert seen.learner["update"] == pytest.approx((0.5 * 0.6 + 1.5 * 1.0) / 2), "the first says when it begins"
    assert seen.row_age == 40.0, "a record that cannot tell it does not count"
    assert list(seen.workers) == ["wait", "env", "exchange"]


def test_each_process_is_told_by_what_it_used_meanwhile_and_the_rest_is_others() -> None:
    assert AFTER.cores(BEFORE) == {"learner": 0.9, "worker-0": 0.2, "worker-1": 0.5}
    assert AFTER.memory() == {"learner": 4 * MIB, "worker-0": MIB, "worker-1": 2 * MIB}
    assert AFTER.others(BEFORE) == pytest.approx(1.9 - 1.6)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_run_is_its_main_process_and_all_below_it(tmp_path: Path) -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    (tmp_path / "envproc").mkdir()
    (tmp_path / "envproc" / "worker.py").write_text(code)
    lines = {"learner": ["-c", code], "worker-3": ["-m", "envproc.worker", '{"name": "worker-3", "lane": 3}']}
    with Segment.create("ring", {"a": (np.int64, (MIB // 8,))}), contextlib.ExitStack() as opened:
        pids = {name: opened.enter_context(child(words, tmp_path)).pid for name, words in lines.items()}
        found = family(os.getpid())
    assert {name: found.by_pid[pid].name for name, pid in pids.items()} == {name: name for name in lines}
    assert found.by_pid[os.getpid()].name == "learner", "as is what helps it"
    assert found.by_pid[os.getpid()].cpu_s > 0 and found.memory()["worker-3"] > MIB
    assert found.shared["ring"] >= MIB


@contextlib.contextmanager
def child(words: list[str], place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that has begun, until the end."""
    process = subprocess.Popen([sys.executable, *words], cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seconds", "0"], "--seconds 0"),
        (["ddpg", "--worker", "2"], "--worker"),
        (["--json", "no/such/place.json"], "no/such"),
        (["--workers", "-1"], "--workers -1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(arguments: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        pipeline.main(arguments)


class Known:
    """Trials whose outcome is known."""

    def __init__(self, speed: Callable[[int, int], float], most: int = 100) -> None:
        self._speed, self._most, self.tried = speed, most, dict[tuple[int, int], float]()

    @property
    def are_over(self) -> bool:
        return len(self.tried) >= self._most

    def speed(self, settings: advise.Settings) -> float:
        key = settings["--workers"], settings["--copies"]
        return self.tried.setdefault(key, self._speed(*key))


START = {"--workers": 2, "--copies": 4}


@pytest.mark.parametrize(
    ("speed", "best"),
    [
        (lambda workers, copies: workers, 8),
        (lambda workers, copies: -abs(workers - 4) + 10, 4),
        (lambda workers, copies: 1 / workers, 1),
        (lambda workers, copies: 1 + 0.01 * workers, 2),
        (lambda workers, copies: 0 if workers > 2 else 5, 2),
    ],
    ids=["more is better", "a top in between", "fewer is better", "worth no change", "more cannot be"],
)
def test_the_search_goes_up_or_down_as_long_as_it_is_worth_it(speed: Callable[[int, int], float], best: int) -> None:
    found = advise.climb(Known(speed), START, "--workers", [1, 4, 8])
    assert found == {"--workers": best, "--copies": 4}, "and leaves the others alone"


def test_the_search_ends_when_enough_was_tried() -> None:
    known = Known(lambda workers, copies: workers, most=3)
    advise.climb(known, START, "--workers", [1, 4, 8, 16, 32])
    assert len(known.tried) == 3


def test_a_command_line_names_what_is_not_so_by_itself() -> None:
    assert advise.as_words({"--workers": 3, "--copies": 4}, START) == ["--workers", "3"]
