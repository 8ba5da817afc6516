"""Collectors join a run by its address, bring rows, and leave; whatever becomes of them, nobody else notices."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.link import SILENCE_S
from scripts import audit
from tests.process.callers import make_keys
from tests.process.collecting import Listening
from tests.process.runs import TOYS, Start, wait_until

Listen = Callable[..., Listening]
REPLAYS = "--algo.warmup 60 --algo.batch-size 16 --algo.replay-ratio 2 --algo.hidden 16 16"
RECURRENT = "--algo.warmup 60 --algo.batch-size 4 --algo.replay-ratio 4 --algo.lstm 8 --algo.hidden 16"
ORDERED = "--algo.horizon 8 --algo.hidden 16 16"
SLOW = ("--env", f"{TOYS}:Slow", "--algo.replay-ratio", 0)


@pytest.fixture
def listen(start: Start, tmp_path: Path) -> Iterator[Listen]:
    listening: list[Listening] = []

    def listen(*options: object, **more: Any) -> Listening:
        listening.append(Listening(start, tmp_path, *options, **more))
        return listening[-1]

    yield listen
    for each in listening:
        each.end()


def test_a_collector_joins_and_leaves_and_another_is_killed_and_nobody_else_pauses(listen: Listen) -> None:
    """The lane of who left is the next one's, in its next epoch; all of it stands in the records, and they hold."""
    job = listen(*SLOW)
    job.await_event("gate", "ready")
    first = job.join()
    job.await_steps(0, 1)
    assert job.await_event("worker-1", "joins")["detail"] == "bob at 127.0.0.1"
    assert not any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in first.processes())
    first.send(signal.SIGINT)
    code, printed = first.wait()
    assert code == 130 and f"joined {job.address} as worker-1" in printed and "left: interrupted" in printed, printed
    assert job.await_event("worker-1", "leaves")["detail"] == "interrupted there"
    second = job.join(workers=2)
    job.await_steps(0, 1, 2)
    assert [each["epoch"] for each in job.lanes()] == [0, 1, 0]
    second.send(signal.SIGKILL)
    assert "bob at 127.0.0.1 is gone" in job.await_event("worker-1", "failed")["detail"]
    job.await_event("worker-2", "failed")
    second.wait()
    assert [each["at_work"] for each in job.lanes()] == [True, False, False]
    job.await_steps(0)
    last = job.join()
    job.await_steps(0, 1)
    job.stop()
    assert last.wait() == (0, f"joined {job.address} as worker-1\nleft: the run has ended\n")
    assert audit.main([str(job.run.directory)]) == 0


@pytest.mark.thorough
def test_who_has_no_key_is_told_so(listen: Listen, tmp_path: Path) -> None:
    job = listen(*SLOW)
    mallory = make_keys(tmp_path / "other", "mallory") / "for-mallory"
    code, printed = job.join(keys=mallory).wait()  # for another job
    assert code == 2 and "does not know this key, or is another one" in printed, printed
    shutil.copy(job.keys / "server.key", mallory)
    code, printed = job.join(keys=mallory).wait()  # it knows the job's public key, and is right in all else
    assert code == 2 and "does not know this key" in printed, printed
    code, printed = job.join(keys=tmp_path / "none").wait()
    assert code == 2 and f"{tmp_path}/none" in printed, printed
    job.run.wait_for_record(lambda record: record.get("messages_refused", 0) >= 2)
    assert not [each for each in job.run.records("worker") if each["event"] == "joins"]
    job.await_steps(0)
    job.stop()


@pytest.mark.thorough
def test_a_collector_whose_output_nobody_reads_brings_rows_as_any_other(listen: Listen) -> None:
    job = listen(*SLOW)
    process = job.join().process
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    job.await_steps(0, 1)
    job.stop()
    assert process.wait(20) == 0


def stands_still(job: Listening) -> bool:
    before = job.lanes()
    time.sleep(0.1)
    return job.lanes() == before


@pytest.mark.thorough
def test_orders_reach_a_worker_elsewhere(listen: Listen) -> None:
    job = listen("--env", f"{TOYS}:Slow")
    collector = job.join(workers=2)
    job.await_steps(1, 2)
    assert job.order("set", "env.bonus", 3) == "env.bonus = 3"
    assert job.order("reset", 2, 3, 5) == "agents [3, 5]: reset"
    job.order("pause")
    wait_until(lambda: stands_still(job), "nobody to step")
    job.order("resume")
    job.await_steps(1, 2)
    assert job.order("workers", "-1") == "leave: worker-2"
    job.await_steps(0, 1)
    assert job.order("workers", "-1") == "leave: worker-1"
    code, printed = collector.wait()
    assert code == 0 and "left: " in printed, printed
    job.stop()


@pytest.mark.thorough
def test_an_environment_that_differs_is_refused_by_name_of_what_differs(listen: Listen) -> None:
    job = listen("--env", f"{TOYS}:AsWideAs", "--algo.replay-ratio", 0)
    code, printed = job.join(TOY_WIDTH="4").wait()
    assert code == 2 and "observation vector is FieldSpec(shape=(4,)" in printed, printed
    assert "FieldSpec(shape=(3,), dtype='float32', stack=1) in the run" in printed
    assert "observation vector" in job.await_event("worker-1", "failed")["detail"]
    job.await_steps(0)
    job.stop()


