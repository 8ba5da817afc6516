"""The control channel: words between the main process and its workers, over ZeroMQ. Data never goes this way.

The main process binds one ROUTER in a directory that only this user can enter; each worker connects one DEALER
whose identity is its name ("worker-3", "evaluator"). Every message is one of the types below: the type is the
protocol. Whatever is not one of them, or too long, is dropped and counted, and changes nothing else.

A request carries a number, and whoever obeys it answers exactly once with that number.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import Literal

import msgspec
import zmq

from core.acting import PolicySpec
from core.ring import RingAddress
from core.types import EnvSpec

_MAX_BYTES = 64 * 1024
_MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)
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


Report = Ready | Episodes | Stats | Failed | Answer | Evaluated | Order
Command = Begin | Reset | Renew | Set | Evaluate | Stop | Reply


def worker_name(lane: int) -> str:
    """What the worker of a lane is called."""
    return f"worker-{lane}"


class Server:
    """The main process's end."""

    def __init__(self) -> None:
        self._directory = _short_directory()
        # Removes the directory when this process's end of the pipe closes, even if that is because of a SIGKILL;
        # in a session of its own, so that a signal to our process group passes it by.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; rm -rf -- "$1"', "sh", self._directory],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.address = f"ipc://{self._directory}/control"
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(self.address)
        self._decoder = msgspec.msgpack.Decoder(Report)
        self.num_refused = 0
        """messages dropped because they were none of the protocol's"""

    def receive(self) -> list[Report]:
        """Everything that has arrived. Never waits."""
        reports: list[Report] = []
        while self.socket.poll(0):
            parts = self.socket.recv_multipart(zmq.NOBLOCK)
            try:
                report = self._decoder.decode(parts[-1])
                if isinstance(report, Order):
                    report = msgspec.structs.replace(report, client=parts[0].decode())
                reports.append(report)
            except _MALFORMED:
                self.num_refused += 1
        return reports

    def send(self, worker: str, command: Command) -> bool:
        """False if there is no such worker (yet), it has stopped reading, or the message is too long."""
        message = msgspec.msgpack.encode(command)
        if len(message) > _MAX_BYTES:  # the other end would close the connection, for good
            return False
        try:
            self.socket.send_multipart([worker.encode(), message], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def close(self) -> None:
        self._context.destroy(linger=0)
        shutil.rmtree(self._directory, ignore_errors=True)
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._janitor.wait(timeout=1)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _short_directory() -> str:
    """A new directory of mode 0700, near the root if the usual place has too long a path for a unix socket."""
    usual = tempfile.mkdtemp(prefix="sharl-")
    if len(f"{usual}/control") < zmq.IPC_PATH_MAX_LEN:
        return usual
    os.rmdir(usual)
    return tempfile.mkdtemp(prefix="sharl-", dir="/tmp")


class Client:
    """A worker's end."""

    def __init__(self, address: str, worker: str) -> None:
        self.worker = worker
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, worker.encode())
        self.socket.setsockopt(zmq.LINGER, 200)  # a last Failed must get out; 200 ms at most
        self.socket.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES)
        self.socket.connect(address)
        self._decoder = msgspec.msgpack.Decoder(Command)
        self.num_refused = 0
        self.num_unsent = 0
        """reports dropped because the main process did not read"""

    def receive(self) -> list[Command]:
        """Everything that has arrived. Never waits."""
        commands: list[Command] = []
        while self.socket.poll(0):
            try:
                commands.append(self._decoder.decode(self.socket.recv(zmq.NOBLOCK)))
            except _MALFORMED:
                self.num_refused += 1
        return commands

    def send(self, report: Report) -> None:
        """Never waits: a report that does not fit the queue, or is too long, is dropped and counted."""
        message = msgspec.msgpack.encode(report)
        sent = False
        with contextlib.suppress(zmq.Again):
            if len(message) <= _MAX_BYTES:
                self.socket.send(message, zmq.NOBLOCK)
                sent = True
        self.num_unsent += not sent

    def close(self) -> None:
        self._context.destroy()
