"""A collector: environment workers for a run on another machine, and the link to it.

The workers are those of any run (envproc/worker.py), with a ring, weights and a control channel here. Beside them this
carries rows there and weights back; what is said on the link, core/link.py tells. It ends when the run does, when it is
told to, or when the link breaks: nothing is mended, who comes back joins anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import zmq

from core.admission import HANDSHAKE_FAILED, use_keys
from core.control import MALFORMED, Answer, Begin, Episodes, Failed, Ready, Server, Stats, Stop, worker_name
from core.link import (
    BEAT_S,
    LONG_TURN_MS,
    PROTOCOL,
    SILENCE_S,
    TURN_MS,
    Beat,
    Bye,
    Go,
    Gone,
    Got,
    Join,
    Parameters,
    Said,
    ToCollector,
    ToGate,
    Told,
    Welcome,
    pack,
    unpack,
)
from core.net import num_parameters
from core.outlet import Outlet, local_ring
from core.private_directory import PrivateDirectory
from core.supervisor import Supervisor
from core.types import EnvSpec
from core.weights import Weights
from envproc.arriving import Arriving
from envproc.worker import WorkerConfig

_JOIN_S = 10.0
"""how long the run may take to answer"""
_AT_REST_EVERY_S, _BATCH_EVERY_S, _COUNTERS_EVERY_S = 0.001, 0.008, 0.2
"""between two batches: of a worker that waits for the run, of one that goes on, of one that has done nothing"""
_GOODBYE_S = 1.0
DONE, REFUSED, LOST, INTERRUPTED = 0, 2, 3, 130


class Ended(Exception):
    """It is over; the message says why."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


