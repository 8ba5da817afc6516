"""Ctl: `python -m scripts.ctl COMMAND` tells a running job what to do, and prints its answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scripts.command_line import UsageError, read_command_line
from scripts.running import ANSWER_S, ask, find_running

DONE, REFUSED, USAGE, SILENT = 0, 1, 2, 3


@dataclass(frozen=True)
class Options:
    """Tell a running job what to do: status, pause, resume, snapshot, stop, policy, reset WORKER AGENT."""

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
        reply = ask(find_running(options.run, options.runs_dir).address, list(options.words))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    if reply is None:
        print(f"error: no answer for {ANSWER_S} s", file=sys.stderr)
        return SILENT
    print(reply.what, file=sys.stdout if reply.done else sys.stderr)
    return DONE if reply.done else REFUSED


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
