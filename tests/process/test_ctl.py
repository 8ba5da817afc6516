"""A running job obeys, and says what it did; what it is told wrongly changes nothing."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from core.control import Order, Reply, Report, Server
from core.types import IntArray
from scripts import ctl
from scripts.running import ask, find_running
from tests.process.runs import Run, Start, wait_until

Tell = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def job(start_once: Start) -> Run:
    """A run that goes on until it is told to stop."""
    run = start_once("--workers", 2, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0, run="job")
    run.wait_for("progress")
    wait_until(lambda: run.records("progress")[-1]["updates"] > 0, "an update")
    return run


@pytest.fixture
def tell(job: Run, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Exit code, and what was printed."""

    def tell(*words: object) -> tuple[int, str]:
        code = ctl.main([*map(str, words), "--runs-dir", str(job.directory.parent)])
        out, err = capsys.readouterr()
        assert bool(out) == (code == 0) and (out + err).count("\n") == 1
        return code, out + err

    return tell


def status(tell: Tell) -> dict[str, Any]:
    code, told = tell("status")
    assert code == 0
    figures: dict[str, Any] = json.loads(told)
    return figures


def steps_of(tell: Tell) -> IntArray:
    """(workers,)"""
    return np.array([each["steps"] for each in status(tell)["workers"]])


def test_it_says_how_it_goes(job: Run, tell: Tell) -> None:
    figures = status(tell)
    assert figures["updates"] > 0 and [each["worker"] for each in figures["workers"]] == [0, 1]
    assert figures["agent_steps"] == sum(each["decisions"] for each in figures["workers"])


def test_it_is_listed_with_what_it_trains_and_how_far_it_is(job: Run, tell: Tell) -> None:
    code, told = tell("ls")
    row = rf"job  ddpg  3dball  pid {job.process.pid}  ([\d,]+) agent steps  since [\d :-]+\n"
    found = re.fullmatch(row, told)
    assert code == 0 and found, told
    assert 0 < int(found[1].replace(",", "")) <= status(tell)["agent_steps"]


def test_while_it_is_paused_nobody_steps_or_learns_and_then_it_goes_on(job: Run, tell: Tell) -> None:
    assert tell("pause")[0] == 0
    wait_until(lambda: status(tell) == status(tell), "everybody to stand still")
    before = status(tell)
    seen = len(job.records("progress"))
    wait_until(lambda: len(job.records("progress")) > seen + 1, "a record of the pause")
    assert job.records("progress")[-1]["waiting"] == "paused"
    assert status(tell) == before and before["paused"]
    assert tell("pause")[0] == 1
    assert tell("resume")[0] == 0
    for figure in ("updates", "agent_steps"):
        wait_until(lambda: status(tell)[figure] > before[figure], figure)  # noqa: B023 - called before it changes


def test_one_agent_is_reset_and_the_job_says_so(job: Run, tell: Tell) -> None:
    code, told = tell("reset", 1, 7)
    assert (code, told) == (0, "agents [7]: reset\n")


def test_a_checkpoint_is_written_when_it_is_asked_for(job: Run, tell: Tell) -> None:
    code, told = tell("snapshot")
    assert code == 0 and (job.directory / "checkpoints" / told.split()[-1] / "words.npz").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["statsu"], "did you mean 'status'"),
        (["fly"], "there is: status; pause;"),
        (["pause", "now"], "takes nothing behind it"),
        (["resume"], "it is not paused"),
        (["reset", "1"], "give numbers, reset WORKER AGENT"),
        (["reset", "one", "7"], "give numbers, reset WORKER AGENT"),
        (["reset", "2", "7"], "there is no worker 2 at work; there is worker-0, worker-1"),
        (["set", "algo.actor_lr"], "set takes a key and a value, as in: set algo.actor_lr 1e-4"),
        (["set", "algo.actor_rl", "1"], "did you mean algo.actor_lr?"),
        (["set", "algo.hidden", "1"], "algo.hidden cannot be set while the run goes on"),
        (["set", "algo.actor_lr", "fast"], "algo.actor_lr fast: it must be a float"),
        (["set", "algo.actor_lr", "2"], "--algo.actor-lr 2.0; it must be above 0, below 1"),
        (["set", "unity.time_scale", "5"], "unity.time_scale cannot be set"),
        (["set", "env.mass", "5"], "3DBall has gravity"),
        (["set", "env.gravity", "low"], "it must be key=number"),
        (["set", "fly", "1"], "there is: algo."),
        (["workers", "3"], "as in workers +2 or workers -1"),
        (["workers", "-2"], "there are 2, and 1 must stay"),
        (["workers", "+7"], "room for 4 more beside the 2"),
        (["reset", "1", "12"], "no agent [12]; there are agents 0 to 11"),
    ],
)
def test_what_it_is_told_wrongly_is_refused_and_changes_nothing(
    words: list[str], says: str, job: Run, tell: Tell
) -> None:
    code, told = tell(*words)
    assert code == 1 and says in told
    wait_until(lambda: bool(job.records("command")) and job.records("command")[-1]["words"] == words, "its record")
    record = job.records("command")[-1]
    assert not record["done"] and says in record["what"] and record["updates"] > 0
    assert not status(tell)["paused"]