class _Lane:
    """One worker, and what of it was sent."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.has_begun = False
        self.go: tuple[int, int] | None = None
        """what the run allows, and which rows have arrived there, as it said last"""
        self.leaves = ""
        """why, if it was told to"""
        self.is_told = False
        self.sent_at = 0.0


class Collector:
    """One link and its workers."""

    def __init__(self, address: str, keys: Path, workers: int, interrupted: Callable[[], bool]) -> None:
        """Raises Ended if the run cannot be joined, OSError or ValueError if there are no keys."""
        self._address, self._interrupted = address, interrupted
        self._opened = contextlib.ExitStack()
        context = zmq.Context()
        self._opened.callback(context.destroy, linger=int(_GOODBYE_S * 1000))
        try:
            self._socket = context.socket(zmq.DEALER)
            self._refused = self._socket.get_monitor_socket(HANDSHAKE_FAILED)
            use_keys(self._socket, keys)
            self._decoder = msgspec.msgpack.Decoder(ToCollector)
            self._heard_at = self._turned_at = time.monotonic()
            self._beat_at = 0.0
            self._connect(address)
            self._fits(Join(PROTOCOL, workers))  # else it was refused already, and hears so
            self._start(self._await_welcome())
        except BaseException:
            self._opened.close()
            raise

    def _connect(self, address: str) -> None:
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            raise ValueError(f"{address!r} is no address, as tcp://HOST:PORT is ({error})") from error

    def _start(self, welcome: Welcome) -> None:
        self._spec, self._begin = welcome.spec, welcome.begin
        lanes = [post.lane for post in welcome.posts]
        self.workers = [worker_name(lane) for lane in lanes]
        """their names in the run"""
        self._ring = self._opened.enter_context(local_ring(self._spec, self._begin.ring.recording, welcome.posts))
        size = num_parameters(self._begin.policy.net)
        self._weights = self._opened.enter_context(Weights.create(size))
        self._arriving = Arriving(size)
        self._server = self._opened.enter_context(Server())
        self._supervisor = self._opened.enter_context(Supervisor())
        logs = PrivateDirectory()  # for what the environments write; it is gone when they are
        self._opened.callback(logs.close)
        config = msgspec.json.decode(welcome.config, type=WorkerConfig)
        config = replace(config, control=self._server.address, logs=logs.path, trace=None)
        self._lanes = {lane: _Lane(Outlet(self._ring, lane)) for lane in lanes}
        for post in welcome.posts:
            name = worker_name(post.lane)
            self._supervisor.start(name, "envproc.worker", replace(config, name=name, lane=post.lane, epoch=post.epoch))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._server.socket, zmq.POLLIN)

    def run(self) -> NoReturn:
        """Work until it is over. Raises Ended."""
        while self._lanes:
            at_rest = any(lane.outlet.is_at_rest for lane in self._lanes.values())
            self._poller.poll(TURN_MS if at_rest else LONG_TURN_MS)
            self._turn()
        deadline = time.monotonic() + _GOODBYE_S
        while time.monotonic() < deadline:  # the run says so as well, and perhaps why
            self._socket.poll(TURN_MS)
            self._hear()
        raise Ended("all its workers have left", DONE)

    def close(self) -> None:
        """No process is left when it returns."""
        self._opened.close()

    def _turn(self) -> None:
        if self._interrupted():
            for lane in self._lanes.values():
                lane.leaves = lane.leaves or "interrupted there"
        self._hear()
        now = time.monotonic()
        self._heard_at += max(now - self._turned_at - BEAT_S, 0.0)  # who stood still itself has not listened
        self._turned_at = now
        if now - self._heard_at > SILENCE_S:
            raise Ended(f"the run at {self._address} has said nothing for {SILENCE_S:g} s", LOST)
        for report in self._server.receive():
            if isinstance(report, Ready | Episodes | Stats | Failed | Answer):
                self._pass_on(report)
        for death in self._supervisor.deaths():
            if int(death.name.rpartition("-")[2]) in self._lanes:
                self._pass_on(Failed(death.name, f"died: {death.reason}", death.log))
        for number, lane in list(self._lanes.items()):
            self._send_rows(lane, now)
            if lane.leaves:
                self._see_out(number, lane)
        self._beat()

    def _beat(self) -> None:
        if time.monotonic() - self._beat_at >= BEAT_S:
            self._beat_at = time.monotonic()
            self._fits(Beat())  # else it was refused, and hears so, or there is enough on its way

    def _hear(self) -> None:
        """All that the run has said."""
        while self._socket.poll(0):
            try:
                message, data = unpack(self._decoder, self._socket.recv_multipart(zmq.NOBLOCK))
                self._heard_at = time.monotonic()
                self._obey(message, data)
            except MALFORMED as error:
                raise Ended(f"the run at {self._address} says what is not understood here: {error}", LOST) from error

    def _obey(self, message: ToCollector, data: list[Any]) -> None:
        match message:
            case Told(number, command):
                if (lane := self._lanes.get(number)) is None:
                    return
                if isinstance(command, Begin):
                    command = msgspec.structs.replace(command, ring=self._ring.address, weights=self._weights.address)
                    lane.has_begun = True
                if isinstance(command, Stop):
                    lane.leaves = lane.leaves or "told to"
                else:
                    self._server.send(worker_name(number), command)
            case Go(number, allowed, taken):
                if lane := self._lanes.get(number):
                    lane.go = allowed, taken
                    lane.outlet.allow(allowed, taken)
            case Parameters():
                if (parameters := self._arriving.take(message, data)) is not None:
                    self._weights.publish(parameters, message.update)
                    self._send(Got(message.version))
            case Bye(why, in_order):
                raise Ended(why, DONE if in_order else LOST)
            case Beat() | Welcome():
                pass

    def _pass_on(self, report: Ready | Episodes | Stats | Failed | Answer) -> None:
        number = int(report.worker.rpartition("-")[2])
        if number not in self._lanes:
            return
        if isinstance(report, Ready) and report.spec != self._spec:
            why = f"the environment here is another one than the run's: {difference(report.spec, self._spec)}"
            self._send(Said(number, Failed(report.worker, why, "")))
            raise Ended(why, REFUSED)
        self._send(Said(number, report))
        if isinstance(report, Failed):
            del self._lanes[number]
            self._supervisor.dismiss(report.worker)
            if not self._lanes:
                raise Ended(f"{report.worker} failed: {report.error}\n{report.traceback}".rstrip(), LOST)

    def _send_rows(self, lane: _Lane, now: float) -> None:
        if not lane.has_begun:
            return
        outlet = lane.outlet
        if lane.go:
            outlet.allow(*lane.go)
        every_s = _COUNTERS_EVERY_S
        if outlet.has_news:
            every_s = _AT_REST_EVERY_S if outlet.is_at_rest else _BATCH_EVERY_S
        if outlet.is_full or now - lane.sent_at >= every_s:
            lane.sent_at = now
            for batch, data in outlet.batches():
                self._send(batch, *data)

    def _see_out(self, number: int, lane: _Lane) -> None:
        """It is to leave, and its rows are to arrive."""
        name = worker_name(number)
        if not lane.is_told:
            lane.is_told = self._server.send(name, Stop())  # who has just been started cannot hear yet
            self._supervisor.dismiss(name)
        if not self._supervisor.has(name):
            lane.sent_at = 0.0
            self._send_rows(lane, time.monotonic())
            self._send(Gone(number, lane.leaves))
            del self._lanes[number]

    def _send(self, message: ToGate, *data: Any) -> None:
        if not self._fits(message, *data):
            raise Ended(f"the link to {self._address} takes no more", LOST)

    def _fits(self, message: ToGate, *data: Any) -> bool:
        """Whether it was sent."""
        try:
            self._socket.send_multipart(pack(message, *data), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _await_welcome(self) -> Welcome:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._refused, zmq.POLLIN)
        while time.monotonic() - self._heard_at < _JOIN_S:
            heard = dict(poller.poll(100))
            if self._interrupted():
                raise Ended("interrupted", INTERRUPTED)
            if self._refused in heard:
                raise Ended(f"the run at {self._address} does not know this key, or is another one", REFUSED)
            if self._socket in heard:
                self._heard_at = time.monotonic()
                message, _ = unpack(self._decoder, self._socket.recv_multipart(zmq.NOBLOCK))
                if isinstance(message, Welcome):
                    return message
                if isinstance(message, Bye):
                    raise Ended(f"the run at {self._address} refuses: {message.why}", REFUSED)
            self._beat()
        raise Ended(f"nobody answers at {self._address}", REFUSED)


def difference(found: EnvSpec, wanted: EnvSpec) -> str:
    """The first thing in which they differ."""
    for name in [*wanted.obs, *found.obs]:
        here, there = found.obs.get(name), wanted.obs.get(name)
        if here != there:
            return f"observation {name} is {here or 'not there'}, and {there or 'not there'} in the run"
    if found.action != wanted.action:
        return f"the action is {found.action}, and {wanted.action} in the run"
    return f"it has {found.num_agents} agents, and {wanted.num_agents} in the run"
