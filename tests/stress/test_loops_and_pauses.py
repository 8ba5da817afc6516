"""A worker that crashes in a loop is slowed down and given up; one that is stopped, or whose run is, is not blamed."""

from __future__ import annotations

import itertools
import os
import signal
import time

import pytest

from tests.process.runs import TOYS, Start, wait_until
from tests.process.test_supervision import FOREVER, events, status, stop
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RESTARTS = 5
AT_ONCE = 3
THEN_EVERY_S = 10.0
PAUSE_S = 10.0
NAMED_WITHIN_S = 7.0
"""a stall is told after five seconds"""


def test_a_worker_that_crashes_again_and_again_is_restarted_ever_later_and_given_up(start: Start) -> None:
    begun = time.monotonic()
    run = start(*FOREVER, "--env", f"{TOYS}:Raises", "--max-restarts", RESTARTS)
    wait_until(lambda: "given up" in events(run, "worker-0"), "it to be given up", 120)
    told = [(each["event"], each["wall_s"]) for each in run.records("worker") if each["worker"] == "worker-0"]
    lives = [at for event, at in told if event == "restarted"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(lives)]
    assert len(lives) == RESTARTS and events(run, "worker-1") == ["ready"]
    assert min(gaps[AT_ONCE - 1 :]) > THEN_EVERY_S - 0.1, gaps
    before = status(run)["workers"][1]["steps"]
    wait_until(lambda: status(run)["workers"][1]["steps"] > before + 20, "steps of the other")
    stop(run)
    tell(
        "B6 crash loop", begun, faults=RESTARTS + 1, violations=0, figure=[round(gap, 1) for gap in gaps],
        unit="s from restart to restart", seed=None,
    )  # fmt: skip


def test_a_worker_that_stands_still_for_ten_seconds_is_named_and_not_replaced(start: Start) -> None:
    begun = time.monotonic()
    run = start(*FOREVER, "--hang-s", PAUSE_S + 20)
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
    worker = next(pid for pid, line in run.processes().items() if '"worker-0"' in line)
    os.kill(worker, signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: events(run, "worker-0") == ["ready", "stalls"], "the stall to be told")
    named = time.monotonic() - stopped
    time.sleep(PAUSE_S - named)
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: events(run, "worker-0") == ["ready", "stalls", "goes on"], "that it goes on to be told")
    assert events(run, "worker-1") == ["ready"] and named < NAMED_WITHIN_S
    stop(run)
    figure, unit = round(named, 1), "s until it is named"
    tell("B11 a worker stopped for 10 s", begun, faults=1, violations=0, figure=figure, unit=unit, seed=None)


def test_after_a_pause_of_the_whole_run_longer_than_a_worker_may_hang_nobody_is_blamed(start: Start) -> None:
    """As of a machine that sleeps. The main process wakes first, and sees that nobody has moved."""
    begun = time.monotonic()
    run = start(*FOREVER, "--hang-s", 0.8 * PAUSE_S)
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
    pids = [*run.children("envproc.worker"), run.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.2)
    time.sleep(PAUSE_S)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)
    before = status(run)["workers"]
    wait_until(
        lambda: all(now["steps"] > was["steps"] + 20 for now, was in zip(status(run)["workers"], before, strict=True)),
        "steps of both",
    )
    told = events(run, "worker-0") + events(run, "worker-1")
    assert told == ["ready", "ready"]
    stop(run)
    blamed = len(told) - 2
    tell("B11 all stopped for 10 s", begun, faults=1, violations=blamed, figure=blamed, unit="blamed", seed=None)
