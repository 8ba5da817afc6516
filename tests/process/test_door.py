"""Who comes in at the operators' door, and who does not: with a token, with keys, and with neither."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from core.control import Answer, Command, Episodes, Evaluated, Failed, Order, Ready, Reply, Report, Server, Stats, Stop
from core.door import Door
from core.types import ActionSpec, EnvSpec
from scripts.command_line import UsageError
from scripts.running import ask
from tests.process.callers import Caller, Operator, attended, heard_by, make_keys
from tests.process.runs import free_port, wait_until

REPORTS: list[Report] = [
    Ready("worker-0", 1, 0.1, EnvSpec({}, ActionSpec(), 8)),
    Episodes("worker-0", []),
    Failed("worker-0", "no", "nothing"),
    Stats("worker-0", {"speed": 1.0}),
    Answer("worker-0", 1, True, "done"),
    Evaluated("worker-0", 1, 1, [1.0], [1]),
]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Of a job and of its operator alice."""
    return make_keys(tmp_path / "keys", "alice")


@pytest.fixture
def by_token() -> Iterator[Door]:
    with Door("tcp://localhost:*") as door:
        yield door


@pytest.fixture
def by_key(keys: Path) -> Iterator[Door]:
    with Door("tcp://127.0.0.1:*", keys) as door:
        yield door


def test_who_has_the_token_is_answered(by_token: Door) -> None:
    with attended(by_token) as told:
        reply = ask(by_token.address, ["reset", "0", "7"], by_token.token)
        assert reply is not None and reply.done and reply.what == "reset 0 7"
        assert [order.words for order in told] == [["reset", "0", "7"]] and by_token.num_refused == 0


def test_who_has_a_key_on_the_list_is_answered(by_key: Door, keys: Path) -> None:
    with attended(by_key) as told:
        reply = ask(by_key.address, ["status"], keys=keys / "for-alice")
        assert reply is not None and reply.done
        assert [order.words for order in told] == [["status"]] and by_key.num_refused == 0


def refuses(door: Door, call: Callable[[], object]) -> None:
    """It is told so, it is counted, and no order comes in."""
    with attended(door) as told:
        with pytest.raises(UsageError, match="does not know this token or key"):
            call()
        wait_until(lambda: door.num_refused > 0, "the refusal to be counted")
        assert told == []


@pytest.mark.parametrize("token", ["", "x", "\u20ac", "wrong" * 50], ids=["none", "short", "not ASCII", "long"])
def test_who_does_not_have_the_token_is_refused_and_counted(token: str, by_token: Door) -> None:
    refuses(by_token, lambda: ask(by_token.address, ["stop"], token))
    with attended(by_token):
        assert ask(by_token.address, ["status"], by_token.token) is not None, "the door is open for others"


def test_a_key_is_no_token(by_token: Door, keys: Path) -> None:
    refuses(by_token, lambda: ask(by_token.address, ["stop"], keys=keys / "for-alice"))


def test_a_key_that_is_not_on_the_list_is_refused_and_counted(by_key: Door, keys: Path, tmp_path: Path) -> None:
    """It knows the job's public key, and is right in all else."""
    mallory = make_keys(tmp_path / "other", "mallory") / "for-mallory"
    shutil.copy(keys / "server.key", mallory)
    refuses(by_key, lambda: ask(by_key.address, ["stop"], keys=mallory))
    with attended(by_key):
        assert ask(by_key.address, ["status"], keys=keys / "for-alice") is not None, "the door is open for others"


def test_a_public_key_without_its_secret_one_is_refused_and_counted(by_key: Door, keys: Path, tmp_path: Path) -> None:
    mallory = make_keys(tmp_path / "other", "mallory") / "for-mallory"
    alices, own = (place / "client.key_secret" for place in (keys / "for-alice", mallory))
    public, secret = (file.read_text().splitlines() for file in (alices, own))
    mixed = [p if "public" in p else s for p, s in zip(public, secret, strict=True)]
    own.write_text("\n".join(mixed))
    shutil.copy(keys / "server.key", mallory)
    refuses(by_key, lambda: ask(by_key.address, ["stop"], keys=mallory))


@pytest.mark.parametrize("token", ["", "a token"], ids=["nothing", "a token"])
def test_where_keys_are_asked_for_nothing_else_will_do(token: str, by_key: Door) -> None:
    refuses(by_key, lambda: ask(by_key.address, ["stop"], token))


