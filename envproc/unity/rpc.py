"""The server that one player calls: gRPC over HTTP/2, bytes in and bytes out, in the thread that waits for it.

A player makes one unary call at a time and simulates nothing until it is answered. For this, a general server with its
threads and queues costs seven times the processor time of what is here, and does not say when the player's connection
is gone. Here that is the end of a stream, seen at once.

What the specifications ask of a server for such a client is kept: HTTP/2 frames, settings, flow control in both
directions and pings (RFC 9113), message framing and trailers (gRPC over HTTP/2). What a client's header fields say is
not read, so nothing of their compression needs to be kept: there is one procedure.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = struct.Struct(">IBI")  # of a frame: 24 bits of length and 8 of type, flags, stream
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8  # flags
_REFUSED_STREAM = 0x7
_INITIAL_WINDOW, _MAX_FRAME = 0x4, 0x5  # settings
_DEFAULT_WINDOW, _LARGEST_WINDOW = 2**16 - 1, 2**31 - 1
_LARGEST_FRAME = 2**24 - 1
# HPACK literals: `:status 200`, `content-type: application/grpc` and `grpc-status: 0`, none of them indexed
_RESPONSE = b"\x88\x0f\x10\x10application/grpc"
_TRAILERS = b"\x00\x0bgrpc-status\x010"
_LOOK_EVERY_S = 0.05
"""how often a waiting server looks whether the player's process still lives"""
_STALLED_S = 5.0
"""for what a connection that is alive does at once: say hello, take bytes that it has room for"""


class Type(IntEnum):
    """Of a frame."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Disconnected(Exception):
    """The player's end of the connection is closed."""


