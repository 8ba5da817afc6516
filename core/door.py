"""The operators' door: orders to a running job over TCP, beside the socket that is only this user's.

Workers stay at that socket; nothing but an Order comes in here, from whoever is known: on loopback by the run's token
(ZeroMQ's PLAIN), elsewhere by a key that is on the list (CURVE, which encrypts, too). Who is refused is counted
(core/admission.py).
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import zmq

from core.admission import Admission, keys_of_clients, place_of, secret_key
from core.control import AT_DOOR, MALFORMED, MAX_BYTES, Order, arrived, post

_KEYS = "--control-keys"


class Door:
    """A second way in to one job, for orders only."""

    def __init__(self, address: str, keys: Path | None = None) -> None:
        """`keys`: a directory as scripts/keys.py makes it. Raises ValueError, in one line, if nobody can or everybody
        could come in."""
        place, host = place_of("--control", address)
        if keys is None and not host.is_loopback:
            raise ValueError(
                f"--control {address}: others than this machine would reach it; add --control-keys DIR (python -m "
                "scripts.keys DIR NAME makes them), or listen on 127.0.0.1"
            )
        self.token = "" if keys else secrets.token_urlsafe(32)
        """what to come in with, where there are no keys"""
        self._num_refused = 0
        known = keys_of_clients(_KEYS, keys) if keys else {"": self.token.encode()}
        secret = secret_key(_KEYS, keys) if keys else b""
        self._decoder = msgspec.msgpack.Decoder(Order)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._admission = Admission(self._context, self._socket, known)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            if keys:
                self._socket.setsockopt(zmq.CURVE_SERVER, 1)
                self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            else:
                self._socket.setsockopt(zmq.PLAIN_SERVER, 1)
            self._socket.bind(place)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"--control {address} cannot be opened: {error}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        """with the port that it got"""

    @property
    def num_refused(self) -> int:
        """Connections of whoever is not known, and messages that are no order."""
        return self._num_refused + self._admission.num_refused

    def receive(self) -> list[Order]:
        """What has arrived, so many that something else is done in between. Never waits."""
        self._admission.attend()
        orders: list[Order] = []
        for sender, *parts in arrived(self._socket):
            try:
                (message,) = parts
                order = self._decoder.decode(message)
                orders.append(msgspec.structs.replace(order, client=AT_DOOR + sender.hex()))
            except MALFORMED:
                self._num_refused += 1
        return orders

    def send(self, client: str, message: bytes) -> bool:
        """False if the client has gone, or has stopped reading."""
        return post(self._socket, bytes.fromhex(client.removeprefix(AT_DOOR)), message)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
