"""A run that is going on: finding it, and asking it something."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from core.admission import HANDSHAKE_FAILED, use_keys
from core.control import MAX_BYTES, OPERATOR, Order, Reply
from scripts.command_line import UsageError
from scripts.run_directory import is_taken
from scripts.runs import CONTROL, find_run

ANSWER_S = 15
"""how long an answer may take; of a job that is busy, as with a checkpoint, it may still come, and nobody hear it"""


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
    token: str = ""
    """of the door, if there is one"""


def find_running(run: str, runs_dir: Path) -> list[Running]:
    """The run that is meant, or, if `run` is empty, all that are going on, the newest first. Raises UsageError if there
    is none."""
    found = []
    for directory in [find_run(run, runs_dir)] if run else runs_dir.glob("*"):
        file = directory / CONTROL
        try:
            told = msgspec.json.decode(file.read_bytes(), type=_Told)
            os.kill(told.pid, 0)  # a job that was killed has left its file
            if not is_taken(directory):  # and another process may have its pid by now
                continue
            found.append(Running(directory.resolve(), told.address, told.pid, file.stat().st_mtime))
        except (OSError, OverflowError, msgspec.MsgspecError):
            continue
    if not found:
        which = run or f"in {runs_dir}"
        raise UsageError(f"no run {which} is going on")
    return sorted(found, key=lambda each: each.since, reverse=True)


def token_of(run: str, runs_dir: Path) -> str:
    """What a run's door wants to hear; the newest run's, if `run` is empty. Raises UsageError if there is none."""
    directory = find_run(run, runs_dir) if run else find_running(run, runs_dir)[0].directory
    try:
        told = msgspec.json.decode((directory / CONTROL).read_bytes(), type=_Told)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{directory / CONTROL} cannot be read; the run is not going on") from error
    if not told.token:
        raise UsageError(
            f"the run {directory} has no token: it listens to this user alone, or takes --control-keys DIR"
        )
    return told.token


def ask(address: str, words: list[str], token: str = "", keys: Path | None = None) -> Reply | None:
    """Send one order to the job that listens there; its answer, or None if there is none in time.

    `token` or `keys`, a directory as scripts/keys.py makes it for an operator, are for a door. Raises UsageError if the
    job does not know them, or if the order is too long.
    """
    order = msgspec.msgpack.encode(Order(1, words))
    if len(order) > MAX_BYTES:
        raise UsageError(f"an order of {len(order):,} bytes; it must have {MAX_BYTES:,} at most")
    context = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        refused = socket.get_monitor_socket(HANDSHAKE_FAILED)
        socket.setsockopt(zmq.IDENTITY, f"{OPERATOR}{uuid.uuid4().hex}".encode())
        if keys:
            use_keys(socket, keys)
        elif token:
            socket.setsockopt(zmq.PLAIN_PASSWORD, token.encode())
        socket.connect(address)
        with contextlib.suppress(zmq.Again):  # refused before it was asked: that is heard below
            socket.send(order, zmq.NOBLOCK)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(refused, zmq.POLLIN)
        heard = dict(poller.poll(ANSWER_S * 1000))
        if refused in heard:
            raise UsageError(f"the job at {address} does not know this token or key")
        return msgspec.msgpack.decode(socket.recv(zmq.NOBLOCK), type=Reply) if heard else None
    except (OSError, ValueError, zmq.ZMQError) as error:
        raise UsageError(f"{address} cannot be asked: {error}") from error
    finally:
        context.destroy(linger=0)
