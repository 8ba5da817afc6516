"""The server that a player calls, by the client that Unity has too, and beside strangers who want its place."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from envproc.unity import rpc
from envproc.unity.messages import EXCHANGE
from envproc.unity.rpc import PREFACE, PlayerServer
from tests.envproc.unity.raw_client import PATIENCE, Raw, nothing, opened
from tests.envproc.unity.raw_client import server as server


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


@pytest.mark.thorough
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
