"""The gate: where collectors on other machines come in, with keys, and what they bring goes into the run's ring.

A process of its own (`python -m envproc.gate CONFIG`), so the learner's never waits for a network. To the main process
each joined worker is one like others; the gate speaks for it on the control channel, and is its lane's one writer. All
that comes in is checked, and whoever sends what cannot be is turned away, as is who falls silent: a dead worker, and
nothing more. What is said on the link, core/link.py tells.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import zmq

from core.admission import Admission, keys_of_clients, place_of, secret_key
from core.control import MALFORMED, MAX_BYTES, Begin, Client, Ready, Stop
from core.joining import GATE, Admitted, Alive, Expel, Joins, TurnedAway
from core.link import (
    BATCH_BYTES,
    LONG_TURN_MS,
    MOST_WORKERS,
    PROTOCOL,
    SILENCE_S,
    TURN_MS,
    Batch,
    Beat,
    Bye,
    Gone,
    Got,
    Join,
    Said,
    ToCollector,
    ToGate,
    Told,
    Welcome,
    pack,
    unpack,
)
from core.net import num_parameters
from core.outlet import bytes_of_frame
from core.ring import Ring
from core.types import EnvSpec
from core.weights import Follower, Weights
from envproc.guest import Guest
from envproc.porter import Porter
from envproc.process import parent_is_gone, serve

_IDLE_MS = 50
"""how long it sleeps while nobody is there"""
_AT_ONCE = 200
"""messages, after which somebody else's turn comes"""
_WAITING = 100
"""messages of one collector, beyond which its connection stands still"""
_LAST_WORDS_MS = 500
_SIGN_EVERY_S = 0.1


@dataclass(frozen=True)
class GateConfig:
    """All that the gate is told at birth; it travels as JSON."""

    control: str
    """address of the control channel"""
    listen: str
    """where collectors come in"""
    keys: str
    """directory of keys: who may"""
    spec: EnvSpec
    """of the run's environment"""
    begin: Begin
    """what every worker of the run is told"""
    name: str = GATE


