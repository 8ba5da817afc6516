"""The operators' door: orders to a running job over TCP, beside the socket that is only this user's.

Workers stay at that socket; nothing but an Order comes in here, from whoever is known: on loopback by the run's token
(ZeroMQ's PLAIN), elsewhere by a key that is on the list (CURVE, which encrypts, too). ZeroMQ asks about each connection
before it takes a message from it (ZAP, https://rfc.zeromq.org/spec/27). Who is refused is counted.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from pathlib import Path

import msgspec
import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from core.control import AT_DOOR, MALFORMED, MAX_BYTES, Order, post

SERVER, CLIENT, CLIENTS = "server", "client", "clients"
"""in a directory of keys: whose a file is, and the directory of those who may come in"""
HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
"""what a socket tells its monitor of connections on which token or key was wrong, or missing"""


class Door:
    """A second way in to one job, for orders only."""

    def __init__(self, address: str, keys: Path | None = None) -> None:
        """`keys`: a directory as scripts/keys.py makes it. Raises ValueError, in one line, if nobody can or everybody
        could come in."""
        place = _place(address, keys)
        self.token = "" if keys else secrets.token_urlsafe(32)
        """what to come in with, where there are no keys"""
        self.num_refused = 0
        """connections of whoever is not known, and messages that are no order"""
        self._known = _keys_of_clients(keys) if keys else [self.token.encode()]
        secret = _secret_key(keys) if keys else b""
        self._decoder = msgspec.msgpack.Decoder(Order)
        self._context = zmq.Context()
        self._asked = self._context.socket(zmq.REP)
        self._asked.bind("inproc://zeromq.zap.01")
        self._socket = self._context.socket(zmq.ROUTER)
        self._refused = self._socket.get_monitor_socket(HANDSHAKE_FAILED)
        self._socket.setsockopt(zmq.ZAP_DOMAIN, b"operators")
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

    def receive(self) -> list[Order]:
        """Everything that has arrived. Never waits."""
        while self._refused.poll(0):
            self._refused.recv_multipart(zmq.NOBLOCK)
            self.num_refused += 1
        while self._asked.poll(0):
            self._admit(*self._asked.recv_multipart(zmq.NOBLOCK))
        orders: list[Order] = []
        while self._socket.poll(0):
            sender, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            try:
                (message,) = parts
                order = self._decoder.decode(message)
                orders.append(msgspec.structs.replace(order, client=AT_DOOR + sender.hex()))
            except MALFORMED:
                self.num_refused += 1
        return orders

    def _admit(self, version: bytes, request: bytes, *about: bytes) -> None:
        """Answer whether a connection may be; what it knows comes last, a token or a key."""
        is_known = any(hmac.compare_digest(about[-1], known) for known in self._known)
        verdict = (b"200", b"known") if is_known else (b"400", b"not known")
        self._asked.send_multipart([version, request, *verdict, b"", b""])

    def send(self, client: str, message: bytes) -> bool:
        """False if the client has gone, or has stopped reading."""
        return post(self._socket, bytes.fromhex(client.removeprefix(AT_DOOR)), message)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _place(address: str, keys: Path | None) -> str:
    """Where to listen."""
    place = address.replace("//localhost:", "//127.0.0.1:")
    found = re.fullmatch(r"tcp://(.*):(\d{1,5}|\*)", place)
    try:
        host = ipaddress.IPv4Address(found[1] if found else "")
    except ValueError:
        found = None
    if found is None or (found[2] != "*" and int(found[2]) >= 2**16):
        raise ValueError(
            f"--control {address!r}; it must be tcp://ADDRESS:PORT, as tcp://127.0.0.1:5555, or with * as port"
        )
    if keys is None and not host.is_loopback:
        raise ValueError(
            f"--control {address}: others than this machine would reach it; add --control-keys DIR (python -m "
            "scripts.keys DIR NAME makes them), or listen on 127.0.0.1"
        )
    return place


def _secret_key(keys: Path) -> bytes:
    """The job's."""
    file = keys / f"{SERVER}.key_secret"
    try:
        if file.stat().st_mode & 0o077:
            raise ValueError(f"--control-keys: others can read {file}; make new keys, or chmod 600 it")
        _, secret = load_certificate(file)
    except OSError as error:
        raise ValueError(f"--control-keys {keys} has no key: {error}; python -m scripts.keys {keys} NAME") from error
    if secret is None:
        raise ValueError(f"--control-keys: there is no secret key in {file}")
    return secret


def _keys_of_clients(keys: Path) -> list[bytes]:
    """Public ones, of who may come in."""
    found = []
    for file in sorted((keys / CLIENTS).glob("*.key")):
        try:
            found.append(z85.decode(load_certificate(file)[0]))
        except (ValueError, KeyError) as error:  # KeyError: a letter that is none of Z85
            raise ValueError(f"--control-keys: there is no key in {file}") from error
    if not found:
        raise ValueError(
            f"--control-keys {keys}: nobody could come in, {keys / CLIENTS} has no key; "
            f"python -m scripts.keys {keys} NAME makes one"
        )
    return found
