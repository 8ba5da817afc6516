"""Ctrl-C at fifty random moments, from the first line of the program on: in order within 5 s each time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from core.checkpoint import newest
from tests.process.runs import Run, Start, wait_until
from tests.process.test_interrupted import Case, Outcome, check, interrupt
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TIMES = 50
SEED = 11
LATEST_S = 8.0
"""after its first line; a run of so few steps may be over by then"""
OPTIONS = ("--workers", 2, "--steps", 4000, "--checkpoint-every", 1000)
SIGTERM_BIT = 1 << 14


def listens(run: Run) -> bool:
    """The program has its first lines behind it; before that Python itself answers a signal, with a traceback."""
    status = Path(f"/proc/{run.process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & SIGTERM_BIT)


def interrupt_after(run: Run, seconds: float) -> Outcome:
    """Unless it has ended by itself."""
    wait_until(lambda: listens(run), "its first line")
    moment = time.monotonic() + seconds
    return interrupt(run, Case((), lambda run: time.monotonic() > moment or run.process.poll() is not None))


def test_at_fifty_random_moments_ctrl_c_ends_a_run_in_order(start: Start) -> None:
    dice, begun = random.Random(SEED), time.monotonic()
    slowest, codes, loaded = 0.0, {0: 0, 130: 0}, 0
    for number in range(TIMES):
        run = start(*OPTIONS, "--mode", ("sync", "async")[number % 2], run=f"run-{number}")
        outcome = interrupt_after(run, dice.uniform(0, LATEST_S))
        check(outcome, saves=True, at_last=0)
        if told := [record for record in run.records("checkpoint") if "failed" not in record]:
            directory, rejected = newest(run.directory)
            assert not rejected and directory.name >= told[-1]["number"], "what was said to be written is there"
            loaded += 1
        slowest = max(slowest, outcome.seconds)
        codes[outcome.code] += 1
    assert codes[130] > TIMES / 2, "most of the runs were over before: this showed little"
    tell(
        "E1 Ctrl-C at a random moment", begun, faults=codes[130], violations=0, figure=round(slowest, 2),
        unit="s to the end, at most", seed=SEED, over_before=codes[0], checkpoints_loaded=loaded,
    )  # fmt: skip
