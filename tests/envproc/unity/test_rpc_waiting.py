"""How the waiting for a player ends: with its death, in a timeout, or when who watches has enough."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envproc.unity.rpc import Disconnected, PlayerServer, Type
from tests.envproc.unity.raw_client import (
    END_HEADERS,
    INITIAL_WINDOW,
    PATIENCE,
    REQUEST,
    Enough,
    Raw,
    at_most,
    never,
    nothing,
)
from tests.envproc.unity.raw_client import server as server

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
from tests.envproc.unity.raw_client import END_HEADERS, PREFACE, REQUEST, Type, frame
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
