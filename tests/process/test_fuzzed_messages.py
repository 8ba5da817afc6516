"""Whatever bytes come in: no exception, what is no message is counted, memory stays flat."""

from __future__ import annotations

import gc
import random
import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.acting import PolicySpec
from core.control import (
    Answer,
    Begin,
    Client,
    Command,
    Episode,
    Episodes,
    Evaluate,
    Evaluated,
    Failed,
    Order,
    Ready,
    Renew,
    Reply,
    Report,
    Reset,
    Server,
    Set,
    Stats,
    Stop,
)
from core.door import Door
from core.net import NetSpec
from core.ring import RingAddress
from core.types import ActionSpec, EnvSpec, FieldSpec, Recording
from tests.process.callers import Caller, heard_by
from tests.process.runs import wait_until
from tests.stress.figures import tell

WORKER = "worker-0"
POLICY = PolicySpec(NetSpec({"vector": (8,)}, (64,), 2), "tanh")
MESSAGES: list[Report | Command] = [
    Ready(WORKER, 1, 0.5, EnvSpec({"vector": FieldSpec((8,))}, ActionSpec((-1.0,), (1.0,)), 12)),
    Episodes(WORKER, [Episode(3, 1.5, 7, "terminated"), Episode(4, -2.0, 9, "reset")]),
    Failed(WORKER, "ValueError: no", "Traceback", "give another"),
    Stats(WORKER, {"speed": 1.5}),
    Answer(WORKER, 7, True, "agents [3]: reset"),
    Evaluated(WORKER, 7, 100, [1.0, 2.0], [3, 4]),
    Order(7, ["reset", "0", "3"]),
    Begin(RingAddress("/dev/shm/x", 1, 1000, Recording()), "/dev/shm/y", POLICY),
    Reset(7, [1, 2, 3]),
    Renew(7, 2),
    Set(7, "env.mass", 0.5),
    Evaluate(7, 24, 3),
    Reply(7, False, "there is no command"),
    Stop(),
]
WHOLE = list(map(msgspec.msgpack.encode, MESSAGES))


def mutated(whole: bytes, random: random.Random) -> bytes:
    """With some bytes changed, doubled, left out or put in."""
    message = bytearray(whole)
    for _ in range(random.randrange(4)):
        at, length = random.randrange(len(message) + 1), random.randrange(1, 9)
        match random.randrange(4):
            case 0:
                message[at : at + 1] = random.randbytes(1)
            case 1:
                message[at:at] = message[at : at + length]
            case 2:
                del message[at : at + length]
            case _:
                message[at:at] = random.randbytes(length)
    return bytes(message)


anything = st.binary(max_size=500) | st.builds(mutated, st.sampled_from(WHOLE), st.randoms(use_true_random=False))
batches = st.lists(anything, max_size=20)


class Wire(NamedTuple):
    """One way in."""

    say: Callable[[bytes], None]
    receive: Callable[[], Sequence[Report | Command]]
    refused: Callable[[], int]
    last: Callable[[int], Answer | Order | Renew]
    """a whole message with this number"""
    right: Callable[[Report | Command], bool]
    """whether it may come in there at all"""
    at: tuple[str, int] = ("", 0)
    """address and port, if it has one"""


@pytest.fixture(scope="module")
def wires() -> Iterator[dict[str, Wire]]:
    """A worker's and an operator's to the main process, the main process's to a worker, an operator's to the door."""
    with Door("tcp://localhost:*") as door, Server() as server, closing(Client(server.address, WORKER)) as client:
        client.send(Answer(WORKER, 0, True, "here"))
        heard_by(server)

        def as_worker(message: bytes) -> None:
            client.socket.send(message)

        def as_main(message: bytes) -> None:
            server.socket.send_multipart([WORKER.encode(), message])

        def order(number: int) -> Order:
            return Order(number, ["status"])

        def is_order(each: Report | Command) -> bool:
            return isinstance(each, Order)

        with (
            Caller(server.address, "operator-1") as operator,
            Caller(door.address, "operator-1", door.token) as far,
        ):
            place = "127.0.0.1", int(door.address.rpartition(":")[2])
            yield {
                "from a worker": Wire(
                    as_worker,
                    server.receive,
                    lambda: server.num_refused,
                    lambda number: Answer(WORKER, number, True, "last"),
                    lambda each: not isinstance(each, Order | Command) and each.worker == WORKER,
                ),
                "from an operator": Wire(operator.say, server.receive, lambda: server.num_refused, order, is_order),
                "to a worker": Wire(
                    as_main,
                    client.receive,
                    lambda: client.num_refused,
                    lambda number: Renew(number, 1),
                    lambda each: isinstance(each, Command),
                ),
                "at the door": Wire(far.say, door.receive, lambda: door.num_refused, order, is_order, place),
            }


WAYS = ["from a worker", "from an operator", "to a worker", "at the door"]


def send(wire: Wire, batch: list[bytes], number: int) -> int:
    """All of it; returns how many were taken for messages. AssertionError if one came in that may not, or one was
    neither taken nor counted."""
    before = wire.refused()
    for message in batch:
        wire.say(message)
    wire.say(msgspec.msgpack.encode(wire.last(number)))
    heard: list[Report | Command] = []

    def over() -> bool:
        heard.extend(wire.receive())
        return len(heard) + wire.refused() - before == len(batch) + 1

    wait_until(over, f"the last of {len(batch)} messages")
    *taken, last = heard
    assert isinstance(last, Answer | Order | Renew) and last.request == number
    assert all(map(wire.right, taken))
    return len(taken)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100, deadline=None)
@given(batch=batches, number=st.integers(1, 2**62))
def test_whatever_bytes_come_are_a_message_that_may_come_or_are_counted(
    way: str, batch: list[bytes], number: int, wires: dict[str, Wire]
) -> None:
    send(wires[way], batch, number)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_after_twenty_thousand_messages_memory_is_as_before(way: str, wires: dict[str, Wire]) -> None:
    count, batch, generator, began = 20_000, 100, random.Random(1), time.monotonic()
    taken = before = 0
    for sent in range(0, count + 2000, batch):
        if sent == 2000:  # all buffers are there
            before = resident()
        wrong = [mutated(generator.choice(WHOLE), generator) for _ in range(batch)]
        taken += send(wires[way], wrong, number=sent + 1)
    grown = resident() - before
    refused, broken, mib = count + 2000 - taken, int(grown > 4 * 2**20), round(grown / 2**20, 2)
    tell(f"F3 messages {way}", began, faults=refused, violations=broken, figure=mib, unit="MiB grown")
    assert grown < 4 * 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(st.binary(max_size=300), max_size=5), number=st.integers(1, 2**62))
def test_bytes_that_are_not_even_the_protocols_of_sockets_come_in_nowhere(
    batch: list[bytes], number: int, wires: dict[str, Wire]
) -> None:
    """Those that begin as ZeroMQ does, and those that do not."""
    wire = wires["at the door"]
    for start in (b"", GREETING):
        for each in batch:
            with socket.create_connection(wire.at) as raw:
                raw.sendall(start + each)
    wire.say(msgspec.msgpack.encode(wire.last(number)))
    heard: list[Report | Command] = []

    def over() -> bool:
        heard.extend(wire.receive())
        return bool(heard)

    wait_until(over, "the one who is known")
    (order,) = heard
    assert isinstance(order, Order) and order.request == number


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"PLAIN".ljust(20, b"\0") + bytes(32)