def test_everybody_is_answered_who_asks_at_the_same_time(job: Run) -> None:
    address = json.loads((job.directory / "control.json").read_text())["address"]
    replies: list[Reply | None] = []
    asking = [threading.Thread(target=lambda: replies.append(ask(address, ["status"]))) for _ in range(8)]
    for each in asking:
        each.start()
    for each in asking:
        each.join(30)
    assert len(replies) == 8 and all(reply is not None and reply.done for reply in replies)


def test_what_cannot_be_kept_is_not_set(job: Run, tell: Tell) -> None:
    config, in_the_way = job.directory / "config.json", job.directory / ".config.json.unfinished"
    before = config.read_bytes()
    in_the_way.mkdir()  # stands for a full disk
    for key, value in (("algo.actor_lr", 3e-5), ("env.gravity", 7)):
        code, told = tell("set", key, value)
        assert code == 1 and str(in_the_way) in told
    in_the_way.rmdir()
    assert config.read_bytes() == before
    assert tell("set", "algo.sigma", 0.3)[0] == 0
    now = json.loads(config.read_text())
    assert now["algo"].pop("sigma") == 0.3, "and nothing else"
    was = json.loads(before)
    del was["algo"]["sigma"]
    assert now == was


def test_an_option_of_the_algorithm_is_set_in_the_middle_of_the_run(job: Run, tell: Tell) -> None:
    assert tell("set", "algo.actor_lr", "5e-4") == (0, "algo.actor_lr = 0.0005\n")
    assert tell("set", "algo.replay_ratio", 16)[0] == 0
    config = json.loads((job.directory / "config.json").read_text())
    assert (config["algo"]["actor_lr"], config["algo"]["replay_ratio"]) == (5e-4, 16)
    before = status(tell)
    wait_until(lambda: status(tell)["updates"] > before["updates"] + 200, "updates at the new ratio")
    figures = status(tell)
    assert figures["replay_ratio"] == 16 and figures["replay_ratio_held"] == pytest.approx(16, rel=0.2)
    assert tell("set", "algo.replay_ratio", 32)[0] == 0


def test_a_parameter_of_the_environment_reaches_every_worker(job: Run, tell: Tell) -> None:
    assert tell("set", "env.gravity", 4) == (0, "env.gravity = 4\n")
    assert json.loads((job.directory / "config.json").read_text())["env_params"] == ["gravity=4"]
    wait_until(
        lambda: any(each["event"] == "obeyed" and each["worker"] == "evaluator" for each in job.records("worker")),
        "the evaluator to obey",
    )


def test_workers_come_and_go_and_nobody_else_pauses(job: Run, tell: Tell) -> None:
    assert tell("workers", "+2") == (0, "start: worker-2, worker-3\n")
    wait_until(lambda: [each["at_work"] for each in status(tell)["workers"]] == [True] * 4, "four at work")
    before = steps_of(tell)
    wait_until(lambda: bool((steps_of(tell) > before + 10).all()), "steps of all")
    assert tell("reset", 3, 7) == (0, "agents [7]: reset\n")
    assert tell("workers", "-2") == (0, "leave: worker-2, worker-3\n")
    assert [each["at_work"] for each in status(tell)["workers"]] == [True, True, False, False]
    wait_until(lambda: len(job.children("envproc.worker")) == 2, "two processes to end")
    decisions = status(tell)["workers"][2]["decisions"]
    # and again, on the same lanes, in their next lives; nothing of what was written is lost
    assert tell("workers", "+1") == (0, "start: worker-2\n")
    wait_until(lambda: status(tell)["workers"][2]["decisions"] > decisions, "steps of the new one")
    assert status(tell)["workers"][2]["epoch"] == 1
    assert tell("workers", "-1")[0] == 0
    assert job.process.poll() is None