@pytest.mark.thorough
def test_one_worker_that_fails_there_is_lost_and_its_neighbour_goes_on(listen: Listen) -> None:
    job = listen(*SLOW)
    collector = job.join(workers=2)
    job.await_steps(1, 2)
    victim = next(each["pid"] for each in job.events("worker-1") if each["event"] == "ready")
    os.kill(victim, signal.SIGKILL)
    assert "killed by signal 9" in job.await_event("worker-1", "failed")["detail"]
    job.await_steps(0, 2)
    job.stop()
    assert collector.wait()[0] == 0


@pytest.mark.thorough
def test_a_collector_that_stood_still_for_a_moment_goes_on_and_one_that_did_for_long_ends(listen: Listen) -> None:
    job = listen(*SLOW)
    collector = job.join()
    job.await_steps(0, 1)
    collector.send(signal.SIGSTOP)
    time.sleep(0.4 * SILENCE_S)
    job.await_steps(0)
    collector.send(signal.SIGCONT)
    job.await_steps(0, 1)
    assert [each["event"] for each in job.events("worker-1")] == ["joins", "ready"]
    collector.send(signal.SIGSTOP)
    assert "nothing was heard from bob" in job.await_event("worker-1", "failed")["detail"]
    job.await_steps(0)
    collector.send(signal.SIGCONT)
    code, printed = collector.wait()
    assert code == 3 and "nothing was heard from bob" in printed, printed
    job.stop()


@pytest.mark.thorough
def test_a_run_that_is_killed_is_missed_by_its_collectors(listen: Listen) -> None:
    job = listen(*SLOW)
    collector = job.join()
    job.await_steps(0, 1)
    job.run.process.kill()
    code, printed = collector.wait()
    assert code == 3 and f"the run at {job.address} has said nothing for" in printed, printed


@pytest.mark.thorough
def test_a_gate_that_is_killed_takes_its_collectors_along_and_another_opens(listen: Listen) -> None:
    job = listen(*SLOW)
    collector = job.join()
    job.await_steps(0, 1)
    (gate,) = job.run.children("envproc.gate")
    os.kill(gate, signal.SIGKILL)
    assert job.await_event("worker-1", "died")["detail"].startswith("the gate is gone")
    assert job.await_event("gate", "restarted")
    job.await_steps(0)
    code, printed = collector.wait()
    assert code == 3, printed
    again = job.join()
    job.await_steps(0, 1)
    job.stop()
    assert again.wait()[0] == 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("apex", f"--env envproc.toys:Masked {REPLAYS}"),
        ("rainbow", f"--env envproc.toys:Catch --frame-stack 3 --algo.conv simple {REPLAYS}"),
        ("r2d2", f"--env envproc.toys:Catch --frame-stack 2 --algo.conv simple {RECURRENT}"),
        ("ppo", f"--env 3dball {ORDERED}"),
        ("vtrace", f"--env envproc.toys:Hybrid {ORDERED} --algo.ahead 1"),
        ("ppo", f"--env envproc.toys:Catch --frame-stack 2 --algo.conv simple --algo.share {ORDERED}"),
    ],
)
def test_every_kind_of_rows_comes_over_the_link(algorithm: str, options: str, listen: Listen) -> None:
    """And its worker acts with the policy of this moment, or of one shortly before."""
    job = listen(*options.split(), algorithm=algorithm)
    collector = job.join()
    job.await_steps(0, 1, more=200)
    before = job.run.records("progress")[-1]["updates"]
    job.run.wait_for_record(lambda record: record.get("updates", 0) > before + 5 and record.get("workers") == 2)
    assert all(each["messages_refused"] == 0 for each in job.run.records("progress"))
    collector.send(signal.SIGKILL)
    job.await_event("worker-1", "failed")
    job.await_steps(0, more=50)
    job.stop()


@pytest.mark.thorough
def test_a_run_that_goes_on_later_has_the_rows_and_not_the_workers_of_its_collectors(
    listen: Listen, start: Start
) -> None:
    job = listen(*SLOW)
    job.join()
    job.await_steps(0, 1)
    job.stop()
    steps = job.run.summary["agent_steps"]
    run = start("--steps", steps + 1000, "--eval-every", 10**8, run=job.run.directory.name, resume=True)
    assert run.wait() == 0, run.stderr
    session = audit.sessions(run.records())[-1]
    started = {each["worker"] for each in session if each["kind"] == "worker" and each["event"] == "started"}
    assert started == {"worker-0", "gate", "evaluator"} and run.summary["agent_steps"] >= steps + 1000


@pytest.mark.thorough
def test_a_gate_that_hangs_is_killed_and_nobody_waits_for_its_collectors(listen: Listen) -> None:
    """Here the learner does: it needs every worker's rows."""
    job = listen("--env", f"{TOYS}:Slow", *ORDERED.split(), "--hang-s", 8, algorithm="ppo")
    collector = job.join()
    job.await_steps(0, 1)
    (gate,) = job.run.children("envproc.gate")
    os.kill(gate, signal.SIGSTOP)
    assert "in 8 s" in job.await_event("gate", "hangs")["detail"]
    job.await_event("gate", "restarted")
    before = job.run.records("progress")[-1]["updates"]
    job.run.wait_for_record(lambda record: record.get("updates", 0) > before + 5)
    assert collector.wait()[0] == 3
    again = job.join()
    job.await_steps(0, 1)
    job.stop()
    assert again.wait()[0] == 0
