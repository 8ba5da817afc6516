"""Within a second of a SIGKILL nothing is left: of a whole run, of a hung Unity player whose worker was killed."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.process.runs import TOYS, Run, Start, wait_until
from tests.process.test_unity import BALL, SMALL
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG = ("--workers", 2, "--steps", 10**9)
HUNG = ("--unity.args", "--fault hang@200 --fault ignore-quit")
"""from its 200th step on, whatever it is told"""
LIMIT_S = 1.0
SEED = 12
PLAYERS = 10


def test_nothing_is_left_of_runs_whose_main_process_or_group_is_killed_at_random_moments(start: Start) -> None:
    dice, begun, kills, slowest = random.Random(SEED), time.monotonic(), 30, 0.0
    for number in range(kills):
        run = start(*LONG, "--env", f"{TOYS}:{dice.choice(['Counting', 'SlowToLaunch', 'Hangs'])}")
        time.sleep(dice.uniform(0.5, 4))
        (os.killpg if number % 2 else os.kill)(run.process.pid, signal.SIGKILL)
        slowest = max(slowest, run.assert_nothing_left(LIMIT_S))
    unit = "s until nothing is left, at most"
    tell("B8 main process killed", begun, faults=kills, violations=0, figure=round(slowest, 3), unit=unit, seed=SEED)


def run_with_a_hung_player(start: Start) -> Run:
    run = start(*BALL, *SMALL, *HUNG, "--steps", 10**7, "--max-restarts", 0)
    log = run.directory / "logs/player-0.log"
    wait_until(lambda: log.exists() and "hanging" in log.read_text(), "the player to hang")
    return run


def test_no_hung_player_outlives_its_worker_or_its_run_by_a_second(start: Start) -> None:
    begun, slowest = time.monotonic(), 0.0
    for number in range(PLAYERS):
        run = run_with_a_hung_player(start)
        victim = run.process.pid if number % 2 else run.children("envproc.worker")[0]
        orphans = [pid for pid, line in run.processes().items() if number % 2 or "player-0.log" in line]
        assert orphans
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        while left := [pid for pid in orphans if pid in run.processes()]:
            assert time.monotonic() < killed + LIMIT_S, f"after {LIMIT_S} s there is still {left}"
        slowest = max(slowest, time.monotonic() - killed)
        run.wait()
        run.assert_nothing_left()
    tell(
        "B10 hung player, its worker or its run killed", begun, faults=PLAYERS, violations=0, figure=round(slowest, 3),
        unit="s until it is gone, at most", seed=None,
    )  # fmt: skip
