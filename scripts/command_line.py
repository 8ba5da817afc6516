"""Reading a command line into a dataclass: what is wrong with it is told in one line."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from core.types import in_one_line

Read = TypeVar("Read")


class UsageError(Exception):
    """What the user asked for cannot be done; the message is one line that says why and what to do."""


@contextlib.contextmanager
def refusals_are_usage_errors() -> Iterator[None]:
    """While nothing has been started, an error is the user's to mend: one line, with the way out."""
    try:
        yield
    except (ValueError, MemoryError, RuntimeError, OSError) as error:
        raise UsageError(in_one_line(error)) from error


def read_command_line(kind: type[Read], arguments: Sequence[str], program: str, default: Read | None = None) -> Read:
    """`kind`, a dataclass, from command line arguments.

    Raises UsageError with one line; SystemExit(0) after printing help that was asked for.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(kind, prog=program, args=arguments)
            return tyro.cli(kind, prog=program, args=arguments, default=default)
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise UsageError(_one_line(complaint.getvalue())) from None


def _one_line(box: str) -> str:
    """tyro draws a box: a title, the complaint, a rule, hints. The complaint and the first suggestion make one line."""
    lines = [line.strip("│| ") for line in box.splitlines()]
    ruled = "\n".join("" if not line.strip("─╭╮╰╯+- ") else line for line in lines[1:]).strip()
    message = " ".join(ruled.split("\n\n")[0].split()) or "the options could not be read"
    if "Perhaps you meant:" in lines:
        message += f"; did you mean {lines[lines.index('Perhaps you meant:') + 1].split()[0]}?"
    return message


def check_output(option: str, file: Path, *endings: str) -> None:
    """Raises UsageError, before any work is done, if `file` cannot be written or has none of these endings."""
    if endings and file.suffix not in endings:
        raise UsageError(f"{option} {file}: the name must end in {' or '.join(endings)}")
    if file.is_dir():
        raise UsageError(f"{option} {file} is a directory; name a file")
    if not file.resolve().parent.is_dir():
        raise UsageError(f"{option} {file}: there is no directory {file.parent}; make it first")
    if not os.access(file if file.exists() else file.resolve().parent, os.W_OK):
        raise UsageError(f"{option} {file} cannot be written; choose another place, or its permissions")
