"""Whoever is slower, each row is sampled as often as was asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.process.runs import TOYS, Run, Start

CLOSE = 0.02
WARMUP = 200
SLOW, FAST, ONE_SLOW = f"{TOYS}:Slow", "3dball", f"{TOYS}:OneSlow"


class Plan(NamedTuple):
    env: str
    ratio: float
    batch_size: int
    workers: int
    steps: int


CASES = {
    "slow workers": Plan(SLOW, 4, 32, 2, 4_000),
    "slow learner": Plan(FAST, 32, 128, 2, 5_000),
}
MORE = {
    "one slow worker of three": Plan(ONE_SLOW, 4, 32, 3, 8_000),
}
YET_MORE = {
    "slow workers, more samples": Plan(SLOW, 8, 32, 2, 10_000),
    "slow learner, fewer samples": Plan(FAST, 4, 32, 2, 20_000),
    "one slow worker of three, more samples": Plan(ONE_SLOW, 32, 128, 3, 20_000),
    "few samples": Plan(FAST, 0.25, 32, 2, 200_000),
}


@pytest.fixture(scope="module")
def runs(start_once: Start) -> dict[str, Run]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(lambda case: run_to_the_end(CASES[case], start_once), CASES), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_ratio_asked_for_is_held(case: str, runs: dict[str, Run]) -> None:
    check(case, CASES[case], runs[case])


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, marks=pytest.mark.thorough) for case in MORE),
        *(pytest.param(case, marks=pytest.mark.slow) for case in YET_MORE),
    ],
)
def test_the_ratio_asked_for_is_held_in_other_mixtures(case: str, start: Start) -> None:
    plan = {**MORE, **YET_MORE}[case]
    check(case, plan, run_to_the_end(plan, start))


def run_to_the_end(plan: Plan, start: Start) -> Run:
    run = start(
        *("--env", plan.env, "--algo.replay-ratio", plan.ratio, "--workers", plan.workers, "--steps", plan.steps),
        *("--algo.batch-size", plan.batch_size, "--algo.warmup", WARMUP, "--algo.hidden", 16, "--eval-every", 10**9),
    )
    assert run.wait() == 0, run.stderr
    return run


def check(case: str, plan: Plan, run: Run) -> None:
    rows, updates, held = (run.summary[name] for name in ("agent_steps", "updates", "replay_ratio_held"))
    assert rows < plan.steps + 1000, "workers do not run on"
    assert abs(held / plan.ratio - 1) < CLOSE
    assert held == pytest.approx(updates * plan.batch_size / (rows - WARMUP))
    assert held <= plan.ratio, "never more than was asked for"
    _assert_it_was_so(case, run)


def _assert_it_was_so(case: str, run: Run) -> None:
    """The case is what its name says: the side that is faster is the one that waited."""
    middle = run.records("progress")[-2]
    if case.startswith("slow workers"):
        assert middle["learner_waits"] > middle["workers_wait"], middle["waiting"]
    if case.startswith(("slow learner", "one slow worker")):  # of three workers the other two fill in for the slow one
        assert middle["workers_wait"] > middle["learner_waits"], middle["waiting"]
