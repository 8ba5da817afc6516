"""The command line of a run that goes on: `python -m scripts.train --resume RUN [options]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from algos import ALGORITHMS
from core.evaluations import Evaluations
from core.learner import Learner
from scripts.command_line import UsageError, read_command_line
from scripts.options import RESUME, Options, joined
from scripts.runs import find_run

_OF_THE_ROWS = ("env", "behavior", "workers", "copies", "frame_stack")
"""options that stay as they are: what they change, the rows in the ring depend on"""
_OF_A_NEW_RUN = ("run", "init_from", "force")


def parse(arguments: Sequence[str]) -> tuple[str, Options[Any], Path]:
    """The algorithm's name, the run's own options but for those that are given anew, and the run's directory.

    Raises UsageError.
    """
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"name the run that is to go on: {RESUME}")
    run, *rest = joined(arguments)
    place = Path("runs")
    if "--runs-dir" in rest[:-1]:
        place = Path(rest[rest.index("--runs-dir") + 1])
    directory = find_run(run, place)
    options: Any = Options
    try:
        saved = json.loads((directory / "config.json").read_text())
        name = saved["algorithm"]
        kind: type[Options[Any]] = options[ALGORITHMS[name].config]
        before = msgspec.convert(saved, kind, dec_hook=lambda kind, value: kind(value))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{directory} is no run that can go on: its config.json cannot be read ({error})") from error
    before = replace(before, init_from="", force=False, trace=None, runs_dir=directory.parent)
    now = read_command_line(kind, rest, "python -m scripts.train --resume RUN", before)
    for each in _OF_A_NEW_RUN:
        if getattr(now, each) != getattr(before, each):
            option = f"--{each.replace('_', '-')}"
            raise UsageError(f"{option} is for a new run, and {directory} goes on; leave out --resume or {option}")
    for each in _OF_THE_ROWS:
        was, wanted = getattr(before, each), getattr(now, each)
        if was != wanted:
            option = f"--{each.replace('_', '-')} {wanted}"
            raise UsageError(f"{option}: the run has {was!r}, and its rows depend on it; start another run")
    return name, now, directory


def refuse_if_over(learner: Learner, evaluations: Evaluations, options: Options[Any]) -> None:
    """Raises ValueError if there is nothing left to do."""
    done, newest, goal = learner.agent_steps, evaluations.newest, options.until_return
    if done >= options.steps:
        raise ValueError(f"the run has made {done:,} of {options.steps:,} agent steps; give it more --steps to go on")
    if goal is not None and newest is not None and newest.mean >= goal:
        raise ValueError(f"the run has reached a return of {newest.mean:.2f}; give it a higher --until-return, or None")
