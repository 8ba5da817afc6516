"""Two runs on one machine at the same time, with the same config."""

from __future__ import annotations

import pytest

from tests.process.runs import Start, wait_until


@pytest.mark.thorough
def test_two_runs_with_the_same_config_do_not_disturb_each_other(start: Start) -> None:
    options = ("--mode", "sync", "--workers", 2, "--steps", 2400, "--algo.replay-ratio", 8, "--eval-every", 1200)
    one = start(*options)
    other = start(*options, TMPDIR=str(one.temporary))
    assert (one.wait(), other.wait()) == (0, 0), (one.stderr, other.stderr)
    one.assert_nothing_left()
    other.assert_nothing_left()
    assert one.summary["weights_sha256"] == other.summary["weights_sha256"], "as each of them alone"
    for run in (one, other):
        ready = [record["pid"] for record in run.records("worker") if record["event"] == "ready"]
        assert len(set(ready)) == 3
        assert run.records("progress")[-1]["messages_refused"] == 0
    pids = {record["pid"] for run in (one, other) for record in run.records("worker") if "pid" in record}
    assert len(pids) == 6


@pytest.mark.slow
def test_a_run_that_is_killed_takes_nothing_from_another(start: Start) -> None:
    options = ("--workers", 1, "--steps", 8000)
    killed = start(*options)
    other = start(*options, TMPDIR=str(killed.temporary))
    killed.wait_for("progress")
    other.wait_for("progress")
    directories = set(killed.temporary.glob("sharl-*"))
    killed.process.kill()
    wait_until(lambda: set(killed.temporary.glob("sharl-*")) < directories, "the killed run's directory to go")
    assert len(set(killed.temporary.glob("sharl-*"))) == 1, "and the other's not"
    assert other.wait() == 0, other.stderr
    assert other.summary["reason"] == "steps" and other.summary["eval_return"] is not None
    other.assert_nothing_left()
    killed.assert_nothing_left()
