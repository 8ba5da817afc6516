"""The control channel: words between the main process and its workers, over ZeroMQ. Data never goes this way.

The main process binds one ROUTER in a directory that only this user can enter; each worker connects one DEALER
whose identity is its name ("worker-3", "evaluator"). Every message is one of the types below: the type is the
protocol. Whatever is not one of them, too long, or not its sender's to say, is dropped and counted, and changes
nothing else. Operators come here, too, or through a door of their own (core/door.py).

A request carries a number, and whoever obeys it answers exactly once with that number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
import zmq

from core.acting import PolicySpec
from core.joining import Admitted, Alive, Expel, Joins, Left, TurnedAway
from core.private_directory import PrivateDirectory
from core.ring import RingAddress
from core.types import EnvSpec

if TYPE_CHECKING:
    from core.door import Door

OPERATOR = "operator-"
"""begins the names of those who send orders, and nobody else's"""
AT_DOOR = "door-"
"""begins what those are called here who came through the door"""
MAX_BYTES = 64 * 1024
AT_ONCE = 64
"""messages that are read at a time. Whoever sends faster than is obeyed fills ZeroMQ's queue, which has a limit, and
waits. That starves nobody: a ROUTER takes from its peers in turn, and all workers say far less between two looks"""
MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)
"""what the decoder raises for bytes that are no message: wrong types, text that is not Unicode, nesting without end"""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """Worker to main: my environment is up, and this is what it offers."""

    worker: str
    pid: int
    launch_s: float
    spec: EnvSpec
    """of its environment"""


class Episode(msgspec.Struct, array_like=True, frozen=True):
    """One finished episode of one agent."""

    agent: int
    ret: float
    """its return: the undiscounted sum of rewards"""
    length: int
    """decisions"""
    end: Literal["terminated", "truncated", "reset"]


class Episodes(msgspec.Struct, tag=True, frozen=True):
    """Worker to main: these episodes ended since I last said so."""

    worker: str
    episodes: list[Episode]


class Failed(msgspec.Struct, tag=True, frozen=True):
    """Worker to main: I raised this and am leaving."""

    worker: str
    error: str
    traceback: str
    """or what else explains it"""
    refused: str = ""
    """there is no such environment as was asked for: what the user can do about it"""


class Stats(msgspec.Struct, tag=True, frozen=True):
    """Worker to main: figures that the environment itself recorded since I last said so."""

    worker: str
    values: dict[str, float]


class Answer(msgspec.Struct, tag=True, frozen=True):
    """Worker to main: the one answer to request number `request`."""

    worker: str
    request: int
    done: bool
    what: str
    """what was done, or why not"""


class Evaluated(msgspec.Struct, tag=True, frozen=True):
    """Evaluator to main: the answer to Evaluate."""

    worker: str
    request: int
    update: int
    """the learner's update count when the weights that were evaluated were published"""
    returns: list[float]
    lengths: list[int]


class Begin(msgspec.Struct, tag=True, frozen=True):
    """Main to worker, once, after Ready: act with this policy, and write what happens into your lane of this ring."""

    ring: RingAddress
    weights: str
    """address of the weights"""
    policy: PolicySpec
    workers: int = 1
    """with which the run began: among them the exploration of an Ape-X ladder is spread"""


class Reset(msgspec.Struct, tag=True, frozen=True):
    """Main to worker: end these agents' episodes now, as truncated; the others must not notice."""

    request: int
    agents: list[int]


class Renew(msgspec.Struct, tag=True, frozen=True):
    """Main to worker: begin anew, in this epoch of the lane, as a worker that is started then would."""

    request: int
    epoch: int


class Set(msgspec.Struct, tag=True, frozen=True):
    """Main to worker or evaluator: change your environment, from its next step on."""

    request: int
    key: str
    """unity.time_scale, or env.NAME"""
    value: float


class Evaluate(msgspec.Struct, tag=True, frozen=True):
    """Main to evaluator: play at least so many episodes with the newest weights, without noise."""

    request: int
    episodes: int
    seed: int


class Order(msgspec.Struct, tag=True, frozen=True):
    """Operator to main (scripts/ctl.py): do this. What the words may be, core/steering.py says."""

    request: int
    words: list[str]
    client: str = ""
    """whose it is; filled in by who receives it"""
    number: int = 0
    """of the job's orders; filled in by who receives it"""


