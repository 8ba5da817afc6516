"""Other libraries under the same faults, a line beside ours, where they are installed. Their failures fail no test.

What hangs is waited for so long and no longer, and whatever a library leaves behind is killed here, by its pid.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.runs import ROOT, TOYS, Start, marked, wait_until
from tests.stress.figures import tell
from tests.stress.test_torn_rows import kill_writers, lap_and_sample

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE_S = 10.0
"""with what hangs"""
STEPPING_S = 1.0
"""before it is hurt"""
SB3 = ROOT / ".venv-sb3/bin/python"
LIBRARIES = {"gymnasium": (Path(sys.executable), "Gymnasium's AsyncVectorEnv"), "sb3": (SB3, "SB3's SubprocVecEnv")}
KILLS = 20

needs_cpprb = pytest.mark.skipif(importlib.util.find_spec("cpprb") is None, reason="cpprb is not installed")


class Other:
    """A process that runs tests/stress/others.py, and what it says."""

    def __init__(self, python: Path, *words: object) -> None:
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [str(python), "tests/stress/others.py", *map(str, words)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"SHARL_TEST_OTHER": self._mark},
            start_new_session=True,
        )
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(json.loads(line))

    def hear(self, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """What it says next; nothing, if that does not come in time."""
        with contextlib.suppress(queue.Empty):
            return self._said.get(timeout=timeout_s)
        return {}

    def processes(self) -> list[int]:
        return list(marked(f"SHARL_TEST_OTHER={self._mark}"))

    def end(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def other(python: Path, *words: object) -> Iterator[Other]:
    started = Other(python, *words)
    try:
        yield started
    finally:
        started.end()


def stepping(library: str, *words: str) -> contextlib.AbstractContextManager[Other]:
    python, _ = LIBRARIES[library]
    if not python.exists():
        pytest.skip(f"{library} is not installed")
    return other(python, library, *words)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_worker_of_another_library_is_killed(library: str) -> None:
    with stepping(library) as its:
        workers = its.hear(60)["workers"]
        time.sleep(STEPPING_S)
        began = time.monotonic()
        os.kill(workers[1], signal.SIGKILL)
        step = its.hear().get("step", "hangs")
        close = its.hear().get("close", "hangs")
        seconds = round(time.monotonic() - began, 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            its.process.wait(PATIENCE_S / 10)
        tell(
            f"B3 a worker killed, {LIBRARIES[library][1]}", began, faults=1, violations=int(step != "goes on"),
            figure=None, unit="s to the next: there is none", seed=None, step=step, close=close, told_after=seconds,
            processes_left=len(its.processes()),
        )  # fmt: skip


def test_a_worker_of_ours_is_killed(start: Start) -> None:
    run = start("--workers", 3, "--steps", 10**9, "--eval-every", 10**8)

    def ready() -> int:
        return sum(record["event"] == "ready" for record in run.records("worker"))

    wait_until(lambda: ready() == 4, "three workers and the evaluator")
    began = time.monotonic()
    os.kill(run.children("envproc.worker")[1], signal.SIGKILL)
    wait_until(lambda: ready() == 5, "the next one")
    seconds = round(time.monotonic() - began, 2)
    tell("B3 a worker killed, sharl", began, faults=1, violations=0, figure=seconds, unit="s to the next", seed=None)


@pytest.mark.parametrize("hangs", [False, True], ids=["at work", "one hangs"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_main_process_of_another_library_is_killed(library: str, hangs: bool) -> None:
    with stepping(library, *(["hangs"] if hangs else [])) as its:
        assert its.hear(60)
        time.sleep(STEPPING_S)
        began = time.monotonic()
        its.process.kill()
        its.process.wait(PATIENCE_S)
        time.sleep(1)
        tell_left(LIBRARIES[library][1], hangs, began, len(its.processes()))


@pytest.mark.parametrize("hangs", [False, True], ids=["at work", "one hangs"])
def test_the_main_process_of_ours_is_killed(hangs: bool, start: Start) -> None:
    run = start("--workers", 3, "--steps", 10**9, *(["--env", f"{TOYS}:Hangs"] if hangs else []))
    if hangs:
        run.wait_for_record(lambda record: record.get("event") == "stalls")
    time.sleep(STEPPING_S)
    began = time.monotonic()
    run.process.kill()
    run.process.wait(PATIENCE_S)
    time.sleep(1)
    tell_left("sharl", hangs, began, len(run.processes()))
    assert run.left() == []


def tell_left(whose: str, hangs: bool, began: float, left: int) -> None:
    name = f"B8 main process killed{', a worker hangs' if hangs else ''}, {whose}"
    tell(name, began, faults=1, violations=int(left > 0), figure=left, unit="processes after 1 s", seed=None)


@needs_cpprb
def test_rows_of_cpprbs_shared_buffer_at_full_speed() -> None:
    """Rows, buffer, step and batch as in our own test of the same, which follows."""
    rows, began = 3_000_000, time.monotonic()
    with other(Path(sys.executable), "torn", rows) as its:
        bad = its.hear(120).get("torn", -1)
        name = "A1 rows of a buffer that is lapped, cpprb"
        tell(name, began, faults=1, violations=bad, figure=rows, unit="rows", seed=None)
    lap_and_sample(rows, width=120, capacity=127, k=31, batch_size=64)


@needs_cpprb
def test_writers_of_cpprbs_shared_buffer_are_killed() -> None:
    began, stuck, bad = time.monotonic(), 0, 0
    for seed in range(KILLS):
        with other(Path(sys.executable), "killed", seed) as its:
            assert its.hear(60) == {"killed": True}
            found = its.hear(PATIENCE_S / 2)
            stuck += not found
            bad += found.get("torn", 0)
    tell(
        "B1 writers killed, cpprb", began, faults=KILLS, violations=stuck + bad, figure=stuck, unit="deadlocks",
        torn=bad,
    )  # fmt: skip
    kill_writers(KILLS)
