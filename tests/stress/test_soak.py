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
SEED = 1
OPTIONS = (
    "--workers", 2, "--steps", 10**9, "--max-restarts", 10**6, "--algo.capacity", 10_000, "--eval-every", 5000,
    "--checkpoint-every", 5000,
)  # fmt: skip


def sample(run: Run) -> dict[str, float]:
    """Of the main process, and how many processes belong to the run."""
    home = Path(f"/proc/{run.process.pid}")
    memory = {
        line.split()[0]: int(line.split()[1]) / 1024 for line in (home / "smaps_rollup").read_text().splitlines()[1:]
    }
    return {
        "rss_mib": memory["Rss:"],
        "pss_mib": memory["Pss:"],
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
    slopes = {name: 3600 * np.polyfit(times, [each[name] for each in samples], 1)[0] for name in samples[0]}
    spread = {name: (min(each[name] for each in samples), max(each[name] for each in samples)) for name in samples[0]}
    broken = audit.main([str(run.directory)])
    tell(
        "C4 soak",
        begun,
        faults={"kills": faults.kills, "orders": faults.orders},
        violations=broken,
        figure={name: round(float(s), 1) for name, s in slopes.items()},
        unit="an hour",
        restarts=restarts,
        spread=spread,
        warm=WARM_UP_S,
    )
    if os.environ.get("DUMP"):
        import json

        Path(os.environ["DUMP"]).write_text(json.dumps([times, samples]))
