"""Finding a run by its name."""

from __future__ import annotations

import sys
from pathlib import Path

from core import checkpoint
from core.types import FloatArray
from scripts.command_line import UsageError

CONTROL = "control.json"
"""in the directory of a run that is going on: where it listens"""


def find_run(run: str, runs_dir: Path) -> Path:
    """The directory of the run of this name below `runs_dir`, or at this path. Raises UsageError if there is none."""
    directory = Path(run) if "/" in run else runs_dir / run
    if not run or not directory.is_dir():
        known = sorted(runs_dir.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        hint = f"the newest is {known[-1].parent.name}" if known else "train one first"
        raise UsageError(f"there is no run {directory if run else repr(run)}; {hint}")
    return directory


def kept_policy(directory: Path) -> tuple[checkpoint.SavedPolicy, FloatArray]:
    """The policy that the run kept, and its parameters; says so if a newer checkpoint is passed over.

    Raises ValueError if no checkpoint can be read.
    """
    taken, rejected = checkpoint.newest(directory)
    for each in rejected:
        print(f"note: {each}; {taken.name} is taken instead", file=sys.stderr)
    return checkpoint.read_policy(taken)
