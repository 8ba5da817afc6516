"""However the main process dies: within a second nothing of the run is left."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.process.runs import TOYS, Start, wait_until

LONG = ("--workers", 2, "--steps", 10**9)


def test_when_the_main_process_is_killed_everything_goes_with_it(start: Start) -> None:
    run = start(*LONG)
    run.wait_for("progress")
    assert len(run.processes()) == 5, "main, janitor, evaluator, 2 workers"
    run.process.kill()
    run.assert_nothing_left()


@pytest.mark.slow
def test_when_its_process_group_is_killed_everything_goes_with_it(start: Start) -> None:
    run = start(*LONG, "--env", f"{TOYS}:Hangs")
    run.wait_for("progress")
    os.killpg(run.process.pid, signal.SIGKILL)
    run.assert_nothing_left()


@pytest.mark.parametrize(
    "delay_s",
    [
        pytest.param(0.1, marks=pytest.mark.thorough),
        *(pytest.param(delay, marks=pytest.mark.slow) for delay in (0.0, 0.05, 0.2)),
    ],
)
def test_when_it_is_killed_while_workers_start_none_of_them_is_left_behind(delay_s: float, start: Start) -> None:
    run = start(*LONG, "--env", f"{TOYS}:SlowToLaunch")
    wait_until(lambda: bool(run.children("envproc.worker")), "a worker")
    time.sleep(delay_s)
    run.process.kill()
    run.assert_nothing_left()