def test_it_stops_in_order_and_nobody_can_be_told_any_more(job: Run, tell: Tell) -> None:
    assert tell("stop")[0] == 0
    assert job.wait() == 0, job.stderr
    assert job.summary["reason"] == "stopped" and job.summary["eval_return"] is not None
    assert job.left() == [] and not (job.directory / "control.json").exists()
    code, told = tell("status")
    assert code == 2 and "is going on" in told


@pytest.mark.thorough
def test_in_lock_step_no_checkpoint_is_made_but_those_that_are_scheduled(start: Start) -> None:
    run = start("--mode", "sync", "--steps", 10**9, run="run")
    run.wait_for("progress")
    address = json.loads((run.directory / "control.json").read_text())["address"]
    reply = ask(address, ["snapshot"])
    assert reply is not None and not reply.done and "break" in reply.what
    assert not (run.directory / "checkpoints").exists()


def test_of_a_run_that_was_killed_nobody_waits_for_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "control.json").write_text(json.dumps({"address": "ipc:///nowhere", "pid": 2**22 + 1}))
    for run in ([], ["--run", "run"]):
        assert ctl.main(["status", "--runs-dir", str(tmp_path), *run]) == 2
    assert capsys.readouterr().err.count("is going on") == 2


def test_an_order_with_words_of_another_kind_is_dropped_and_counted() -> None:
    context = zmq.Context()
    with Server() as server:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, b"operator-1")
        socket.connect(server.address)
        for message in (msgspec.msgpack.encode({"type": "Order", "request": 1, "words": "stop"}), b"\x00" * 99):
            socket.send(message)
        socket.send(msgspec.msgpack.encode(Order(1, ["status"])))
        reports: list[Report] = []
        while not reports:
            reports += server.receive()
        assert reports == [Order(1, ["status"], "operator-1")] and server.num_refused == 2
        context.destroy(linger=0)


MODES = [("ddpg", "sync"), ("ddpg", "single"), ("ppo", "sync"), ("ppo", "async"), ("rainbow", "async")]


@pytest.mark.thorough
@pytest.mark.parametrize(("algorithm", "mode"), MODES)
def test_workers_come_and_go_in_every_mode_and_however_rows_are_read(algorithm: str, mode: str, start: Start) -> None:
    env = "gymnasium:CartPole-v1" if algorithm == "rainbow" else "3dball"
    run = start(
        "--mode", mode, "--env", env, "--workers", 2, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0,
        algorithm=algorithm,
    )  # fmt: skip
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
    (job,) = find_running(str(run.directory), run.directory.parent)

    def obey(*words: str) -> str:
        reply = ask(job.address, list(words))
        assert reply is not None and reply.done
        return reply.what

    def goes_on(at_work: list[bool], goal: list[int], updates: int) -> bool:
        figures = json.loads(obey("status"))
        workers = figures["workers"]
        if [each["at_work"] for each in workers] != at_work or figures["updates"] < updates:
            return False
        return all(each["steps"] >= least for each, least in zip(workers, goal, strict=True))

    for order, at_work in (("+2", [True] * 4), ("-3", [True, False, False, False]), ("+1", [True, True, False, False])):
        before = json.loads(obey("status"))
        obey("workers", order)
        goal = [each["steps"] for each in before["workers"]]
        goal = [steps + 20 * works for steps, works in zip_longest(goal, at_work, fillvalue=0)]
        wait_until(partial(goes_on, at_work, goal, before["updates"] + 5), f"everybody to go on after workers {order}")
    obey("stop")
    assert run.wait(60) == 0, run.stderr
    assert run.left() == []
