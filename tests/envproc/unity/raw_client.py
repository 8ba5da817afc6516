"""What the tests of the server that a player calls share: whom it waits for, and a client that speaks frames."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from envproc.unity.rpc import PREFACE, PlayerServer, Type

PATIENCE = 20.0
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW = 4
REQUEST = b"\x83\x86"  # :method POST, :scheme http
Frame = tuple[int, int, int, bytes]


def nothing() -> None:
    """To watch."""


class Enough(Exception):
    """Of waiting."""


def at_most(times: int) -> Callable[[], None]:
    """A watch that has Enough at the next."""
    left = iter(range(times))

    def watch() -> None:
        if next(left, None) is None:
            raise Enough

    return watch


never = at_most(0)
"""for what must be known without waiting"""


@pytest.fixture
def server() -> Iterator[PlayerServer]:
    with closing(PlayerServer()) as opened:
        yield opened


def opened() -> set[str]:
    """What this process has open, by inode: others may close theirs meanwhile."""
    links = [Path("/proc/self/fd", each) for each in os.listdir("/proc/self/fd")]
    return {os.readlink(each) for each in links if each.is_symlink()} - {f"/proc/{os.getpid()}/fd"}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def message(data: bytes, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


class Raw:
    """What it sends lies in the kernel until the server reads it, in this order: no test here needs a thread."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._file = self._socket.makefile("rb")
        self._stream = -1
        self._socket.sendall(PREFACE + frame(Type.SETTINGS, 0, 0))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def hang_up(self) -> None:
        """Say nothing more."""
        self._socket.shutdown(socket.SHUT_WR)

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.send_bytes(frame(kind, flags, stream, payload))

    def settings(self, *pairs: tuple[int, int]) -> None:
        self.send(Type.SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in pairs))

    def room(self, stream: int, more: int) -> None:
        self.send(Type.WINDOW_UPDATE, 0, stream, struct.pack(">I", more))

    def call(self, data: bytes) -> int:
        """The call's stream."""
        self._stream += 2
        self.send(Type.HEADERS, END_HEADERS, self._stream, REQUEST)
        self.send(Type.DATA, END_STREAM, self._stream, message(data))
        return self._stream

    def read(self) -> Frame:
        header = self._file.read(9)
        assert len(header) == 9, "the server closed the connection"
        payload = self._file.read(int.from_bytes(header[:3], "big"))
        return header[3], header[4], int.from_bytes(header[5:], "big"), payload

    def read_until(self, ends: Callable[[Frame], bool]) -> list[Frame]:
        frames = [self.read()]
        while not ends(frames[-1]):
            frames.append(self.read())
        return frames

    def answer(self, stream: int) -> list[bytes]:
        """The data of the answer, a piece a frame."""
        frames = self.read_until(lambda each: bool(each[:2] == (Type.HEADERS, END_STREAM | END_HEADERS)))
        told = [each for each in frames if each[2] == stream]
        assert [each[0] for each in told[1:-1]] == [Type.DATA] * (len(told) - 2)
        assert told[0][:2] == (Type.HEADERS, END_HEADERS)
        return [each[3] for each in told[1:-1]]
