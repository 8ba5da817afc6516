"""Whoever dies, fails or hangs is replaced on its lane, and nobody else notices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import Any

import pytest

from scripts.running import ask, find_running
from tests.process.runs import TOYS, Run, Start, wait_until

FOREVER = ("--workers", 2, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0)


def events(run: Run, worker: str) -> list[str]:
    """What became of it, in order; who is ready said so."""
    told = [record["event"] for record in run.records("worker") if record["worker"] == worker]
    return [event for event in told if event != "started"]


def status(run: Run) -> dict[str, Any]:
    (job,) = find_running(str(run.directory), run.directory.parent)
    reply = ask(job.address, ["status"])
    assert reply is not None and reply.done
    figures: dict[str, Any] = json.loads(reply.what)
    return figures


def wait_until_all_work(run: Run) -> None:
    """Whoever is killed before it has begun has no life that would be followed by a next one."""
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
    wait_until(lambda: all(each["steps"] > 0 for each in status(run)["workers"]), "steps of all")


def stop(run: Run) -> None:
    (job,) = find_running(str(run.directory), run.directory.parent)
    ask(job.address, ["stop"])
    assert run.wait(60) == 0, run.stderr
    assert run.left() == []


@pytest.mark.parametrize("mode", ["async", pytest.param("sync", marks=pytest.mark.thorough)])
def test_a_worker_that_is_killed_goes_on_in_the_next_life_of_its_lane(mode: str, start: Start) -> None:
    run = start(*FOREVER, "--mode", mode)
    wait_until_all_work(run)
    before = status(run)["workers"]
    os.kill(next(pid for pid, line in run.processes().items() if '"worker-0"' in line), signal.SIGKILL)
    wait_until(lambda: status(run)["workers"][0]["epoch"] == 1, "the next life")
    wait_until(
        lambda: all(now["steps"] > was["steps"] + 20 for now, was in zip(status(run)["workers"], before, strict=True)),
        "steps of both",
    )
    assert status(run)["workers"][1]["epoch"] == 0
    assert events(run, "worker-0") == ["ready", "died", "restarted", "ready"]
    assert events(run, "worker-1") == ["ready"]
    stop(run)


@pytest.mark.thorough
def test_a_worker_is_replaced_where_the_logs_were_deleted(start: Start) -> None:
    run = start(*FOREVER)
    wait_until_all_work(run)
    shutil.rmtree(run.directory / "logs")
    os.kill(next(pid for pid, line in run.processes().items() if '"worker-0"' in line), signal.SIGKILL)
    wait_until(lambda: events(run, "worker-0") == ["ready", "died", "restarted", "ready"], "the next life")
    assert (run.directory / "logs" / "worker-0.log").exists()
    stop(run)


@pytest.mark.thorough
def test_what_a_worker_leaves_behind_goes_with_it(start: Start) -> None:
    run = start(*FOREVER, "--env", f"{TOYS}:LeavesAChild")
    wait_until(lambda: events(run, "worker-0").count("ready") == 3, "the third life")
    assert sum('"worker-0"' in line for line in run.processes().values()) <= 2
    stop(run)


@pytest.mark.parametrize(
    ("toy", "event"),
    [
        ("Raises", "failed"),
        pytest.param("Exits", "failed", marks=pytest.mark.thorough),
        pytest.param("KillsItself", "died", marks=pytest.mark.thorough),
        pytest.param("RaisesALotBesideAThread", "failed", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.thorough
def test_a_run_whose_worker_fails_again_and_again_goes_on_to_its_end(toy: str, event: str, start: Start) -> None:
    run = start("--env", f"{TOYS}:{toy}", "--workers", 2, "--steps", 3000, "--eval-every", 1500)
    assert run.wait(60) == 0, run.stderr
    assert {event, "restarted"} <= set(events(run, "worker-0")) and events(run, "worker-1") == ["ready"]
    assert run.summary["reason"] == "steps" and run.left() == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    "toy",
    [
        "HangsOnce",
        "HangsOnceInReset",
        pytest.param("HangsOnceAtLaunch", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_hangs_is_replaced(toy: str, start: Start) -> None:
    # the second limit holds for the others' launches, too, which take their time on a machine with much else to do
    limit, seconds = ("--hang-s", 6) if toy == "HangsOnce" else ("--launch-s", 15)
    run = start(*FOREVER, "--env", f"{TOYS}:{toy}", limit, seconds)
    wait_until(lambda: "restarted" in events(run, "worker-0"), "a restart", 60)
    wait_until(lambda: events(run, "worker-0")[-1] == "ready", "the next life")
    told = [record for record in run.records("worker") if record["event"] == "hangs"]
    assert len(told) == 1 and told[0]["worker"] == "worker-0" and f"in {seconds} s" in told[0]["detail"]
    assert events(run, "worker-1") == ["ready"]
    stop(run)


@pytest.mark.thorough
def test_one_that_dies_at_birth_is_given_up_and_the_others_go_on(start: Start) -> None:
    run = start(*FOREVER, "--env", f"{TOYS}:DiesAtBirth")
    wait_until(lambda: "given up" in events(run, "worker-1"), "it to be given up")
    assert events(run, "worker-1") == ["died", "restarted"] * 2 + ["died", "given up"]
    before = status(run)["workers"][0]["steps"]
    wait_until(lambda: status(run)["workers"][0]["steps"] > before + 20, "steps of the other")
    stop(run)


@pytest.mark.thorough
def test_with_too_few_workers_left_the_run_is_saved_and_ends(start: Start) -> None:
    run = start(*FOREVER, "--env", f"{TOYS}:DiesAtBirth", "--min-workers", 2)
    assert run.wait(60) == 3
    assert "worker-1 died: exit code 7" in run.stderr and run.summary["reason"] == "worker lost"
    assert run.left() == [] and (run.directory / "checkpoints").exists()


@pytest.mark.thorough
def test_an_evaluator_that_is_killed_in_the_middle_is_replaced_and_asked_again(start: Start) -> None:
    run = start("--workers", 1, "--steps", 10**9, "--eval-every", 500, "--env", f"{TOYS}:LongEvaluations")
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 50)
    os.kill(next(pid for pid, line in run.processes().items() if "envproc.evaluator" in line), signal.SIGKILL)
    wait_until(lambda: events(run, "evaluator")[-3:] == ["died", "restarted", "ready"], "another evaluator")
    run.wait_for("eval", 60)
    stop(run)


@pytest.mark.thorough
def test_a_worker_that_stands_still_is_told_and_nobody_is_blamed_for_a_pause_of_the_main_process(start: Start) -> None:
    run = start(*FOREVER, "--hang-s", 8)
    wait_until_all_work(run)
    worker = next(pid for pid, line in run.processes().items() if '"worker-0"' in line)
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: events(run, "worker-0") == ["ready", "stalls"], "the stall to be told")
    os.kill(run.process.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(run.process.pid, signal.SIGCONT)
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: events(run, "worker-0") == ["ready", "stalls", "goes on"], "that it goes on to be told")
    assert events(run, "worker-1") == ["ready"]
    stop(run)
