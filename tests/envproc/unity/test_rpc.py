"""The server that a player calls: by the client that Unity has too, and by one that speaks frames and knows tricks."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envproc.unity import rpc
from envproc.unity.messages import EXCHANGE
from envproc.unity.rpc import PREFACE, Disconnected, PlayerServer, Type

PATIENCE = 20.0
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
INITIAL_WINDOW, MAX_FRAME = 4, 5
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


@contextmanager
def client(port: int, **options: int) -> Iterator[Any]:
    """An Exchange of bytes by gRPC's own C core, as in Unity."""
    given = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    given += [("grpc.enable_http_proxy", 0), *((f"grpc.{name}", value) for name, value in options.items())]
    with grpc.insecure_channel(f"localhost:{port}", options=given) as channel:
        yield channel.unary_unary(EXCHANGE)


def exchange(server: PlayerServer, call: Any, request: bytes, response: bytes) -> None:
    answer = call.future(request, timeout=PATIENCE)
    assert server.receive(PATIENCE, nothing) == request
    assert server.called
    server.reply(response, PATIENCE, nothing)
    assert not server.called
    assert answer.result() == response


# --- the client that Unity has


SIZES = [0, 1, 65_530, 65_531, 65_536, 4 << 20, 8 << 20]


def test_messages_of_any_size_pass_both_ways(server: PlayerServer) -> None:
    noise = random.Random(0).randbytes(8 << 20)
    with client(server.port) as call:
        for request, response in [*zip(SIZES, reversed(SIZES), strict=True), (8 << 20, 8 << 20), (0, 0)]:
            exchange(server, call, noise[:request], noise[-response:] if response else b"")


@pytest.mark.parametrize(
    "options",
    [
        {"http2.bdp_probe": 0, "http2.lookahead_bytes": 1024},
        {"http2.max_frame_size": (1 << 24) - 1},
        {"http2.write_buffer_size": 1, "http2.max_frame_size": 1 << 14},
    ],
)
def test_big_answers_pass_whatever_windows_the_client_has(server: PlayerServer, options: dict[str, int]) -> None:
    noise = random.Random(0).randbytes(3_000_000)
    with client(server.port, **options) as call:
        for _ in range(3):
            exchange(server, call, noise, noise[::-1])


def test_thousands_of_calls_in_a_row(server: PlayerServer) -> None:
    sizes = random.Random(0)
    with client(server.port) as call:
        for number in range(2000):
            exchange(server, call, number.to_bytes(2 + sizes.randrange(900), "big"), bytes(sizes.randrange(300)))


