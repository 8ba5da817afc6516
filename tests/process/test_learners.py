"""Several learners under torchrun: one run, whoever is killed, stopped or interrupted."""

from __future__ import annotations

import os
import signal

import pytest

from core.checkpoint import load_policy
from scripts.running import ask, find_running
from tests.core.test_group import start_ranks
from tests.process.runs import PATIENCE_S, TOYS, Run, Start

pytestmark = pytest.mark.thorough

SMALL = ("--env", f"{TOYS}:Counting", "--algo.hidden", 16, 16, "--algo.batch-size", 32, "--algo.replay-ratio", 4)
LONG = (*SMALL, "--steps", 10**9, "--eval-every", 10**9)


def learns(run: Run, beyond: int = 0) -> None:
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > beyond)


def test_two_learners_are_one_run_and_end_with_the_same_parameters(start: Start) -> None:
    run = start(*SMALL, "--steps", 20_000, learners=2)
    assert run.wait() == 0, run.stderr
    other = run.of_rank(1)[-1]
    for name in ("reason", "updates", "weights_sha256", "exit_code"):
        assert other[name] == run.summary[name], name
    assert run.summary["updates"] > 1000
    progress = run.records("progress")[-1]
    assert progress["agent_steps"] >= 20_000 and progress["workers"] == 2
    # each of them samples its own rows as often as was asked for
    assert 3.5 < run.summary["replay_ratio_held"] < 4.1
    first, second = (
        next(each for each in them if each["kind"] == "config") for them in (run.records(), run.of_rank(1))
    )
    assert first["seed"] != second["seed"] and first["job"] == second["job"]


@pytest.mark.slow
def test_3dball_is_solved_by_two_learners(start: Start) -> None:
    run = start("--until-return", 99, learners=2)
    assert run.wait(120) == 0, run.stderr
    assert run.summary["reason"] == "until_return" and run.summary["eval_return"] >= 99


def test_a_learner_that_reads_in_order_makes_as_many_steps_as_the_others(start: Start) -> None:
    small = ("--algo.hidden", 16, 16, "--algo.horizon", 16, "--env", f"{TOYS}:Counting")
    run = start(*small, "--steps", 4000, algorithm="ppo", learners=2)
    assert run.wait() == 0, run.stderr
    other = run.of_rank(1)[-1]  # whose agents have had other returns, which count in weights_sha256
    assert (other["reason"], other["updates"]) == ("steps", run.summary["updates"])


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_when_one_is_killed_all_go_on_from_the_checkpoint(rank: int, start: Start) -> None:
    run = start(*SMALL, "--steps", 40_000, "--checkpoint-every", 2000, learners=2)
    run.wait_for_record(lambda record: record["kind"] == "checkpoint" and record["number"] >= "000003")
    os.kill(run.learner(rank), signal.SIGKILL)
    assert run.wait(120) == 0, run.stderr
    (resumed,) = run.records("resumed")
    assert resumed["agent_steps"] >= 6000 and run.summary["agent_steps"] >= 40_000
    steps = [record["agent_steps"] for record in run.records("progress") if record["wall_s"] > resumed["wall_s"]]
    assert steps == sorted(steps) and steps[0] >= resumed["agent_steps"]
    assert run.of_rank(1)[-1]["weights_sha256"] == run.summary["weights_sha256"]
    run.assert_nothing_left()


def test_one_that_is_stopped_is_named_and_given_up_in_time_or_awaited(start: Start) -> None:
    run = start(*LONG, "--hang-s", 12, learners=2)
    learns(run)
    other = run.learner(1)
    os.kill(other, signal.SIGSTOP)
    run.wait_for_record(lambda record: record["kind"] == "rank" and record["event"] == "stalls")
    os.kill(other, signal.SIGCONT)
    run.wait_for_record(lambda record: record["kind"] == "rank" and record["event"] == "goes on")
    assert "rank 1 has not come" in run.records("rank")[0]["detail"]
    learns(run, run.records("progress")[-1]["updates"])
    os.kill(other, signal.SIGSTOP)
    run.wait_for_record(lambda record: record["kind"] == "resumed")
    lost = next(record for record in run.records("summary"))
    assert lost["reason"] == "rank lost" and "rank 1 has not come for 12 s" in run.stderr


def test_an_interrupted_job_is_saved_and_nothing_is_left(start: Start) -> None:
    run = start(*LONG, learners=2)
    learns(run)
    (job,) = find_running(run.directory.name, run.directory.parent)
    reply = ask(job.address, ["set", "algo.actor_lr", "1e-4"])
    assert reply is not None and not reply.done and "several learners" in reply.what
    os.kill(run.process.pid, signal.SIGINT)
    run.wait()
    assert run.summary["reason"] == "interrupted" and run.of_rank(1)[-1]["reason"] == "interrupted"
    assert run.of_rank(1)[-1]["weights_sha256"] == run.summary["weights_sha256"]
    load_policy(run.directory)
    run.assert_nothing_left()


def test_different_options_are_refused_by_all_and_named() -> None:
    options = [["ddpg", "--algo.batch-size", size, "--runs-dir", "/nowhere"] for size in ("64", "32")]
    for process in start_ranks("scripts.train", *options):
        _, error = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2, error
        assert "rank 1 was given algo.batch_size 32, rank 0 64" in error
