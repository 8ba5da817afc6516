"""Keys: `python -m scripts.keys DIR [CLIENT ...]` makes what --control-keys and --listen-keys take: the job's keys,
and those of operators or collectors.

DIR/server.key_secret        the job's; it stays here
DIR/clients/CLIENT.key       who may come in: delete one, and from the job's next start on it may not
DIR/for-CLIENT/              for the client: --control-keys of scripts.ctl, or --keys of scripts.worker
"""

from __future__ import annotations

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from zmq.auth import create_certificates

from core.admission import CLIENT, CLIENTS, SERVER
from scripts.command_line import UsageError, read_command_line


@dataclass(frozen=True)
class Options:
    """Make the keys with which a job can be told what to do, or joined, from other machines."""

    directory: Annotated[Path, tyro.conf.Positional]
    """where they are kept; keys that are there stay"""
    clients: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """names of operators or collectors, who get a key each"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage."""
    before = os.umask(0o077)  # nobody else may read them, not even for a moment
    try:
        options = read_command_line(Options, arguments, "python -m scripts.keys")
        try:
            make(options.directory, options.clients)
        except OSError as error:
            raise UsageError(f"{options.directory}: {error}") from error
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        os.umask(before)
    print(f"for the job, --control-keys or --listen-keys: {options.directory}")
    for name in options.clients:
        place = _place_of(options.directory, name)
        print(f"for {name}, --control-keys of scripts.ctl or --keys of scripts.worker: {place}")
    return 0


def make(directory: Path, clients: tuple[str, ...]) -> None:
    """Raises UsageError, before anything is written."""
    allowed = directory / CLIENTS
    for name in clients:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise UsageError(f"{name[:80]!r} is no name of a client; it has 1 to 64 letters, digits, '_' or '-'")
        if (allowed / f"{name}.key").exists():
            raise UsageError(f"{name} has a key already; delete {allowed / name}.key to make another")
    allowed.mkdir(parents=True, exist_ok=True)
    if not (directory / f"{SERVER}.key_secret").exists():
        create_certificates(directory, SERVER)
    for name in clients:
        place = _place_of(directory, name)
        place.mkdir(exist_ok=True)
        public, _ = create_certificates(place, CLIENT)
        shutil.copy(directory / f"{SERVER}.key", place)
        shutil.copy(public, allowed / f"{name}.key")


def _place_of(directory: Path, name: str) -> Path:
    """What the operator takes along."""
    return directory / f"for-{name}"


if __name__ == "__main__":
    run_main(main)
