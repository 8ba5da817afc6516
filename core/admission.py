"""Admission: who may come in over TCP. ZeroMQ asks about each connection before it takes a message from it (ZAP,
https://rfc.zeromq.org/spec/27); who is not known is refused, and counted.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

SERVER, CLIENT, CLIENTS = "server", "client", "clients"
"""in a directory of keys: whose a file is, and the directory of those who may come in"""
HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
"""what a socket tells its monitor of connections on which token or key was wrong, or missing"""


class Admission:
    """To one socket. It answers when `attend` is called, so that must be called often."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], known: Mapping[str, bytes]):
        """`known`: tokens or public keys, by the name of who has it. Nothing else comes in through `socket`, which is
        not bound yet."""
        self.num_refused = 0
        """connections of whoever is not known"""
        self._known = known
        self._asked = context.socket(zmq.REP)
        self._asked.bind("inproc://zeromq.zap.01")
        self._refused = socket.get_monitor_socket(HANDSHAKE_FAILED)
        self.sockets = (self._asked, self._refused)
        """what to poll: somebody wants to come in, or was refused"""
        socket.setsockopt(zmq.ZAP_DOMAIN, b"sharl")

    def attend(self) -> None:
        """Admit or refuse whoever has come. Never waits."""
        while self._refused.poll(0):
            self._refused.recv_multipart(zmq.NOBLOCK)
            self.num_refused += 1
        while self._asked.poll(0):
            self._admit(*self._asked.recv_multipart(zmq.NOBLOCK))

    def _admit(self, version: bytes, request: bytes, *about: bytes) -> None:
        """Answer whether a connection may be; what it knows comes last, a token or a key."""
        names = [name for name, known in self._known.items() if hmac.compare_digest(about[-1], known)]
        verdict = (b"200", b"known", names[0].encode()) if names else (b"400", b"not known", b"")
        self._asked.send_multipart([version, request, *verdict, b""])


def place_of(option: str, address: str) -> tuple[str, ipaddress.IPv4Address]:
    """Where to listen. Raises ValueError, naming the option, if that is no address."""
    place = address.replace("//localhost:", "//127.0.0.1:")
    found = re.fullmatch(r"tcp://(.*):(\d{1,5}|\*)", place)
    try:
        host = ipaddress.IPv4Address(found[1] if found else "")
    except ValueError:
        found = None
    if found is None or (found[2] != "*" and int(found[2]) >= 2**16):
        raise ValueError(
            f"{option} {address!r}; it must be tcp://ADDRESS:PORT, as tcp://127.0.0.1:5555, or with * as port"
        )
    return place, host


def secret_key(option: str, keys: Path) -> bytes:
    """The job's. Raises ValueError, naming the option, if there is none, or others can read it."""
    file = keys / f"{SERVER}.key_secret"
    try:
        if file.stat().st_mode & 0o077:
            raise ValueError(f"{option}: others can read {file}; make new keys, or chmod 600 it")
        _, secret = load_certificate(file)
    except OSError as error:
        raise ValueError(f"{option} {keys} has no key: {error}; python -m scripts.keys {keys} NAME") from error
    if secret is None:
        raise ValueError(f"{option}: there is no secret key in {file}")
    return secret


def keys_of_clients(option: str, keys: Path) -> dict[str, bytes]:
    """Public ones, of who may come in, by name. Raises ValueError, naming the option, if there is none."""
    found = {}
    for file in sorted((keys / CLIENTS).glob("*.key")):
        try:
            found[file.stem] = z85.decode(load_certificate(file)[0])
        except (ValueError, KeyError) as error:  # KeyError: a letter that is none of Z85
            raise ValueError(f"{option}: there is no key in {file}") from error
    if not found:
        raise ValueError(
            f"{option} {keys}: nobody could come in, {keys / CLIENTS} has no key; "
            f"python -m scripts.keys {keys} NAME makes one"
        )
    return found


def use_keys(socket: zmq.Socket[bytes], keys: Path) -> None:
    """As a client whose directory this is (scripts/keys.py). Raises OSError or ValueError if it has none."""
    public, secret = load_certificate(keys / f"{CLIENT}.key_secret")
    server, _ = load_certificate(keys / f"{SERVER}.key")
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret or b"")
    socket.setsockopt(zmq.CURVE_SERVERKEY, server)
