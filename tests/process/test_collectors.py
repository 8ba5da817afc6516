"""Collectors join a run by its address, bring rows, and leave; whatever becomes of them, nobody else notices."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from core.admission import use_keys
from core.control import Failed, Ready, Stats
from core.link import PROTOCOL, SILENCE_S, Batch, Bye, Gone, Got, Join, Said, ToCollector, Welcome, pack
from core.types import ActionSpec, EnvSpec
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
    first = job.join()
    job.await_steps(0, 1)
    assert job.await_event("worker-1", "joins")["detail"] == "bob at 127.0.0.1"
    assert not any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in first.processes())
    first.send(signal.SIGINT)
    code, printed = first.wait()
    assert code == 130 and f"joined {job.address} as worker-1" in printed and "left: interrupted" in printed
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


def test_who_has_no_key_or_another_one_is_refused_and_counted(listen: Listen, tmp_path: Path) -> None:
    job = listen(*SLOW)
    mallory = make_keys(tmp_path / "other", "mallory") / "for-mallory"
    code, printed = job.join(keys=mallory).wait()  # for another job
    assert code == 2 and "does not know this key, or is another one" in printed
    shutil.copy(job.keys / "server.key", mallory)
    code, printed = job.join(keys=mallory).wait()  # it knows the job's public key, and is right in all else
    assert code == 2 and "does not know this key" in printed
    code, printed = job.join(keys=tmp_path / "none").wait()
    assert code == 2 and "none" in printed
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(job.address)
    socket.send_multipart(pack(Join(PROTOCOL, 1)))
    job.run.wait_for_record(lambda record: record.get("messages_refused", 0) >= 3)
    context.destroy(linger=0)
    assert not [each for each in job.run.records("worker") if each["event"] == "joins"]
    job.await_steps(0)
    job.stop()


class Stranger:
    """Somebody with a key, who says what he likes."""

    def __init__(self, job: Listening) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        use_keys(self.socket, job.keys / "for-bob")
        self.socket.connect(job.address)
        self._decoder = msgspec.msgpack.Decoder(ToCollector)

    def say(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def hear(self, kind: type) -> Any:
        """The next one of this kind."""
        while True:
            assert self.socket.poll(10_000), f"no {kind.__name__}"
            message = self._decoder.decode(self.socket.recv_multipart()[0])
            if isinstance(message, kind):
                return message

    def close(self) -> None:
        self._context.destroy(linger=0)


SPEC = EnvSpec({}, ActionSpec(), 8)


def test_whoever_says_what_no_collector_would_is_turned_away_and_the_run_goes_on(listen: Listen) -> None:
    job = listen(*SLOW)
    collector = job.join()
    job.await_steps(0, 1)
    before_joining = [
        [b"nothing"], [b""], [b"", b"", b""], pack(Join(PROTOCOL + 1, 1)), pack(Join(PROTOCOL, 0)),
        pack(Join(PROTOCOL, 10**6)), [b"\xc1" * 70_000],
    ]  # fmt: skip
    # it has lane 2 then, and lane 1 is the collector's
    after_it = [
        pack(Join(PROTOCOL, 1)), pack(Got(10**6)), pack(Gone(1, "me too")), pack(Said(1, Stats("worker-1", {}))),
        pack(Said(2, Stats("worker-1", {}))), pack(Said(2, Failed("evaluator", "no", ""))),
        pack(Batch(2, 0, 0, 0, 0, []), b""), pack(Batch(1, 0, 0, 0, 0, []), b""), [b"\x00" * 10],
    ]  # fmt: skip
    for welcome, messages in ((False, before_joining), (True, after_it)):
        for parts in messages:
            stranger = Stranger(job)
            if welcome:
                stranger.say(*pack(Join(PROTOCOL, 1)))
                assert [post.lane for post in stranger.hear(Welcome).posts] == [2]
            stranger.say(*parts)
            assert not stranger.hear(Bye).in_order
            stranger.close()
            if welcome:
                wait_until(lambda: len(job.lanes()) < 3 or not job.lanes()[2]["at_work"], "the lane to be free")
    count = len(before_joining) + len(after_it)
    job.run.wait_for_record(lambda record: record.get("messages_refused", 0) >= count)
    job.await_steps(0, 1)
    job.stop()
    assert collector.wait()[0] == 0


def test_rows_that_cannot_be_end_their_collector_and_reach_nobody(listen: Listen) -> None:
    job = listen(*SLOW)
    stranger = Stranger(job)
    stranger.say(*pack(Join(PROTOCOL, 1)))
    welcome = stranger.hear(Welcome)
    stranger.say(*pack(Said(1, Ready("worker-1", 1, 0.1, welcome.spec))))
    wait_until(lambda: len(job.lanes()) > 1 and job.lanes()[1]["at_work"], "the stranger to be at work")
    stranger.say(*pack(Batch(1, 0, 1, 0, 0, []), b"\xff" * 64))
    assert "bytes for 1 rows" in stranger.hear(Bye).why
    assert "bytes for 1 rows" in job.await_event("worker-1", "failed")["detail"]
    stranger.close()
    job.await_steps(0)
    assert job.lanes()[1]["steps"] == 0
    job.stop()


def test_orders_reach_a_worker_elsewhere(listen: Listen) -> None:
    job = listen("--env", f"{TOYS}:Slow")
    collector = job.join(workers=2)
    job.await_steps(1, 2)
    assert job.order("set", "env.bonus", 3) == "env.bonus = 3"
    assert job.order("reset", 2, 3, 5) == "agents [3, 5]: reset"
    job.order("pause")
    wait_until(lambda: job.lanes() == (time.sleep(0.1), job.lanes())[1], "nobody to step")
    job.order("resume")
    job.await_steps(1, 2)
    assert job.order("workers", "-1") == "leave: worker-2"
    job.await_steps(0, 1)
    assert job.order("workers", "-1") == "leave: worker-1"
    code, printed = collector.wait()
    assert code == 0 and "left: " in printed, printed
    job.stop()


def test_an_environment_that_differs_is_refused_by_name_of_what_differs(listen: Listen) -> None:
    job = listen("--env", f"{TOYS}:AsWideAs", "--algo.replay-ratio", 0)
    code, printed = job.join(TOY_WIDTH="4").wait()
    assert code == 2 and "observation vector is FieldSpec(shape=(4,)" in printed
    assert "FieldSpec(shape=(3,), dtype='float32', stack=1) in the run" in printed
    assert "observation vector" in job.await_event("worker-1", "failed")["detail"]
    job.await_steps(0)
    job.stop()


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
    assert code == 3 and "nothing was heard from bob" in printed
    job.stop()


@pytest.mark.thorough
def test_a_run_that_is_killed_is_missed_by_its_collectors(listen: Listen) -> None:
    job = listen(*SLOW)
    collector = job.join()
    job.await_steps(0, 1)
    job.run.process.kill()
    code, printed = collector.wait()
    assert code == 3 and f"the run at {job.address} has said nothing for" in printed


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
