"""The words that a real worker process obeys, and the ones that mean nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import zmq

from core.control import Client, Evaluate, Ready, Reset, Server, Set, Stats, Stop
from core.ring import FOREVER
from envproc import EnvConfig
from envproc.evaluator import EvaluatorConfig
from tests.process.lane import WORKER, Lane, Stranger
from tests.process.runs import TOYS, wait_until

GARBAGE = {
    "nothing": b"",
    "random bytes": bytes(range(255, -1, -1)),
    "no type": msgspec.msgpack.encode({"request": 1}),
    "unknown type": msgspec.msgpack.encode({"type": "Explode", "request": 1}),
    "a field too few": msgspec.msgpack.encode({"type": "Reset", "request": 1}),
    "a wrong field": msgspec.msgpack.encode({"type": "Reset", "request": "one", "agents": [1]}),
    "cut short": msgspec.msgpack.encode(Reset(1, [1, 2, 3]))[:-1],
    "not unicode": b"\x82\xa4type\xa5Ready\xa6worker\xa2\xff\xfe",
    "a key that is not unicode": b"\x82\xa4type\xa5Pause\xa2\xff\xfe\x01",
    "nested too deeply": b"\x81\xa1a" * 20_000,
}


@pytest.fixture(scope="module")
def littered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """One worker for all of the garbage: it is to outlive it."""
    with Lane(f"{TOYS}:Counting", tmp_path_factory.mktemp("littered")) as lane:
        yield lane


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_sent_to_the_main_process_is_counted_and_changes_nothing(kind: str, littered: Lane) -> None:
    name, refused = f"stranger with {kind}", littered.server.num_refused
    said = Ready(name, 1, 0.0, littered.spec)
    with Stranger(littered.server, name) as stranger:
        stranger.say(GARBAGE[kind])
        stranger.say(msgspec.msgpack.encode(said))  # read after the garbage
        wait_until(lambda: said in littered.hear(), "the stranger's second message")
        assert littered.server.num_refused == refused + 1
        assert [each.worker for each in littered.reports if isinstance(each, Ready)].count(name) == 1


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_sent_to_a_worker_does_not_stop_it(kind: str, littered: Lane) -> None:
    before = len(littered.answers)
    littered.server.socket.send_multipart([WORKER.encode(), GARBAGE[kind]], zmq.NOBLOCK)
    assert littered.ask(Set(before, "env.bonus", 1.0)).request == before
    littered.step(3)
    assert len(littered.answers) == before + 1


def test_a_message_that_is_too_long_never_arrives_and_the_channel_lives(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane, Stranger(lane.server) as stranger:
        before = len(lane.hear())
        stranger.say(msgspec.msgpack.encode(Ready("x" * 100_000, 1, 0.0, lane.spec)))
        assert not lane.server.send(WORKER, Reset(1, list(range(40_000)))), "it would end the connection for good"
        assert lane.ask(Set(2, "env.bonus", 1.0)).request == 2
        assert lane.ask(Set(3, "env.bonus", 0.0)).request == 3
        lane.step(3)
        assert len(lane.hear()) == before + 2


def test_a_workers_next_life_is_heard_while_the_connection_of_its_last_one_is_still_there() -> None:
    """The main process sees that a connection has gone when it reads, and may be long in doing something else."""
    with Server() as server, closing(Client(server.address, WORKER)) as last:
        last.send(Stats(WORKER, {"life": 0.0}))
        wait_until(lambda: server.receive() == [Stats(WORKER, {"life": 0.0})], "the last life")
        with closing(Client(server.address, WORKER)) as after:
            after.send(Stats(WORKER, {"life": 1.0}))
            wait_until(lambda: server.receive() == [Stats(WORKER, {"life": 1.0})], "the next life")
            assert server.send(WORKER, Stop())
            wait_until(lambda: after.receive() == [Stop()], "that it is spoken to")
        assert last.receive() == []


def test_the_channel_opens_where_the_path_of_temporary_files_is_too_long_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("long" * 30)
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.step(3)
        directory = Path(lane.server.address.removeprefix("ipc://")).parent
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists() and list(place.iterdir()) == []


def test_a_worker_that_may_not_go_on_begins_no_step_until_it_may(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.ring.allow(FOREVER)
        wait_until(lambda: lane.steps > 10, "steps")
        lane.ring.allow(0)
        lane.deliver(Set(1, "env.bonus", 0.0))  # answered between two steps: the one under way is over
        steps, turns = lane.steps, lane.turns
        wait_until(lambda: lane.turns > turns + 100, "the heart of a waiting worker to beat")
        assert lane.steps == steps
        lane.ring.allow(FOREVER)
        wait_until(lambda: lane.steps > steps + 10, "steps")


def test_a_parameter_that_was_set_holds_from_the_next_step_on(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.step(3)
        assert lane.ask(Set(1, "env.bonus", 1000.0)).what == "env.bonus = 1000"
        lane.step(3)
        reward = lane.rows()["reward"]
        assert (reward[: 3 * 8] < 1).all() and (reward[3 * 8 :] > 990).all() and len(reward) == 6 * 8


def test_every_request_is_answered_once_and_a_wrong_one_with_the_reason(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        assert lane.ask(Set(1, "env.bonus", 0.5)).done
        for key, says in (("env.bonus", "at least 0"), ("env.malus", "has bonus"), ("unity.time_scale", "no Unity")):
            answer = lane.ask(Set(2, key, -1.0))
            assert not answer.done and key in answer.what and says in answer.what
        assert not lane.ask(Evaluate(3, 24, 1)).done
        lane.step(10)
        assert lane.ask(Set(4, "env.bonus", 0.0)).done
        assert [answer.request for answer in lane.answers] == [1, 2, 2, 2, 3, 4]


def test_an_evaluator_that_is_told_to_stop_while_it_starts_is_not_waited_for_as_if_it_hung(tmp_path: Path) -> None:
    """It has no word in shared memory: it must hear the message, though it cannot yet when that is sent first."""
    with Lane("3dball", tmp_path) as lane:
        config = EvaluatorConfig(
            "evaluator", EnvConfig("3dball", 2), lane.server.address, lane.weights.address, lane.policy
        )
        lane.supervisor.start("evaluator", "envproc.evaluator", config)
        begun = time.monotonic()
        lane.supervisor.stop(grace_s=30, ask=lambda name: lane.server.send(name, Stop()))
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("waiting", [False, True], ids=["at work", "waiting"])
@pytest.mark.parametrize("how", ["message", "word"])
def test_a_worker_that_is_told_to_stop_ends_with_exit_code_0(how: str, waiting: bool, tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        if not waiting:
            lane.ring.allow(FOREVER)
        if how == "message":
            lane.send(Stop())
        else:
            lane.ring.stop()
        assert lane.wait_for_end() == "exit code 0"