def test_the_player_may_send_more_than_its_window_over_many_calls(
    server: PlayerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_LARGEST_WINDOW", (1 << 20) - 1)
    with client(server.port) as call:
        for number in range(40):
            exchange(server, call, bytes([number]) * 300_000, b"")


# --- the end of a player


DIES = """
import sys, threading, time
import grpc
from envproc.unity.messages import EXCHANGE

with grpc.insecure_channel(f"localhost:{sys.argv[1]}", options=[("grpc.enable_http_proxy", 0)]) as channel:
    call = channel.unary_unary(EXCHANGE)
    assert call(b"first", timeout=20) == b"answer"
    print("here", flush=True)
    if sys.argv[2] == "waiting":
        call(b"second")
    time.sleep(60)
"""

DIES_IN_A_MESSAGE = """
import socket, sys, time
from tests.envproc.unity.test_rpc import END_HEADERS, PREFACE, REQUEST, Type, frame
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    half = frame(Type.DATA, 0, 1, bytes(1000))[:500]
    connection.sendall(PREFACE + frame(Type.SETTINGS, 0, 0) + frame(Type.HEADERS, END_HEADERS, 1, REQUEST) + half)
    print("here", flush=True)
    time.sleep(60)
"""


@contextmanager
def player(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def wait_for(process: subprocess.Popen[str]) -> None:
    """Until it says that it is there."""
    assert process.stdout is not None and process.stdout.readline() == "here\n"


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=PATIENCE)


@pytest.mark.parametrize("when", ["between calls", "waiting"])
def test_a_player_that_is_killed_is_noticed_without_waiting(server: PlayerServer, when: str) -> None:
    with player(DIES, server.port, when) as process:
        assert server.receive(PATIENCE, nothing) == b"first"
        server.reply(b"answer", PATIENCE, nothing)
        if when == "waiting":
            assert server.receive(PATIENCE, nothing) == b"second"
        wait_for(process)
        kill(process)
        if when == "waiting":
            with pytest.raises(Disconnected):
                for _ in range(3):  # the first may still be taken by its end of the connection
                    server.reply(bytes(1 << 20), PATIENCE, never)
        else:
            with pytest.raises(Disconnected):
                server.receive(PATIENCE, never)


def test_a_player_that_is_killed_in_the_middle_of_a_message_is_noticed_without_waiting(server: PlayerServer) -> None:
    with player(DIES_IN_A_MESSAGE, server.port) as process:
        wait_for(process)
        with pytest.raises(Enough):
            server.receive(PATIENCE, at_most(2))
        kill(process)
        with pytest.raises(Disconnected):
            server.receive(PATIENCE, never)


def test_a_player_that_never_connects_is_noticed_by_who_watches(server: PlayerServer) -> None:
    with player("print('here', flush=True)") as process:
        wait_for(process)
        kill(process)

        def watch() -> None:
            if process.poll() is not None:
                raise Enough

        with pytest.raises(Enough):
            server.receive(PATIENCE, watch)


# --- silence


def test_silence_is_a_timeout_before_and_after_the_connection_and_in_an_answer(server: PlayerServer) -> None:
    watched: list[str] = []
    with pytest.raises(TimeoutError):
        server.receive(0.12, lambda: watched.append("before"))
    with Raw(server.port) as raw:
        with pytest.raises(TimeoutError):
            server.receive(0.12, lambda: watched.append("after"))
        raw.settings((INITIAL_WINDOW, 3))
        raw.call(b"hello")
        assert server.receive(PATIENCE, nothing) == b"hello"
        with pytest.raises(TimeoutError):
            server.reply(b"no room for this", 0.12, lambda: watched.append("answer"))
    assert set(watched) == {"before", "after", "answer"}


def test_who_watches_may_end_the_waiting(server: PlayerServer) -> None:
    with pytest.raises(Enough):
        server.receive(PATIENCE, at_most(2))
    with Raw(server.port) as raw:
        with pytest.raises(Enough):
            server.receive(PATIENCE, at_most(3))
        raw.settings((INITIAL_WINDOW, 3))
        raw.call(b"hello")
        assert server.receive(PATIENCE, nothing) == b"hello"
        with pytest.raises(Enough):
            server.reply(b"no room for this", PATIENCE, at_most(2))


def test_a_player_that_says_much_and_never_ends_is_a_timeout_too(server: PlayerServer) -> None:
    """And no reason to wait for ever."""
    with Raw(server.port) as raw:
        raw.send(Type.HEADERS, END_HEADERS, 1, REQUEST)
        stop = threading.Event()

        def talk() -> None:
            for _ in range(600):
                if stop.wait(0.005):
                    return
                raw.send(0xFA, 0, 0, b"and another thing")
            raw.hang_up()  # and whoever still listens finds that it is gone

        talker = threading.Thread(target=talk)
        talker.start()
        try:
            with pytest.raises(TimeoutError):
                server.receive(0.3, nothing)
        finally:
            stop.set()
            talker.join()


# --- somebody else


STRANGERS = {
    "closes": b"",
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "garbage": bytes(range(256)) * 10,
    "little": b"PRI * HTTP/2.0\r\n\r\nSM",
    "nearly": PREFACE[:-1] + b"!",
}


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_who_does_not_speak_http2_does_not_take_the_players_place(
    server: PlayerServer, stranger: str, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_STALLED_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.port)) as knocking:
        knocking.sendall(STRANGERS[stranger])
        if not stays:
            knocking.close()
        with client(server.port) as call:
            exchange(server, call, b"it is me", b"welcome")


