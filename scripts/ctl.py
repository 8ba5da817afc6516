"""Ctl: `python -m scripts.ctl COMMAND` tells a running job what to do, and prints its answer."""

from __future__ import annotations

import json
import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import tyro
import zmq

from core.control import Order, Reply
from scripts.command_line import UsageError, read_command_line
from scripts.runs import CONTROL, find_run

DONE, REFUSED, USAGE, SILENT = 0, 1, 2, 3
_ANSWER_MS = 15_000


@dataclass(frozen=True)
class Options:
    """Tell a running job what to do: status, pause, resume, snapshot, stop, reset WORKER AGENT."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional]
    """the command"""
    run: str = ""
    """name of the run, or its directory; without it, the newest that is going on"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 1 refused by the job, 2 usage, 3 no answer."""
    try:
        options = read_command_line(Options, arguments, "python -m scripts.ctl")
        if not options.words:
            raise UsageError("name a command: python -m scripts.ctl status")
        reply = ask(_address(options), list(options.words))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    if reply is None:
        print(f"error: no answer for {_ANSWER_MS // 1000} s", file=sys.stderr)
        return SILENT
    print(reply.what, file=sys.stdout if reply.done else sys.stderr)
    return DONE if reply.done else REFUSED


def ask(address: str, words: list[str]) -> Reply | None:
    """Send one order to the job that listens there; its answer, or None if there is none in time."""
    context = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, f"ctl-{uuid.uuid4().hex}".encode())
        socket.connect(address)
        socket.send(msgspec.msgpack.encode(Order(1, words)))
        return msgspec.msgpack.decode(socket.recv(), type=Reply) if socket.poll(_ANSWER_MS) else None
    finally:
        context.destroy(linger=0)


def _address(options: Options) -> str:
    """Where the job listens. Raises UsageError if it is not going on."""
    if options.run:
        files = [find_run(options.run, options.runs_dir) / CONTROL]
    else:
        files = sorted(options.runs_dir.glob(f"*/{CONTROL}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        try:
            found = json.loads(file.read_text())
            os.kill(found["pid"], 0)  # a job that was killed has left its file
        except (OSError, ValueError, KeyError):
            continue
        address: str = found["address"]
        return address
    which = options.run or f"in {options.runs_dir}"
    raise UsageError(f"no run {which} is going on")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
