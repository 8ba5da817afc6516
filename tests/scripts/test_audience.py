"""A run's output, and who does not take it."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.audience import audience_may_leave


@contextlib.contextmanager
def shown_to(file: int) -> Iterator[None]:
    """As if the program's output went there."""
    with (
        os.fdopen(file, "w") as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
        audience_may_leave(),
    ):
        yield


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def unread() -> int:
    """A pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def hung_up() -> int:
    """A terminal that is gone."""
    other, terminal = pty.openpty()
    os.close(other)
    return terminal


@pytest.mark.parametrize("place", [full, unread, hung_up])
def test_where_nothing_can_be_written_nothing_fails(place: Callable[[], int]) -> None:
    with shown_to(place()):
        for stream in (sys.stdout, sys.stderr):
            for _ in range(100):
                print("a line", file=stream, flush=True)


def test_what_is_taken_is_there_at_once_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with shown_to(os.open(file, os.O_WRONLY | os.O_CREAT)):
        for number in range(100):
            print(number)
            print("ä", file=sys.stderr)
            assert file.read_text() == "".join(f"{each}\nä\n" for each in range(number + 1))


@pytest.mark.parametrize("place", [os.pipe, pty.openpty])
def test_who_stops_reading_stops_nobody_and_may_go_on_later(place: Callable[[], tuple[int, int]]) -> None:
    reader, writer = place()
    begun = time.monotonic()
    with shown_to(writer):
        for _ in range(1000):
            print("x" * 999)
        print("lost")
        assert time.monotonic() - begun < 30
        os.set_blocking(reader, False)
        text = b""
        while b"again" not in text:
            assert time.monotonic() - begun < 60
            print("again")
            with contextlib.suppress(BlockingIOError):
                text += os.read(reader, 10_000)
    os.close(reader)
    assert b"lost" not in text and text.startswith(b"x" * 999)


def test_a_closed_output_is_as_good_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with audience_may_leave():
        print("a line", flush=True)
        assert not sys.stdout.isatty()
    assert sys.stdout is None


def test_who_collects_the_output_gets_it() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as collected, audience_may_leave():
        print("a line")
    assert collected.getvalue() == "a line\n"
