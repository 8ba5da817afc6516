"""Who talks to a job's sockets without being scripts.ctl: by name, with any message and any credentials."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from core.control import OPERATOR, Order, Reply, Report, Server
from core.door import Door
from scripts import keys
from tests.process.runs import PATIENCE_S, wait_until

Opened = TypeVar("Opened")


class Caller:
    """A DEALER at any address; with no name, ZeroMQ makes one."""

    def __init__(self, address: str, name: str, token: str = "") -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        if name:
            self.socket.setsockopt(zmq.IDENTITY, name.encode())
        if token:
            self.socket.setsockopt(zmq.PLAIN_PASSWORD, token.encode())
        self.socket.connect(address)

    def say(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Operator(Caller):
    """Sends one order after the other without waiting, each with a number of its own."""

    def __init__(self, address: str, token: str = "") -> None:
        super().__init__(address, f"{OPERATOR}{uuid.uuid4().hex}", token)
        self._ordered = 0
        self._replies: dict[int, Reply] = {}

    def order(self, *words: object) -> int:
        """Its number."""
        self._ordered += 1
        self.say(msgspec.msgpack.encode(Order(self._ordered, [str(word) for word in words])))
        return self._ordered

    def reply(self, request: int) -> Reply:
        """To that order, once it is there. No order has two."""
        while request not in self._replies:
            assert self.socket.poll(int(PATIENCE_S * 1000)), f"order {request} was not answered"
            reply = msgspec.msgpack.decode(self.socket.recv(), type=Reply)
            assert reply.request not in self._replies, f"{reply} came second"
            self._replies[reply.request] = reply
        return self._replies[request]

    def ask(self, *words: object) -> Reply:
        return self.reply(self.order(*words))

    def replies(self) -> list[Reply]:
        """To all orders so far, in order."""
        return [self.reply(request) for request in range(1, self._ordered + 1)]


@contextmanager
def attended(door: Door) -> Iterator[list[Order]]:
    """A job behind the door that does whatever it is told, and what it was told so far."""
    told: list[Order] = []
    over = threading.Event()

    def attend() -> None:
        while not over.wait(0.002):
            for order in server.receive():
                assert isinstance(order, Order)
                told.append(order)
                assert server.send(order.client, Reply(order.request, True, " ".join(order.words)))

    with Server(door) as server:
        thread = threading.Thread(target=attend)
        thread.start()
        try:
            yield told
        finally:
            over.set()
            thread.join()


def make_keys(directory: Path, *clients: str) -> Path:
    """As the command makes them."""
    assert keys.main([str(directory), *clients]) == 0
    return directory


def heard_by(server: Server | Door, count: int = 1) -> list[Report]:
    """Once that many have come in."""
    heard: list[Report] = []

    def enough() -> bool:
        heard.extend(server.receive())
        return len(heard) >= count

    wait_until(enough, f"{count} reports")
    return heard
