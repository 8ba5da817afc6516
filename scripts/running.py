"""A run that is going on: finding it, and asking it something."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from core.control import Order, Reply
from scripts.command_line import UsageError
from scripts.runs import CONTROL, find_run

ANSWER_S = 15
"""how long an answer may take"""


class Running(NamedTuple):
    """A run that is going on."""

    directory: Path
    address: str
    """where it takes orders"""
    pid: int
    since: float
    """seconds since the epoch"""


class _Told(msgspec.Struct, frozen=True):
    """What stands in its file."""

    address: str
    pid: int


def find_running(run: str, runs_dir: Path) -> list[Running]:
    """The run that is meant, or, if `run` is empty, all that are going on, the newest first. Raises UsageError if there
    is none."""
    found = []
    for directory in [find_run(run, runs_dir)] if run else runs_dir.glob("*"):
        file = directory / CONTROL
        try:
            told = msgspec.json.decode(file.read_bytes(), type=_Told)
            os.kill(told.pid, 0)  # a job that was killed has left its file
            found.append(Running(directory.resolve(), told.address, told.pid, file.stat().st_mtime))
        except (OSError, OverflowError, msgspec.MsgspecError):
            continue
    if not found:
        which = run or f"in {runs_dir}"
        raise UsageError(f"no run {which} is going on")
    return sorted(found, key=lambda each: each.since, reverse=True)


def ask(address: str, words: list[str]) -> Reply | None:
    """Send one order to the job that listens there; its answer, or None if there is none in time."""
    context = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, f"operator-{uuid.uuid4().hex}".encode())
        socket.connect(address)
        socket.send(msgspec.msgpack.encode(Order(1, words)))
        return msgspec.msgpack.decode(socket.recv(), type=Reply) if socket.poll(ANSWER_S * 1000) else None
    finally:
        context.destroy(linger=0)
