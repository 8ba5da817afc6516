"""Rows of a collector: how many a second come through the gate into the run's ring, over loopback and encrypted.

The collector is this process, and does nothing but to append the same step of rows again and again; the gate is one of
its own, as in a run. Both share this machine, so on two cores the figures are those of the slower of the two.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq

from core.acting import PolicySpec
from core.admission import use_keys
from core.control import Begin, Failed, Ready, Server, worker_name
from core.joining import GATE, Admitted, Joins
from core.link import PROTOCOL, Go, Join, Said, ToCollector, Told, Welcome, pack
from core.net import NetSpec, num_parameters
from core.outlet import Outlet, local_ring
from core.ring import FOREVER, Ring, Word
from core.supervisor import Supervisor
from core.types import Recording
from core.weights import Weights
from envproc.gate import GateConfig
from scripts import keys
from scripts.profile.processes import family
from scripts.profile.report import Report, option_parser, read_options
from scripts.profile.shapes import SHAPES, Shape, Steps

_START_S = 20
_LANE = 0
_ME = "me"
Message = TypeVar("Message")


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    options = read_options(option_parser("joined", __doc__), arguments)
    seconds = 0.2 if options.quick else 5.0
    report = Report("joined", options.json)
    table = report.table("Rows of a collector into the ring", 16, "rows/s", "MB/s", "bytes/row", "gate, us/row")
    for rows, shape in SHAPES.items():
        with _Link(shape) as link:
            link.carry(seconds / 5)  # until all is warm
            rate, cpu_us, size = link.carry(seconds)
        table.row(rows, round(rate), rate * size / 1e6, size, cpu_us)
    report.write()
    return 0


class _Link:
    """A gate's process, and a collector's end of the link, whose worker has begun."""

    def __init__(self, shape: Shape) -> None:
        self._opened = contextlib.ExitStack()
        enter = self._opened.enter_context
        home = Path(enter(tempfile.TemporaryDirectory(prefix="sharl-profile-")))
        before = os.umask(0o077)
        keys.make(home, (_ME,))
        os.umask(before)
        policy = PolicySpec(NetSpec({"vector": (1,)}, (), 1), "tanh")
        self._ring = enter(Ring.create(shape.spec, Recording(), 1, min(shape.capacity, 100_000)))
        weights = enter(Weights.create(num_parameters(policy.net)))
        server = enter(Server())
        begin = Begin(self._ring.address, weights.address, policy)
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        context = zmq.Context()
        self._opened.callback(context.destroy, linger=0)
        self._socket = context.socket(zmq.DEALER)
        use_keys(self._socket, home / f"for-{_ME}")
        supervisor = enter(Supervisor())
        supervisor.start(GATE, "envproc.gate", GateConfig(server.address, address, str(home), shape.spec, begin))
        self._socket.connect(address)
        self._decoder = msgspec.msgpack.Decoder(ToCollector)
        self._say(Join(PROTOCOL, 1))
        joins = _await(Joins, server.receive)
        server.send(GATE, Admitted(joins.collector, [_LANE], ""))
        welcome = _await(Welcome, self._hear)
        self._there = enter(local_ring(shape.spec, Recording(), welcome.posts))
        self._say(Said(_LANE, Ready(worker_name(_LANE), os.getpid(), 0.0, shape.spec)))
        _await(Ready, server.receive)
        server.send(worker_name(_LANE), begin)
        _await(Told, self._hear)
        self._ring.allow(FOREVER)
        self._outlet = Outlet(self._there, _LANE)
        self._writer = self._there.writer(_LANE, 0)
        self._steps = Steps(self._there, self._writer)

    def carry(self, seconds: float) -> tuple[float, float, float]:
        """Rows a second, microseconds of the gate for each, and bytes of each."""
        before, arrived = family(os.getpid()), self._arrived()
        while time.monotonic() - before.time < seconds:
            for message in self._hear():
                if isinstance(message, Go):
                    self._outlet.allow(message.allowed, message.taken)
            while self._writer.may_go_on() and not self._outlet.is_full:
                self._steps.append()
                self._writer.decided(len(self._steps.rows))
            for batch, data in self._outlet.batches():
                self._say(batch, *data)
            self._socket.poll(1)
        rows, after = self._arrived() - arrived, family(os.getpid())
        rate = rows / (after.time - before.time)
        return rate, after.cores(before)[GATE] * 1e6 / rate, self._steps.nbytes / len(self._steps.rows)

    def _arrived(self) -> int:
        return int(self._ring.load(Word.PUBLISHED)[_LANE])

    def _say(self, message: Any, *data: Any) -> None:
        self._socket.send_multipart(pack(message, *data), zmq.NOBLOCK)

    def _hear(self) -> Iterator[ToCollector]:
        while self._socket.poll(0):
            yield self._decoder.decode(self._socket.recv_multipart(zmq.NOBLOCK)[0])

    def __enter__(self) -> _Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()


def _await(kind: type[Message], hear: Callable[[], Any]) -> Message:
    """The first message of this kind. Raises RuntimeError if there is none in time, or somebody has failed."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        for message in hear():
            if isinstance(message, kind):
                return message
            if isinstance(message, Failed):
                raise RuntimeError(message.error)
        time.sleep(0.001)
    raise RuntimeError(f"no {kind.__name__} within {_START_S} s")