class Gate:
    """Of one run."""

    def __init__(self, config: GateConfig, client: Client) -> None:
        """Raises ValueError or zmq.ZMQError if it cannot be opened there."""
        started = time.monotonic()
        self._config, self._client = config, client
        self._opened = contextlib.ExitStack()
        begin = config.begin
        self._ring = self._opened.enter_context(Ring.attach(begin.ring, config.spec))
        self._weights = self._opened.enter_context(Weights.attach(begin.weights, num_parameters(begin.policy.net)))
        self._follower = Follower(self._weights)
        self._decoder = msgspec.msgpack.Decoder(ToGate)
        self._guests: dict[bytes, Guest] = {}
        self._stopping = False
        self._num_refused = self._num_told = 0
        self._sign_at = 0.0
        context = zmq.Context()
        self._opened.callback(context.destroy, linger=_LAST_WORDS_MS)
        self._socket = context.socket(zmq.ROUTER)
        keys = Path(config.keys)
        self._admission = Admission(context, self._socket, keys_of_clients("--listen-keys", keys))
        largest = max(MAX_BYTES, BATCH_BYTES, self._ring.layout.itemsize, bytes_of_frame(config.spec))
        self._socket.setsockopt(zmq.MAXMSGSIZE, largest)
        self._socket.setsockopt(zmq.RCVHWM, _WAITING)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key("--listen-keys", keys))
        self._socket.bind(place_of("--listen", config.listen)[0])
        self._poller = zmq.Poller()
        for each in (self._socket, *self._admission.sockets, client.socket):
            self._poller.register(each, zmq.POLLIN)
        client.send(Ready(GATE, os.getpid(), time.monotonic() - started, config.spec))

    def run(self) -> None:
        """Work until told to stop, or until the main process is gone."""
        while not self._stopping and not parent_is_gone():
            self.turn()
        for guest in self._guests.values():
            self._send(guest.identity, Bye("the run has ended", True))

    def turn(self) -> None:
        """Hear everybody once."""
        ready = dict(self._poller.poll(self._nap_ms()))  # only these are asked: that takes time
        if ready.keys() & self._admission.sockets:
            self._admission.attend()
        for command in self._client.receive() if self._client.socket in ready else []:
            match command:
                case Admitted():
                    self._admitted(command)
                case Expel(lane):
                    self._expel(lane)
                case Stop():
                    self._stopping = True
        if self._socket in ready:
            self._hear()
        for guest in list(self._guests.values()):
            self._attend(guest, ready)
        if more := self._admission.num_refused + self._num_refused - self._num_told:
            self._client.send(TurnedAway(GATE, more))
            self._num_told += more
        if (now := time.monotonic()) >= self._sign_at:
            self._client.send(Alive(GATE))
            self._sign_at = now + _SIGN_EVERY_S

    def _nap_ms(self) -> int:
        if any(guest.waits for guest in self._guests.values()):
            return TURN_MS
        return LONG_TURN_MS if self._guests else _IDLE_MS

    def close(self) -> None:
        for guest in self._guests.values():
            for porter in guest.porters.values():
                porter.close()
        self._opened.close()

    def _hear(self) -> None:
        """What collectors have said."""
        for _ in range(_AT_ONCE):
            if not self._socket.poll(0):
                return
            sender, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            try:
                message, data = unpack(self._decoder, [frame.buffer for frame in frames])
                self._obey(sender.bytes, frames[0], message, data)
            except MALFORMED as error:
                self._num_refused += 1
                self._drop(sender.bytes, f"what it said was refused: {error}")

    def _obey(self, sender: bytes, frame: Any, message: ToGate, data: list[Any]) -> None:
        """Raises ValueError for what the sender may not say."""
        guest = self._guests.get(sender)
        if guest is None:
            if not isinstance(message, Join):
                self._send(sender, Bye("it is not joined, or not any more", False))
                return
            if message.protocol != PROTOCOL or not 1 <= message.workers <= MOST_WORKERS:
                what = f"{message.workers} workers of link {message.protocol}"
                raise ValueError(f"{what}; this run takes 1 to {MOST_WORKERS}, of link {PROTOCOL}")
            who = f"{frame.get('User-Id')} at {frame.get('Peer-Address')}"
            self._guests[sender] = Guest(sender, who, self._ring.recording.ordered)
            self._client.send(Joins(GATE, sender.hex(), who, message.workers))
            return
        guest.heard_at = time.monotonic()
        match message:
            case Beat():
                pass
            case Got(version):
                guest.got(version)
            case Said(lane, report):
                if porter := guest.porter(lane):
                    porter.says(report)
            case Batch(lane):
                if porter := guest.porter(lane):
                    porter.take(message, data)
            case Gone(lane, why):
                if porter := guest.porter(lane):
                    porter.leaves(why)
            case Join():
                raise ValueError("it has joined already")

    def _attend(self, guest: Guest, ready: Container[object]) -> None:
        """What there is to tell this collector."""
        if (silent_s := time.monotonic() - guest.heard_at) > SILENCE_S:
            self._drop(guest.identity, f"nothing was heard from {guest.who} for {silent_s:.1f} s")
            return
        goes = guest.goes()  # before the weights: who goes on acts with those that were there then, or newer ones
        self._follower.fetch()
        if not guest.tell(goes, ready, self._follower, self._weights.version, self._post):
            self._drop(guest.identity, f"{guest.who} is gone, or does not read any more")
            return
        for porter in guest.release():
            self._poller.unregister(porter.client.socket)
            porter.close()
        if guest.was_welcome and not guest.porters:
            self._drop(guest.identity, "none of its workers is here any more", guest.is_in_order)

    def _admitted(self, admitted: Admitted) -> None:
        guest = self._guests.get(bytes.fromhex(admitted.collector))
        porters = [Porter(self._config.control, self._ring, lane, self._config.begin) for lane in admitted.lanes]
        if guest is None:  # it has gone meanwhile
            for porter in porters:
                porter.fails("it was gone before it was let in")
                porter.close()
        elif not porters:
            self._drop(guest.identity, admitted.config)
        else:
            posts = [porter.post for porter in porters]
            self._send(guest.identity, Welcome(self._config.spec, self._config.begin, admitted.config, posts))
            guest.let_in(porters)
            for porter in porters:
                self._poller.register(porter.client.socket, zmq.POLLIN)

    def _expel(self, lane: int) -> None:
        for guest in self._guests.values():
            if lane in guest.porters:
                guest.porters[lane].fails("it was expelled")
                self._send(guest.identity, Told(lane, Stop()))

    def _drop(self, identity: bytes, why: str, in_order: bool = False) -> None:
        """Have nothing to do with this collector any more."""
        self._send(identity, Bye(why, in_order))
        guest = self._guests.pop(identity, None)
        for porter in guest.porters.values() if guest else ():
            self._poller.unregister(porter.client.socket)
            porter.fails(why)
            porter.close()

    def _send(self, identity: bytes, message: ToCollector) -> None:
        self._post([identity, *pack(message)])

    def _post(self, parts: list[Any]) -> bool | None:
        """False if it does not fit now; None if the collector is gone."""
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError:
            return None
        return True


if __name__ == "__main__":
    serve(GateConfig, Gate)
