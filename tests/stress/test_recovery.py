"""Workers of a running job are killed, one after the other: how soon there are new rows, and whether others pause."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.running import ask, find_running
from tests.process.runs import Run
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KILLS = 30


def test_killed_workers_are_back_and_the_others_do_not_pause(tmp_path: Path) -> None:
    options = ("--workers", 3, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0)
    run, dice = Run(tmp_path, *options, "--max-restarts", 1000), random.Random(1)
    began = time.monotonic()
    noticed: list[float] = []
    back: list[float] = []
    pauses: list[float] = []
    try:
        run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 100)
        (job,) = find_running("run", run.directory.parent)

        def workers() -> list[dict[str, Any]]:
            reply = ask(job.address, ["status"])
            assert reply is not None
            found: list[dict[str, Any]] = json.loads(reply.what)["workers"]
            return found

        for kill in range(KILLS):
            time.sleep(dice.uniform(3.4, 4))  # a worker's fourth restart comes ten seconds after its third, or later
            lane = kill % 3
            before = workers()
            pid = next(pid for pid, line in run.processes().items() if f'"worker-{lane}"' in line)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            moved = {other: (before[other]["steps"], killed) for other in range(3) if other != lane}
            while True:
                now, at = workers(), time.monotonic()
                for other, (steps, since) in moved.items():
                    if now[other]["steps"] > steps:
                        pauses.append(at - since)
                        moved[other] = now[other]["steps"], at
                if not now[lane]["at_work"] and len(noticed) == len(back):
                    noticed.append(at - killed)
                if now[lane]["epoch"] > before[lane]["epoch"] and now[lane]["steps"] > before[lane]["steps"] + 3:
                    break
                assert at < killed + 60, "the worker is not back"
            back.append(at - killed)
            noticed = noticed[: len(back)]
        run.process.send_signal(signal.SIGINT)
        assert run.wait(60) == 130 and run.left() == []
    finally:
        run.end()
    tell(
        "B3 killed workers", began, faults=KILLS, violations=sum(each > 2 for each in back),
        figure=round(max(back), 2), unit="s to new rows, at most", back_median=round(statistics.median(back), 2),
        noticed_median=round(statistics.median(noticed), 3), noticed_max=round(max(noticed), 3),
        longest_pause_of_others=round(max(pauses), 3),
    )  # fmt: skip