def listening(port: int) -> list[str]:
    """Addresses, in the kernel's notation."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{name}").read_text().split("\n")
    ]
    listen = "0A"
    return [each[1] for each in lines if len(each) > 3 and each[1].endswith(f":{port:04X}") and each[3] == listen]


def test_only_this_machine_can_connect_and_nobody_once_the_player_has(server: PlayerServer) -> None:
    assert listening(server.port) == [f"0100007F:{server.port:04X}"]
    with client(server.port) as call:
        exchange(server, call, b"", b"")
        assert listening(server.port) == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port)).close()
        exchange(server, call, b"still", b"there")


def test_a_port_that_is_taken_is_an_error(server: PlayerServer) -> None:
    with pytest.raises(OSError, match="in use"):
        PlayerServer(server.port)


def opened() -> set[str]:
    """What this process has open, by inode: others may close theirs meanwhile."""
    links = [Path("/proc/self/fd", each) for each in os.listdir("/proc/self/fd")]
    return {os.readlink(each) for each in links if each.is_symlink()} - {f"/proc/{os.getpid()}/fd"}


def test_nothing_is_left_open() -> None:
    before = opened()
    for connect in (False, True):
        server = PlayerServer()
        raw = Raw(server.port)
        if connect:
            raw.call(b"hello")
            assert server.receive(PATIENCE, nothing) == b"hello"
        server.close()
        server.close()
        assert not server.called
        raw.close()
    assert opened() <= before
    PlayerServer(server.port).close()  # and the port can be had again


# --- a client that speaks frames


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


@pytest.fixture
def raw(server: PlayerServer) -> Iterator[Raw]:
    with Raw(server.port) as connected:
        yield connected


def test_the_answer_is_headers_data_and_trailers_that_http2_knows(server: PlayerServer, raw: Raw) -> None:
    stream = raw.call(b"hello")
    assert server.receive(PATIENCE, at_most(1)) == b"hello"
    server.reply(b"welcome", PATIENCE, at_most(1))
    frames = raw.read_until(lambda each: bool(each[1] == END_STREAM | END_HEADERS))
    assert frames[0][0] == Type.SETTINGS and frames[0][1] == 0, "the server's preface"
    assert (Type.SETTINGS, ACK, 0, b"") in frames
    assert frames[-3:] == [
        # RFC 7541: 8 is :status 200 of the static table, 31 (15 + 16) its content-type; a literal name has index 0
        (Type.HEADERS, END_HEADERS, stream, b"\x88" + b"\x0f\x10" + b"\x10application/grpc"),
        (Type.DATA, 0, stream, message(b"welcome")),
        (Type.HEADERS, END_HEADERS | END_STREAM, stream, b"\x00" + b"\x0bgrpc-status" + b"\x010"),
    ]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40), st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 5)), max_size=12), st.booleans())
def test_a_message_may_come_in_many_padded_pieces(data: bytes, cuts: list[tuple[int, int]], ends_apart: bool) -> None:
    with closing(PlayerServer()) as server, Raw(server.port) as raw:
        raw.send(Type.HEADERS, END_HEADERS, 1, REQUEST)
        rest = message(data)
        for size, padding in cuts:
            piece, rest = rest[:size], rest[size:]
            if padding < 0:
                raw.send(Type.DATA, 0, 1, piece)
            else:
                raw.send(Type.DATA, PADDED, 1, bytes([padding]) + piece + bytes(padding))
        if ends_apart:
            raw.send(Type.DATA, 0, 1, rest)
            raw.send(Type.DATA, END_STREAM, 1)
        else:
            raw.send(Type.DATA, END_STREAM, 1, rest)
        assert server.receive(PATIENCE, at_most(1)) == data


def test_headers_may_go_on_in_another_frame_and_have_padding_and_priority(server: PlayerServer, raw: Raw) -> None:
    raw.send(Type.HEADERS, PADDED | 0x20, 1, b"\x03" + bytes(5) + REQUEST[:1] + bytes(3))
    raw.send(Type.CONTINUATION, 0, 1, REQUEST[1:])
    raw.send(Type.CONTINUATION, END_HEADERS, 1)
    raw.send(Type.DATA, END_STREAM, 1, message(b"hello"))
    assert server.receive(PATIENCE, at_most(1)) == b"hello"


def test_frames_that_nobody_knows_are_passed_over(server: PlayerServer, raw: Raw) -> None:
    raw.send(2, 0, 1, bytes(5))  # PRIORITY
    raw.send(0xFA, 0xFF, 0, b"grease")
    raw.send(Type.HEADERS, END_HEADERS, 1, REQUEST)
    raw.send(0xFB, END_STREAM, 1, b"grease")
    raw.send(Type.DATA, 0, 99, message(b"nobody's"))
    raw.send(Type.SETTINGS, 0, 0, struct.pack(">HI", 0xF00F, 1))
    raw.send(Type.DATA, END_STREAM, 1, message(b"hello"))
    assert server.receive(PATIENCE, at_most(1)) == b"hello"


def test_a_ping_is_echoed_once(server: PlayerServer, raw: Raw) -> None:
    raw.send(Type.PING, 0, 0, b"12345678")
    raw.send(Type.PING, ACK, 0, b"87654321")
    raw.call(b"hello")
    server.receive(PATIENCE, at_most(1))
    server.reply(b"", PATIENCE, at_most(1))
    frames = raw.read_until(lambda each: bool(each[1] & END_STREAM and each[0] == Type.HEADERS))
    assert [each for each in frames if each[0] == Type.PING] == [(Type.PING, ACK, 0, b"12345678")]


def test_an_answer_comes_in_pieces_as_there_is_room_for_it(server: PlayerServer, raw: Raw) -> None:
    raw.settings((INITIAL_WINDOW, 10))
    stream = raw.call(b"hello")
    assert server.receive(PATIENCE, at_most(1)) == b"hello"
    raw.room(stream, 7)
    raw.room(0, 100)
    raw.room(99, 100)
    raw.room(stream, 20)
    raw.settings((INITIAL_WINDOW, 4))  # 6 less, for this call too
    raw.room(stream, 5)
    raw.room(stream, 3)
    raw.settings((INITIAL_WINDOW, 5))
    raw.room(stream, 1000)
    data = bytes(range(60))
    server.reply(data, PATIENCE, at_most(1))
    pieces = raw.answer(stream)
    assert b"".join(pieces) == message(data)
    assert [len(each) for each in pieces] == [10, 7, 20, 2, 1, 25]


def test_room_that_is_given_before_the_call_is_complete_counts(server: PlayerServer, raw: Raw) -> None:
    raw.settings((INITIAL_WINDOW, 0))
    raw.send(Type.HEADERS, END_HEADERS, 1, REQUEST)
    raw.room(1, 50)
    raw.send(Type.DATA, END_STREAM, 1, message(b"hello"))
    assert server.receive(PATIENCE, at_most(1)) == b"hello"
    server.reply(bytes(40), PATIENCE, at_most(1))
    assert raw.answer(1) == [message(bytes(40))]


def test_each_call_begins_with_a_window_of_its_own(server: PlayerServer, raw: Raw) -> None:
    raw.settings((INITIAL_WINDOW, 10))
    for _ in range(3):
        stream = raw.call(b"")
        server.receive(PATIENCE, at_most(1))
        raw.room(stream, 5)
        server.reply(bytes(10), PATIENCE, at_most(1))
        assert [len(each) for each in raw.answer(stream)] == [10, 5]


def test_the_connection_has_a_window_of_its_own_over_all_calls(server: PlayerServer, raw: Raw) -> None:
    raw.settings((INITIAL_WINDOW, 1 << 20))
    sent = 0
    for _ in range(3):  # of 65535 bytes that are allowed together
        stream = raw.call(b"")
        server.receive(PATIENCE, at_most(1))
        server.reply(bytes(15_000), PATIENCE, at_most(1))
        sent += sum(map(len, raw.answer(stream)))
    stream = raw.call(b"")
    server.receive(PATIENCE, at_most(1))
    raw.room(0, 500)
    raw.room(0, 1 << 20)
    server.reply(bytes(60_000), PATIENCE, at_most(1))
    pieces = [len(each) for each in raw.answer(stream)]
    assert sum(pieces) == 60_005
    assert pieces[:3] == [1 << 14, (65_535 - sent) % (1 << 14), 500]


@pytest.mark.parametrize("asked", [1 << 14, 20_000, (1 << 24) - 1, (1 << 32) - 1])
def test_no_frame_is_larger_than_the_player_takes(server: PlayerServer, asked: int) -> None:
    data = bytes(1 << 24)
    largest = min(asked, (1 << 24) - 1)
    with Raw(server.port) as raw:
        raw.settings((MAX_FRAME, asked), (INITIAL_WINDOW, (1 << 31) - 1))
        raw.room(0, 1 << 30)
        stream = raw.call(b"")
        server.receive(PATIENCE, at_most(1))
        replying = threading.Thread(target=server.reply, args=(data, PATIENCE, nothing))
        replying.start()
        pieces = raw.answer(stream)
        replying.join(PATIENCE)
    assert b"".join(pieces) == message(data)
    assert {len(each) for each in pieces[:-1]} == {largest}


def test_a_second_call_while_one_is_open_is_refused_and_the_first_goes_on(server: PlayerServer, raw: Raw) -> None:
    raw.send(Type.HEADERS, END_HEADERS, 1, REQUEST)
    raw.send(Type.HEADERS, END_HEADERS, 3, REQUEST)
    raw.send(Type.DATA, END_STREAM, 3, message(b"second"))
    raw.send(Type.DATA, END_STREAM, 1, message(b"first"))
    assert server.receive(PATIENCE, at_most(1)) == b"first"
    refused = (Type.RST_STREAM, 0, 3, struct.pack(">I", 7))
    assert raw.read_until(lambda each: each[0] == Type.RST_STREAM)[-1] == refused
    server.reply(b"", PATIENCE, at_most(1))
    assert raw.answer(1) == [message(b"")]


def test_a_second_call_is_refused_while_the_answer_to_the_first_has_no_room(server: PlayerServer, raw: Raw) -> None:
    raw.settings((INITIAL_WINDOW, 1))
    raw.call(b"first")
    assert server.receive(PATIENCE, at_most(1)) == b"first"
    raw.send(Type.HEADERS, END_HEADERS, 3, REQUEST)
    raw.send(Type.DATA, END_STREAM, 3, message(b"second"))
    raw.room(1, 100)
    server.reply(b"answer", PATIENCE, at_most(1))
    frames = raw.read_until(lambda each: bool(each[0] == Type.HEADERS and each[1] & END_STREAM))
    assert (Type.RST_STREAM, 0, 3, struct.pack(">I", 7)) in frames


@pytest.mark.parametrize("kind", [Type.RST_STREAM, Type.GOAWAY])
@pytest.mark.parametrize("when", ["before the call", "in the call", "in the answer"])
def test_who_cancels_or_says_goodbye_is_gone(server: PlayerServer, raw: Raw, kind: Type, when: str) -> None:
    leave = (kind, 0, *((1, bytes(4)) if kind == Type.RST_STREAM else (0, bytes(8))))
    if when == "in the answer":
        raw.settings((INITIAL_WINDOW, 1))
        raw.call(b"hello")
        assert server.receive(PATIENCE, at_most(1)) == b"hello"
        raw.send(*leave)
        with pytest.raises(Disconnected):
            server.reply(b"answer", PATIENCE, at_most(1))
        return
    if when == "in the call":
        raw.send(Type.HEADERS, END_HEADERS, 1, REQUEST)
        raw.send(Type.DATA, 0, 1, message(b"hello")[:7])
    raw.send(*leave)
    if kind == Type.RST_STREAM and when == "before the call":  # of one that there is not
        raw.call(b"hello")
        assert server.receive(PATIENCE, at_most(1)) == b"hello"
    else:
        with pytest.raises(Disconnected):
            server.receive(PATIENCE, at_most(1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        message(b"hello", compressed=True),
        message(b"hello")[:-1],
        message(b"hello") + b"!",
        message(b"hello") * 2,
        b"\x02" + message(b"hello")[1:],
    ],
)
def test_what_is_no_message_of_grpc_is_a_value_error(server: PlayerServer, raw: Raw, data: bytes) -> None:
    raw.send(Type.HEADERS, END_HEADERS, 1, REQUEST)
    raw.send(Type.DATA, END_STREAM, 1, data)
    with pytest.raises(ValueError, match="no uncompressed gRPC message"):
        server.receive(PATIENCE, at_most(1))


def test_a_call_that_ends_with_its_headers_is_a_value_error(server: PlayerServer, raw: Raw) -> None:
    raw.send(Type.HEADERS, END_HEADERS | END_STREAM, 1, REQUEST)
    with pytest.raises(ValueError, match="a call of 0 bytes"):
        server.receive(PATIENCE, at_most(1))


FRAMES = st.tuples(
    st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 3, 2**31 - 1]), st.binary(max_size=20)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=8), st.binary(max_size=12))
def test_whatever_comes_ends_as_it_is_documented(frames: list[Frame], rest: bytes) -> None:
    """In a message, or one of four exceptions; here the player hangs up in the end."""
    with closing(PlayerServer()) as server, Raw(server.port) as raw:
        for each in frames:
            raw.send(*each)
        raw.send_bytes(rest)
        raw.hang_up()
        try:
            while True:
                assert isinstance(server.receive(PATIENCE, at_most(1)), bytes)
                server.reply(bytes(30), PATIENCE, at_most(1))
        except (Disconnected, ValueError):
            pass
