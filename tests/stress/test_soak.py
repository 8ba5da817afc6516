"""A run that goes on while workers are killed, agents reset and checkpoints written: nothing grows in its main process.

SHARL_SOAK_S says how long, in seconds. Slopes are least squares over a sample a second, after a warm-up in which the
ring fills and the allocator finds its size.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from scripts import audit
from scripts.running import ask, find_running
from tests.process.runs import Run
from tests.stress.figures import tell

SECONDS = float(os.environ.get("SHARL_SOAK_S", "300"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 300)]
WARM_UP_S = min(60.0, SECONDS / 3)
A_FAULT_EVERY_S = 1.5
MOST = {"rss_mib": 2.0, "anonymous_mib": 2.0, "fds": 2.0, "threads": 1.0, "processes": 1.0}
"""that the fitted line may rise from the first sample to the last. The allocator's teeth are of 1 MiB, one restart or
snapshot has 3 more files open for a moment; one file in ten lost restarts would be 4 in five minutes"""
SEED = 1
OPTIONS = (
    "--workers", 2, "--steps", 10**9, "--max-restarts", 10**6, "--algo.capacity", 10_000, "--eval-every", 5000,
    "--checkpoint-every", 5000,
)  # fmt: skip


def sample(run: Run) -> dict[str, float]:
    """Of the main process, and how many processes belong to the run.

    The PSS says as much about who else has the same libraries in memory: it has no limit.
    """
    home = Path(f"/proc/{run.process.pid}")
    lines = map(str.split, (home / "smaps_rollup").read_text().splitlines()[1:])
    mib = {name: int(kib) / 1024 for name, kib, _ in lines}
    return {
        "rss_mib": mib["Rss:"],
        "pss_mib": mib["Pss:"],
        "anonymous_mib": mib["Anonymous:"],
        "fds": len(os.listdir(home / "fd")),
        "threads": len(os.listdir(home / "task")),
        "processes": len(run.processes()),
    }


class Faults:
    """A kill, a reset and a checkpoint in turn; kills hit the workers in turn, too."""

    def __init__(self, run: Run, address: str) -> None:
        self._run, self._address, self._dice = run, address, random.Random(SEED)
        self.kills = self.orders = 0

    def next(self) -> None:
        if self.kills <= self.orders // 2:
            lane = f'"worker-{self.kills % 2}"'
            for pid in [pid for pid, line in self._run.processes().items() if lane in line]:
                os.kill(pid, signal.SIGKILL)
            self.kills += 1
        elif self.orders % 2:
            self.orders += ask(self._address, ["snapshot"]) is not None
        else:
            words = ["reset", str(self._dice.randrange(2)), str(self._dice.randrange(12))]
            self.orders += ask(self._address, words) is not None


def test_memory_files_threads_and_processes_stay_as_they_are(tmp_path: Path) -> None:
    run, begun = Run(tmp_path, *OPTIONS), time.monotonic()
    samples: list[dict[str, float]] = []
    times: list[float] = []
    try:
        run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
        (job,) = find_running("run", run.directory.parent)
        faults, due = Faults(run, job.address), time.monotonic()
        start = due
        while (now := time.monotonic()) < start + SECONDS:
            if now >= due:
                faults.next()
                due = now + A_FAULT_EVERY_S
            if now > start + WARM_UP_S:
                times.append(now)
                samples.append(sample(run))
            time.sleep(1)
            assert run.process.poll() is None, run.stderr
        restarts = sum(record["event"] == "restarted" for record in run.records("worker"))
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.stderr
        assert run.left() == []
    finally:
        run.end()
    slopes = {name: float(np.polyfit(times, [each[name] for each in samples], 1)[0]) for name in samples[0]}
    rise = {name: slope * (times[-1] - times[0]) for name, slope in slopes.items()}
    grown = [name for name, most in MOST.items() if rise[name] > most]
    broken = audit.main([str(run.directory)])
    tell(
        "C4 soak", begun, faults={"kills": faults.kills, "orders": faults.orders}, violations=broken + len(grown),
        figure={name: round(3600 * slope, 1) + 0.0 for name, slope in slopes.items()}, unit="an hour", seed=SEED,
        restarts=restarts, lowest={name: min(each[name] for each in samples) for name in slopes},
        highest={name: max(each[name] for each in samples) for name in slopes}, samples=len(samples),
    )  # fmt: skip
    assert restarts > faults.kills // 2 and not grown and not broken, (restarts, rise)