class Reply(msgspec.Struct, tag=True, frozen=True):
    """Main to operator: the one answer to order number `request`."""

    request: int
    done: bool
    what: str
    """what was done, or why not"""


class Stop(msgspec.Struct, tag=True, frozen=True):
    """Main to worker: leave. (The stop word in shared memory says the same when this channel does not work.)"""


Report = Ready | Episodes | Stats | Failed | Answer | Evaluated | Order | Joins | Left | Alive | TurnedAway
Command = Begin | Reset | Renew | Set | Evaluate | Stop | Reply | Admitted | Expel


def worker_name(lane: int) -> str:
    """What the worker of a lane is called."""
    return f"worker-{lane}"


class Server:
    """The main process's end."""

    def __init__(self, door: Door | None = None) -> None:
        """`door`: another way in for operators; whoever opened it closes it."""
        self._door = door
        self._directory = PrivateDirectory()
        self.address = f"ipc://{self._directory.path}/control"
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # else a next life that is early is refused, and never begins
        self.socket.bind(self.address)
        self._decoder = msgspec.msgpack.Decoder(Report)
        self._num_refused = 0
        self.num_refused_at_gate = 0  # by that other process (envproc/gate.py), which tells

    @property
    def num_refused(self) -> int:
        """Messages dropped because they were none of the protocol's, and connections that door or gate refused."""
        return self._num_refused + self.num_refused_at_gate + (self._door.num_refused if self._door else 0)

    def receive(self) -> list[Report]:
        """What has arrived, so many that something else is done in between. Never waits."""
        reports: list[Report] = [*self._door.receive()] if self._door else []
        for sender, *parts in arrived(self.socket):
            try:
                (message,) = parts
                reports.append(_said_by(sender.decode(), self._decoder.decode(message)))
            except MALFORMED:
                self._num_refused += 1
        return reports

    def send(self, worker: str, command: Command) -> bool:
        """False if there is no such worker (yet), it has stopped reading, or the message is too long."""
        message = msgspec.msgpack.encode(command)
        if len(message) > MAX_BYTES:  # the other end would close the connection, for good
            return False
        if worker.startswith(AT_DOOR):
            return self._door is not None and self._door.send(worker, message)
        return post(self.socket, worker.encode(), message)

    def close(self) -> None:
        self._context.destroy(linger=0)
        self._directory.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _said_by(sender: str, report: Report) -> Report:
    """The report, if it is the sender's to say: an order is an operator's, all else its worker's. Raises ValueError."""
    is_operator = sender.startswith(OPERATOR)
    if isinstance(report, Order) and is_operator:
        return msgspec.structs.replace(report, client=sender)
    if isinstance(report, Order) or is_operator or report.worker != sender:
        raise ValueError(f"{sender} may not say {report}")
    return report


def arrived(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    """The parts of each message that has arrived, AT_ONCE of them at most. Never waits."""
    for _ in range(AT_ONCE):
        if not socket.poll(0):
            return
        yield socket.recv_multipart(zmq.NOBLOCK)


def post(socket: zmq.Socket[bytes], receiver: bytes, message: bytes) -> bool:
    """Send it through a ROUTER. False if there is no such receiver (yet), or it has stopped reading."""
    with contextlib.suppress(zmq.ZMQError):
        socket.send_multipart([receiver, message], zmq.NOBLOCK)
        return True
    return False


class Client:
    """A worker's end."""

    def __init__(self, address: str, worker: str) -> None:
        self.worker = worker
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, worker.encode())
        self.socket.setsockopt(zmq.LINGER, 200)  # a last Failed must get out; 200 ms at most
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.connect(address)
        self._decoder = msgspec.msgpack.Decoder(Command)
        self.num_refused = 0
        self.num_unsent = 0
        """reports dropped because the main process did not read"""

    def receive(self) -> list[Command]:
        """What has arrived, so many that something else is done in between. Never waits."""
        commands: list[Command] = []
        for message in (part for parts in arrived(self.socket) for part in parts):
            try:
                commands.append(self._decoder.decode(message))
            except MALFORMED:
                self.num_refused += 1
        return commands

    def send(self, report: Report) -> None:
        """Never waits: a report that does not fit the queue, or is too long, is dropped and counted."""
        message = msgspec.msgpack.encode(report)
        with contextlib.suppress(zmq.Again):
            if len(message) <= MAX_BYTES:
                self.socket.send(message, zmq.NOBLOCK)
                return
        self.num_unsent += 1

    def close(self) -> None:
        self._context.destroy()