def test_an_operator_sees_when_the_job_is_another_one_than_its_key_says(
    by_key: Door, keys: Path, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other")
    shutil.copy(other / "server.key", keys / "for-alice")
    refuses(by_key, lambda: ask(by_key.address, ["stop"], keys=keys / "for-alice"))


def test_one_key_is_not_taken_for_another_jobs_list(by_key: Door, keys: Path, tmp_path: Path) -> None:
    """A list has nothing but the keys in its own directory."""
    make_keys(keys, "bob")
    refuses(by_key, lambda: ask(by_key.address, ["stop"], keys=keys / "for-bob"))
    with Door("tcp://127.0.0.1:*", keys) as again, attended(again):
        assert ask(again.address, ["status"], keys=keys / "for-bob") is not None, "from the next start on"


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_at_the_door_nobody_can_pass_for_a_worker(report: Report, by_token: Door) -> None:
    with Server(by_token) as server, Caller(by_token.address, "worker-0", by_token.token) as caller:
        caller.say(msgspec.msgpack.encode(report))
        caller.say(msgspec.msgpack.encode(Order(1, ["status"])))
        (order,) = heard_by(server)
        assert isinstance(order, Order) and server.num_refused == by_token.num_refused == 1
        assert not server.send("worker-0", Stop()), "what is meant for a worker goes to no operator"
        assert server.send(order.client, Reply(1, True, "fine"))
        assert msgspec.msgpack.decode(caller.socket.recv(), type=Command) == Reply(1, True, "fine")


@pytest.mark.parametrize(
    ("sender", "report"),
    [
        ("worker-0", Order(1, ["stop"])),
        ("evaluator", Order(1, ["stop"])),
        ("", Order(1, ["stop"])),
        ("door-00", Order(1, ["stop"])),
        *(("operator-1", msgspec.structs.replace(report, worker="operator-1")) for report in REPORTS),
        *((sender, report) for report in REPORTS for sender in ("worker-1", "operator-1", "")),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_nobody_says_what_is_anothers_to_say(sender: str, report: Report) -> None:
    with Server() as server, Caller(server.address, sender) as caller, Caller(server.address, "worker-9") as last:
        caller.say(msgspec.msgpack.encode(report))
        wait_until(lambda: server.receive() == [] and server.num_refused == 1, "the refusal")
        last.say(msgspec.msgpack.encode(Stats("worker-9", {})))
        assert heard_by(server) == [Stats("worker-9", {})]


def test_a_message_of_several_parts_is_none(by_token: Door) -> None:
    good = msgspec.msgpack.encode(Order(1, ["status"]))
    with Server(by_token) as server:
        for address, token in ((server.address, ""), (by_token.address, by_token.token)):
            before = server.num_refused
            with Caller(address, "operator-1", token) as caller:
                caller.say(b"", good)
                caller.say(good, good)
                caller.say(good)
                assert len(heard_by(server)) == 1 and server.num_refused == before + 2


def test_a_message_that_is_too_long_ends_its_connection_and_no_other(by_token: Door) -> None:
    with Server(by_token) as server:
        for address, token in ((server.address, ""), (by_token.address, by_token.token)):
            with Caller(address, "operator-1", token) as caller, Operator(address, token) as other:
                ended = caller.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                caller.say(msgspec.msgpack.encode(Order(1, ["x" * 70_000])))
                heard: list[Report] = []
                while not ended.poll(1):
                    heard += server.receive()
                assert heard == []
                other.order("status")
                assert len(heard_by(server)) == 1


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda keys: (keys / "server.key_secret").chmod(0o640), "others can read"),
        (lambda keys: (keys / "server.key_secret").unlink(), "has no key"),
        (lambda keys: shutil.copy(keys / "server.key", keys / "server.key_secret"), "there is no secret key in"),
        (lambda keys: (keys / "clients" / "alice.key").unlink(), "nobody could come in"),
        (lambda keys: (keys / "clients" / "bob.key").write_text("nothing"), "there is no key in"),
        (lambda keys: (keys / "clients" / "bob.key").write_text('public-key = "\u20ac"'), "there is no key in"),
    ],
)
def test_without_sound_keys_the_door_stays_shut(spoil: Callable[[Path], object], says: str, keys: Path) -> None:
    spoil(keys)
    with pytest.raises(ValueError, match=f"^--control-keys.*{says}"):
        Door("tcp://127.0.0.1:*", keys)


def test_an_address_that_another_has_is_refused() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with Door(address) as door:
        assert door.address == address
        with pytest.raises(ValueError, match=f"^--control {address} cannot be opened: Address already in use"):
            Door(address)
    Door(address).close()
