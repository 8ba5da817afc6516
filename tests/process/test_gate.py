"""The gate by itself: who comes in, what may be said there, and what becomes of whoever says anything else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from core.control import Failed, Ready, Set, Stats
from core.joining import GATE, Admitted, Expel, Joins, Left
from core.link import (
    MOST_WORKERS,
    PROTOCOL,
    Batch,
    Beat,
    Bye,
    Go,
    Gone,
    Got,
    Join,
    Parameters,
    Said,
    Told,
    Welcome,
    pack,
)
from core.net import num_parameters
from core.outlet import COUNTERS
from core.ring import Word
from core.types import Recording
from envproc.collector import Collector, Ended
from tests.process.callers import make_keys
from tests.process.gate_house import POLICY, SPEC, Caller, House
from tests.process.runs import free_port, wait_until

Call = Callable[..., Caller]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, Recording())
    yield house
    house.close()


@pytest.fixture
def call(house: House) -> Iterator[Call]:
    callers: list[Caller] = []

    def call(keys: Path | None = None) -> Caller:
        callers.append(Caller(house, keys))
        return callers[-1]

    yield call
    for each in callers:
        each.close()


def let_in(house: House, caller: Caller, lane: int, begin: bool = True) -> Welcome:
    """As the main process does with a collector of one worker."""
    before = sum(isinstance(each, Joins) for each in house.hear())
    caller.say(Join(PROTOCOL, 1))
    joins = house.await_report(Joins, before + 1)
    assert joins.who == "bob at 127.0.0.1" and joins.workers == 1
    assert house.server.send(GATE, Admitted(joins.collector, [lane], "its configuration"))
    welcome: Welcome = caller.hear(Welcome)
    assert [post.lane for post in welcome.posts] == [lane] and welcome.config == "its configuration"
    if begin:
        ready = Ready(f"worker-{lane}", before, 0.1, SPEC)
        caller.say(Said(lane, ready))
        wait_until(lambda: ready in house.hear(), "the worker to be ready")
        assert house.server.send(f"worker-{lane}", house.begin)
        assert caller.hear(Told).command == house.begin
    return welcome


def rows_of(house: House, count: int, first: int = 0, epoch: int = 0) -> bytes:
    rows = np.zeros(count, house.ring.layout)
    rows["index"], rows["epoch"] = np.arange(first, first + count), epoch
    rows["reward"] = rows["index"]
    return rows.tobytes()


def test_rows_come_in_and_allowed_and_orders_go_out(house: House, call: Call) -> None:
    caller = call(house.keys / "for-bob")
    let_in(house, caller, 1)
    house.ring.allow(100)
    wait_until(lambda: caller.hear(Go).allowed == 100, "a word about what is allowed")
    words = [4, 1, 7] + [0] * (len(COUNTERS) - 3)
    caller.say(Batch(1, 0, 3, 0, 0, words), rows_of(house, 3))
    assert caller.hear(Go) == Go(1, 100, 3)
    lane = house.ring.words[1]
    assert [lane[each] for each in (Word.PUBLISHED, Word.DECISIONS, Word.STEPS, Word.ALIVE)] == [3, 4, 1, 7]
    assert house.ring.rows[1]["reward"][:3].tolist() == [0, 1, 2]
    house.server.send("worker-1", Set(5, "env.bonus", 2))
    assert caller.hear(Told) == Told(1, Set(5, "env.bonus", 2))
    caller.say(Gone(1, "bored"))
    assert house.await_report(Left) == Left("worker-1", "bored")
    assert caller.hear(Bye).in_order and house.num_turned_away() == 0
    wait_until(lambda: not house.server.send("worker-1", Set(6, "env.bonus", 2)), "it to be gone")
    let_in(house, other := call(house.keys / "for-bob"), 1)
    other.say(Batch(1, 3, 1, 0, 0, []), rows_of(house, 1, first=3, epoch=1))
    wait_until(lambda: lane[Word.PUBLISHED] == 4, "the next writer's row")


def test_weights_go_out_in_pieces_and_a_newer_version_when_the_last_one_has_arrived(house: House, call: Call) -> None:
    size = num_parameters(POLICY.net)
    assert 4 * size > 2**18, "several pieces"
    for version in (1, 2):
        house.weights.publish(np.full(size, version, np.float32), 10 * version)
    caller = call(house.keys / "for-bob")
    let_in(house, caller, 1, begin=False)
    pieces = [caller.hear(Parameters), caller.hear(Parameters)]
    assert [each.offset for each in pieces] == [0, 2**18] and {(each.version, each.update) for each in pieces} == {
        (2, 20)
    }
    house.weights.publish(np.full(size, 3, np.float32), 30)
    caller.hear(Beat)
    caller.hear(Beat)
    assert sum(isinstance(each, Parameters) for each in caller.heard) == 2
    caller.say(Got(2))
    assert caller.hear(Parameters).version == 3


def test_who_is_not_known_is_refused_and_counted(house: House, call: Call, tmp_path: Path) -> None:
    mallory = make_keys(tmp_path / "other", "mallory") / "for-mallory"
    for number, keys in enumerate((None, mallory, shutil.copytree(mallory, tmp_path / "knows"))):
        if keys is not None and keys.name == "knows":  # the job's public key, and has one of its own that is not listed
            shutil.copy(house.keys / "server.key", keys)
        caller = call(keys)
        caller.say(Join(PROTOCOL, 1))
        wait_until(lambda: house.num_turned_away() > number, f"refusal {number}", 10)  # noqa: B023 - called at once
        caller.close()
    assert not [each for each in house.hear() if isinstance(each, Joins)]
    let_in(house, call(house.keys / "for-bob"), 1)


@pytest.mark.parametrize(
    "parts",
    [
        [b"nothing"],
        [b""],
        [b"", b"", b""],
        [b"\x80" * 70_000],
        pack(Join(PROTOCOL + 1, 1)),
        pack(Join(PROTOCOL, 0)),
        pack(Join(PROTOCOL, MOST_WORKERS + 1)),
        pack(Go(1, 1, 1)),
    ],
    ids=lambda parts: str(parts)[:24],
)
def test_who_does_not_ask_to_join_is_turned_away(parts: list[bytes], house: House, call: Call) -> None:
    caller = call(house.keys / "for-bob")
    caller.socket.send_multipart(parts)
    assert not caller.hear(Bye).in_order
    wait_until(lambda: house.num_turned_away() == 1, "it to be counted", 10)


@pytest.mark.parametrize(
    "parts",
    [
        [b"nothing"],
        pack(Join(PROTOCOL, 1)),
        pack(Got(7)),
        pack(Gone(2, "the other one, too")),
        pack(Said(2, Stats("worker-2", {}))),
        pack(Said(1, Stats("worker-2", {}))),
        pack(Said(1, Failed("evaluator", "no", ""))),
        pack(Said(1, Failed(GATE, "no", ""))),
        pack(Said(1, Ready("worker-1", 1, 0.1, SPEC))),
        pack(Said(1, Stats("worker-1", {"x" * 70_000: 1.0}))),
        pack(Batch(2, 0, 0, 0, 0, []), b""),
        pack(Batch(1, 0, 1, 0, 0, []), b"\xff" * 64),
        pack(Batch(1, 0, 0, 0, 0, [5] * len(COUNTERS)), b""),
        pack(Batch(1, 0, 0, 0, 0, []), b"", b""),
        pack(Batch(1, 2**63, 0, 0, 0, []), b""),
    ],
    ids=lambda parts: str(parts)[:40],
)
def test_who_says_what_is_not_his_to_say_is_lost_and_nobody_else_is(
    parts: list[bytes], house: House, call: Call
) -> None:
    caller, other = call(house.keys / "for-bob"), call(house.keys / "for-bob")
    let_in(house, caller, 1)
    let_in(house, other, 2)
    caller.socket.send_multipart(parts)
    assert not caller.hear(Bye).in_order
    assert house.await_report(Failed).worker == "worker-1"
    wait_until(lambda: house.num_turned_away() == 1, "it to be counted", 10)
    other.say(Batch(2, 0, 1, 0, 0, []), rows_of(house, 1))
    wait_until(lambda: house.ring.words[2, Word.PUBLISHED] == 1, "the other one's row")
    assert house.ring.words[1, Word.PUBLISHED] == 0


def test_who_is_silent_is_lost_and_who_speaks_again_is_told_so(
    house: House, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envproc.gate.SILENCE_S", 0.2)
    caller = call(house.keys / "for-bob")
    let_in(house, caller, 1, begin=False)
    assert house.await_report(Failed).error.startswith("nothing was heard from bob at 127.0.0.1 for 0.2")
    assert "nothing was heard" in caller.hear(Bye).why
    caller.say(Beat())
    assert "not joined" in caller.hear(Bye).why and house.num_turned_away() == 0


def test_who_is_expelled_is_lost_and_told_to_stop(house: House, call: Call) -> None:
    caller = call(house.keys / "for-bob")
    let_in(house, caller, 1)
    house.server.send(GATE, Expel(1))
    assert house.await_report(Failed).worker == "worker-1"
    assert caller.hear(Told).lane == 1 and not caller.hear(Bye).in_order


def test_who_finds_no_room_is_told_so(house: House, call: Call) -> None:
    caller = call(house.keys / "for-bob")
    caller.say(Join(PROTOCOL, 9))
    assert house.server.send(GATE, Admitted(house.await_report(Joins).collector, [], "there is room for 3"))
    assert caller.hear(Bye) == Bye("there is room for 3", False)
    let_in(house, caller, 1)


@pytest.mark.thorough
def test_a_collector_that_nobody_answers_says_so(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envproc.collector._JOIN_S", 0.3)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(Ended, match=f"nobody answers at {address}"):
        Collector(address, house.keys / "for-bob", 1, interrupted=lambda: False)
    mallory = make_keys(tmp_path / "other", "mallory") / "for-mallory"
    with pytest.raises(ValueError, match="'somewhere' is no address, as tcp://HOST:PORT is"):
        Collector("somewhere", house.keys / "for-bob", 1, interrupted=lambda: False)
    with pytest.raises(Ended, match="does not know this key, or is another one"):
        Collector(house.address, mallory, 1, interrupted=lambda: False)


def test_a_lane_that_was_given_to_somebody_who_has_gone_is_told_to_be_lost(house: House) -> None:
    wait_until(lambda: house.server.send(GATE, Admitted("00ff", [1], "for nobody")), "the gate to hear")
    assert house.await_report(Failed) == Failed("worker-1", "it was gone before it was let in", "")


def test_where_rows_are_read_in_order_nobody_goes_on_before_he_has_the_newest_policy(tmp_path: Path) -> None:
    house = House(tmp_path, Recording(ordered=True))
    caller = Caller(house, house.keys / "for-bob")
    try:
        size = num_parameters(POLICY.net)
        house.weights.publish(np.zeros(size, np.float32), 0)
        let_in(house, caller, 1)
        house.ring.allow(10)
        assert caller.hear(Go).allowed == 10
        house.weights.publish(np.ones(size, np.float32), 1)
        house.ring.allow(20)
        caller.hear(Beat)
        assert not [each for each in caller.heard if isinstance(each, Go) and each.allowed == 20], "1 has not arrived"
        caller.say(Got(1))
        assert caller.hear(Go).allowed == 20
        newest = max(place for place, each in enumerate(caller.heard) if isinstance(each, Parameters))
        assert isinstance(caller.heard[newest], Parameters) and newest < len(caller.heard) - 1
    finally:
        caller.close()
        house.close()