class PlayerServer:
    """Waits for one player on the loopback interface, then serves its calls, one at a time."""

    def __init__(self, port: int = 0) -> None:
        """Listen on 127.0.0.1:`port`; 0 lets the system choose one that nobody has. OSError if the port is taken."""
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", port), backlog=4)
        self.port: int = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._read = bytearray()
        self._stream = 0  # of the call that is not answered yet; 0: none
        self._called = False  # whether that call is complete
        self._window = _DEFAULT_WINDOW  # bytes that the player takes from us, on all streams together
        self._stream_window = self._initial_window = _DEFAULT_WINDOW  # and on the call's
        self._max_frame = 2**14
        self._taken = 0  # bytes read of the window that the player was given

    def receive(self, within_s: float, watch: Callable[[], None]) -> bytes:
        """The player's next message.

        `watch` is called every 50 ms and may raise. Raises TimeoutError after `within_s` seconds, Disconnected if the
        player is gone, ValueError if what came is no gRPC.
        """
        deadline = time.monotonic() + within_s
        if self._connection is None:
            self._accept(deadline, watch)
        parts: list[bytes] = []
        while True:
            kind, flags, stream, payload = self._next_frame(deadline, watch)
            if kind == Type.HEADERS and not self._stream:
                self._stream, self._stream_window = stream, self._initial_window
            elif kind == Type.DATA and payload and stream == self._stream:
                parts.append(payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload)
            if kind in (Type.DATA, Type.HEADERS) and flags & _END_STREAM and stream and stream == self._stream:
                self._called = True
                return _unframe(b"".join(parts))

    def reply(self, message: bytes, within_s: float, watch: Callable[[], None]) -> None:
        """Answer the call that was received last. Raises as receive does."""
        deadline = time.monotonic() + within_s
        data = memoryview(struct.pack(">BI", 0, len(message)) + message)
        headers = _frame(Type.HEADERS, _END_HEADERS, self._stream, _RESPONSE)
        trailers = _frame(Type.HEADERS, _END_HEADERS | _END_STREAM, self._stream, _TRAILERS)
        room = min(self._window, self._stream_window, self._max_frame)
        if len(data) <= room:  # nearly always: all in one packet
            self._window -= len(data)
            self._write(headers + _frame(Type.DATA, 0, self._stream, bytes(data)) + trailers)
        else:
            self._write(headers)
            while data:
                room = min(self._window, self._stream_window, self._max_frame)
                if room <= 0:
                    self._next_frame(deadline, watch)  # it says when there is room again
                    continue
                self._send(Type.DATA, 0, self._stream, bytes(data[:room]))
                self._window -= len(data[:room])
                self._stream_window -= len(data[:room])
                data = data[room:]
            self._write(trailers)
        self._stream, self._called = 0, False

    @property
    def called(self) -> bool:
        """Whether a call waits for its answer."""
        return self._called

    def close(self) -> None:
        for each in (self._connection, self._listener):
            if each is not None:
                each.close()
        self._connection = self._listener = None
        self._called = False

    def _accept(self, deadline: float, watch: Callable[[], None]) -> None:
        """Take the first connection that speaks HTTP/2, and listen no longer: nobody else has business here."""
        assert self._listener is not None, "receive() after close()"
        while self._connection is None:
            watch()
            _check(deadline)
            self._listener.settimeout(_LOOK_EVERY_S)
            try:
                self._connection = self._listener.accept()[0]
            except TimeoutError:
                continue
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.settimeout(_LOOK_EVERY_S)
            self._read.clear()
            try:
                self._fill(len(PREFACE), min(deadline, time.monotonic() + _STALLED_S), watch)
            except (TimeoutError, Disconnected):
                self._read.clear()
            if self._read[: len(PREFACE)] != PREFACE:  # somebody who knocks at ports
                self._connection.close()
                self._connection = None
        self._listener.close()
        self._listener = None
        del self._read[: len(PREFACE)]
        settings = ((_INITIAL_WINDOW, _LARGEST_WINDOW), (_MAX_FRAME, _LARGEST_FRAME))
        self._send(Type.SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in settings))
        self._send(Type.WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW))

    def _next_frame(self, deadline: float, watch: Callable[[], None]) -> tuple[int, int, int, bytes]:
        """(type, flags, stream, payload) of the next frame, after having done what it asks of the connection."""
        self._fill(_HEADER.size, deadline, watch)
        length_and_kind, flags, stream = _HEADER.unpack_from(self._read)
        length, kind = length_and_kind >> 8, length_and_kind & 0xFF
        stream &= _LARGEST_WINDOW
        end = _HEADER.size + length
        self._fill(end, deadline, watch)
        payload = bytes(memoryview(self._read)[_HEADER.size : end])
        del self._read[:end]
        if kind == Type.SETTINGS and not flags & _ACK:
            if length % 6:
                raise ValueError(f"HTTP/2 settings of {length} bytes, which is no multiple of 6")
            for key, value in struct.iter_unpack(">HI", payload):
                if key == _INITIAL_WINDOW:
                    self._stream_window += value - self._initial_window
                    self._initial_window = value
                elif key == _MAX_FRAME:
                    self._max_frame = min(value, _LARGEST_FRAME)
            self._send(Type.SETTINGS, _ACK, 0, b"")
        elif kind == Type.DATA:
            self._give_room(length)
        elif kind == Type.HEADERS and self._stream not in (0, stream):  # one call at a time
            self._send(Type.RST_STREAM, 0, stream, struct.pack(">I", _REFUSED_STREAM))
        elif kind == Type.WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big") & _LARGEST_WINDOW
            if stream == 0:
                self._window += increment
            elif stream == self._stream:
                self._stream_window += increment
        elif kind == Type.PING and not flags & _ACK:
            self._send(Type.PING, _ACK, 0, payload)
        elif kind == Type.GOAWAY or (kind == Type.RST_STREAM and stream == self._stream):
            raise Disconnected
        return kind, flags, stream, payload

    def _fill(self, size: int, deadline: float, watch: Callable[[], None]) -> None:
        """Read until there are `size` bytes."""
        assert self._connection is not None, "nobody has connected"
        while len(self._read) < size:
            try:
                received = self._connection.recv(1 << 20)
            except TimeoutError:
                watch()
                _check(deadline)
                continue
            except OSError as error:
                raise Disconnected from error
            if not received:
                raise Disconnected
            self._read += received
            _check(deadline)  # also of one who says much and never ends

    def _give_room(self, size: int) -> None:
        """So much was read; before the player runs out of what it may send, allow it as much again."""
        self._taken += size
        if self._taken > _LARGEST_WINDOW // 4:
            self._send(Type.WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken))
            self._taken = 0

    def _send(self, kind: Type, flags: int, stream: int, payload: bytes) -> None:
        self._write(_frame(kind, flags, stream, payload))

    def _write(self, frames: bytes) -> None:
        assert self._connection is not None, "nobody has connected"
        try:
            self._connection.settimeout(_STALLED_S)
            self._connection.sendall(frames)
            self._connection.settimeout(_LOOK_EVERY_S)
        except OSError as error:
            raise Disconnected from error


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError


def _frame(kind: Type, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def _unframe(data: bytes) -> bytes:
    """The one message in a call's data. Raises ValueError if it is not one, or is compressed."""
    if len(data) < 5 or data[0] or int.from_bytes(data[1:5], "big") != len(data) - 5:
        raise ValueError(f"a call of {len(data)} bytes that begins with {data[:5]!r} is no uncompressed gRPC message")
    return data[5:]
