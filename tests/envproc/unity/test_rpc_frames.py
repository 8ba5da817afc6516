"""The server that a player calls, frame by frame: what it reads, what it answers and what it refuses."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envproc.unity.rpc import Disconnected, PlayerServer, Type
from tests.envproc.unity.raw_client import (
    END_HEADERS,
    END_STREAM,
    INITIAL_WINDOW,
    PATIENCE,
    REQUEST,
    Frame,
    Raw,
    at_most,
    message,
    nothing,
)
from tests.envproc.unity.raw_client import server as server

ACK, PADDED = 1, 8
MAX_FRAME = 5


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
