"""Ctl: `python -m scripts.ctl COMMAND` tells a running job what to do, and prints its answer; `ls` lists such jobs."""

from __future__ import annotations

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scripts.command_line import UsageError, read_command_line
from scripts.running import ANSWER_S, Running, ask, find_running, token_of

DONE, REFUSED, USAGE, SILENT = 0, 1, 2, 3
_END = 2**16
"""bytes of a file of records that are looked at; a record has some hundred"""


@dataclass(frozen=True)
class Options:
    """Tell a running job what to do: status, pause, resume, snapshot, stop, policy, reset WORKER AGENT, set KEY VALUE,
    workers +N or -N. Or list what is going on: ls."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional]
    """the command"""
    run: str = ""
    """name of the run, or its directory; without it, the newest that is going on"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""
    control: str = ""
    """tcp://HOST:PORT of a job that was started with --control, from wherever that can be reached; the token is taken
    from the run's control.json"""
    control_keys: Path | None = None
    """directory of an operator's keys (python -m scripts.keys), in place of the token"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 1 refused by the job, 2 usage, 3 no answer."""
    try:
        options = read_command_line(Options, arguments, "python -m scripts.ctl")
        if not options.words:
            raise UsageError("name a command: python -m scripts.ctl status")
        if options.control_keys and not options.control:
            raise UsageError("--control-keys is for a job on another machine; add --control tcp://HOST:PORT")
        if options.control:
            token = "" if options.control_keys else token_of(options.run, options.runs_dir)
            reply = ask(options.control, list(options.words), token, options.control_keys)
        else:
            runs = find_running(options.run, options.runs_dir)
            if options.words[0] == "ls":
                if options.words[1:]:
                    raise UsageError(f"ls takes nothing behind it, and there is {' '.join(options.words[1:])!r}")
                print("\n".join(_lines(runs)))
                return DONE
            reply = ask(runs[0].address, list(options.words))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    if reply is None:
        print(
            f"error: no answer for {ANSWER_S} s; a job that is busy, as with a checkpoint, may still obey: before you "
            f"repeat it, see what the run's metrics.jsonl has of the kind command, or ask for status",
            file=sys.stderr,
        )
        return SILENT
    print(reply.what, file=sys.stdout if reply.done else sys.stderr)
    return DONE if reply.done else REFUSED


def _lines(runs: list[Running]) -> list[str]:
    """One for each, in columns."""
    rows = []
    for run in runs:
        try:
            config = json.loads((run.directory / "config.json").read_bytes())
            algorithm, env = str(config["algorithm"]), str(config["env"])
        except (OSError, KeyError, TypeError, ValueError):
            algorithm, env = "?", "config.json cannot be read"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.since))
        steps = f"{_agent_steps(run.directory):,} agent steps"
        rows.append((run.directory.name, algorithm, env, f"pid {run.pid}", steps, f"since {since}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _agent_steps(directory: Path) -> int:
    """As its last record has them; not all are read, there may be millions."""
    file = directory / "metrics.jsonl"
    if not file.exists():
        return 0
    with open(file, "rb") as records:
        records.seek(max(file.stat().st_size - _END, 0))
        found = re.findall(rb'"agent_steps": (\d+)[,}]', records.read())
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    run_main(main)
