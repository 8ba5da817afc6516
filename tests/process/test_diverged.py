"""The real program whose losses overflow: it goes back once, and if that does not help it stops and says what to do."""

from __future__ import annotations

import numpy as np
import pytest

from core.checkpoint import load_policy, load_state, newest
from tests.process.runs import Start

TOY = "tests/process/bad_toys.py:HugeRewards"
SMALL = ("--algo.hidden", 16, 16, "--algo.warmup", 100, "--algo.replay-ratio", 8, "--workers", 1)


@pytest.mark.thorough
def test_losses_that_stay_infinite_end_the_run_after_one_rollback(start: Start) -> None:
    run = start("--env", TOY, *SMALL, "--checkpoint-every", 500, "--mode", "sync", "--eval-every", 100_000)
    assert run.wait() == 4, run.stdout
    (rollback,) = run.records("rollback")
    assert rollback["number"] == run.records("checkpoint")[0]["number"] == "000001"
    summary = run.summary
    assert (summary["reason"], summary["exit_code"]) == ("diverged", 4)
    assert rollback["updates"] + 10 <= summary["updates"] < rollback["updates"] + 30
    assert "Traceback" not in run.stderr
    for part in ("critic_loss (last finite value 0.", "going back to checkpoint 000001", "--algo.max-grad-norm"):
        assert part in run.stderr
    assert np.isfinite(load_policy(run.directory)[1]).all()
    state = load_state(newest(run.directory)[0])["learner"]["algorithm"]
    assert all(bool(state[name].isfinite().all()) for name in ("actor", "critic", "target_actor", "target_critic"))
    run.assert_nothing_left()


@pytest.mark.thorough
def test_where_there_is_no_checkpoint_yet_it_stops_at_once(start: Start) -> None:
    run = start("--env", TOY, *SMALL, "--checkpoint-every", 0, "--eval-every", 100_000)
    assert run.wait() == 4, run.stdout
    assert run.records("rollback") == []
    assert run.summary["reason"] == "diverged" and "no checkpoint to go back to" in run.stderr


@pytest.mark.slow
def test_a_run_in_a_world_with_a_few_bad_numbers_reaches_its_end_and_counts_them(start: Start) -> None:
    run = start("--env", "tests/process/bad_toys.py:Sick", *SMALL, "--workers", 2, "--steps", 20_000)
    assert run.wait() == 0, run.stderr
    last = run.records("progress")[-1]
    assert last["rows_refused"] > 20 and last["updates_skipped"] == last["publications_refused"] == 0
