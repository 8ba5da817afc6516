"""Whoever is slower, each row is sampled as often as was asked for."""

from __future__ import annotations

import pytest

from tests.process.runs import TOYS, Run, Start

CLOSE = 0.02
SLOW, FAST, ONE_SLOW = f"{TOYS}:Slow", "3dball", f"{TOYS}:OneSlow"
CASES = {
    "slow workers": (SLOW, 4, 2, 4_000),
    "slow learner": (FAST, 32, 2, 5_000),
    "one slow worker of three": (ONE_SLOW, 4, 3, 8_000),
}
MORE = {
    "slow workers, more samples": (SLOW, 8, 2, 10_000),
    "slow learner, fewer samples": (FAST, 4, 2, 20_000),
    "one slow worker of three, more samples": (ONE_SLOW, 32, 3, 20_000),
    "few samples": (FAST, 0.25, 2, 200_000),
}


@pytest.mark.parametrize("case", CASES)
def test_the_ratio_asked_for_is_held(case: str, start: Start) -> None:
    check(case, CASES[case], start)


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE)
def test_the_ratio_asked_for_is_held_in_other_mixtures(case: str, start: Start) -> None:
    check(case, MORE[case], start)


def check(case: str, plan: tuple[str, float, int, int], start: Start) -> None:
    env, ratio, workers, steps = plan
    batch_size = 32 if ratio < 32 else 128
    run = start(
        *("--env", env, "--replay-ratio", ratio, "--workers", workers, "--steps", steps, "--eval-every", 10**9),
        *("--algo.batch-size", batch_size, "--algo.warmup", 200, "--algo.hidden", 16),
    )
    assert run.wait() == 0, run.stderr
    summary = run.summary
    assert summary["agent_steps"] < steps + 1000, "workers do not run on"
    assert abs(summary["replay_ratio_held"] / ratio - 1) < CLOSE, summary["replay_ratio_held"]
    assert summary["updates"] * batch_size <= ratio * (summary["agent_steps"] - 200), "never more than was asked for"
    _assert_it_was_so(case, run)


def _assert_it_was_so(case: str, run: Run) -> None:
    """The case is what its name says: the side that is faster is the one that waited."""
    middle = run.records("progress")[-2]
    if case.startswith("slow workers"):
        assert middle["learner_waits"] > 2 * middle["workers_wait"], middle["waiting"]
    else:  # one slow worker of three does not make the others slow: they fill in for it
        assert middle["workers_wait"] > 2 * middle["learner_waits"], middle["waiting"]
