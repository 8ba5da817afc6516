"""A gate in a thread of its own, with the run behind it, and callers at it that may say anything."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import zmq

from core.acting import PolicySpec
from core.admission import use_keys
from core.control import Begin, Client, Report, Server
from core.joining import GATE, TurnedAway
from core.link import ToCollector, ToGate, pack
from core.net import NetSpec, num_parameters
from core.ring import Ring
from core.types import ActionSpec, EnvSpec, FieldSpec, Recording
from core.weights import Weights
from envproc.gate import Gate, GateConfig
from tests.process.callers import make_keys
from tests.process.runs import free_port, wait_until

SPEC = EnvSpec({"vector": FieldSpec((2,))}, ActionSpec((-1.0,), (1.0,)), 4)
POLICY = PolicySpec(NetSpec({"vector": (2,)}, (300, 300), 1), "tanh")


class House:
    """A gate, and all that it knows of the run behind it."""

    def __init__(self, home: Path, recording: Recording) -> None:
        self.keys = make_keys(home / "keys", "bob")
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.server = Server()
        self.ring = Ring.create(SPEC, recording, 1, 4_000, spare=3)
        self.ring.add_lane(1)
        self.ring.add_lane(2)
        self.weights = Weights.create(num_parameters(POLICY.net))
        self.begin = Begin(self.ring.address, self.weights.address, POLICY)
        self.reports: list[Report] = []
        self._over = threading.Event()
        self._opened: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._opened.wait(10)

    def _serve(self) -> None:
        client = Client(self.server.address, GATE)
        gate = Gate(GateConfig(self.server.address, self.address, str(self.keys), SPEC, self.begin), client)
        self._opened.set()
        while not self._over.is_set():
            gate.turn()
        gate.close()
        client.close()

    def hear(self) -> list[Report]:
        """All reports so far."""
        self.reports += self.server.receive()
        return self.reports

    def await_report(self, kind: type, count: int = 1) -> Any:
        """The newest of this kind, once there are so many."""
        found: list[Any] = []

        def enough() -> bool:
            found[:] = [each for each in self.hear() if isinstance(each, kind)]
            return len(found) >= count

        wait_until(enough, f"{count} x {kind.__name__}", 10)
        return found[-1]

    def num_turned_away(self) -> int:
        return sum(each.count for each in self.hear() if isinstance(each, TurnedAway))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.server.close()
        self.ring.close()
        self.weights.close()


class Caller:
    """Whoever comes to a gate, and says what he likes there."""

    def __init__(self, house: House, keys: Path | None = None) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        if keys:
            use_keys(self.socket, keys)
        self.socket.connect(house.address)
        self._decoder = msgspec.msgpack.Decoder(ToCollector)
        self.heard: list[ToCollector] = []

    def say(self, message: ToGate, *data: bytes) -> None:
        self.socket.send_multipart(pack(message, *data))

    def hear(self, kind: type, timeout_ms: int = 10_000) -> Any:
        """The next one of this kind."""
        while True:
            assert self.socket.poll(timeout_ms), f"no {kind.__name__}, but {self.heard}"
            self.heard.append(self._decoder.decode(self.socket.recv_multipart()[0]))
            if isinstance(self.heard[-1], kind):
                return self.heard[-1]

    def close(self) -> None:
        self._context.destroy(linger=0)
