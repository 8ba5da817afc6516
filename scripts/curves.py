"""Learning curves, as numbers: what runs wrote down, read and put together. scripts/plot.py draws them.

A run that is still going, or was cut off, is read as far as it came. Runs that differ in nothing but their seeds belong
together: their curve is the mean over the seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from scripts.command_line import UsageError
from scripts.records import Record, read_records

Array = npt.NDArray[np.float64]
Axis = Literal["steps", "time"]

_X = {"steps": "agent_steps", "time": "wall_s"}
_OF_ONE_RUN = {
    "kind",
    "wall_s",
    "run",
    "runs_dir",
    "force",
    "wandb",
    "control",
    "control_keys",
    "seed",
    "cores",
    "threads",
    "gpu",
    "python",
    "torch",
}
"""in a config record, what may differ between runs that belong together"""


class Curve(NamedTuple):
    """Points of one run."""

    x: Array
    y: Array


class Band(NamedTuple):
    """Points of several runs: at each x the mean, the lowest and the highest."""

    x: Array
    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Run:
    """One run's records, as far as it came."""

    name: str
    config: Record
    records: dict[str, list[Record]]
    """progress and eval"""

    def curve(self, kind: str, name: str, axis: Axis) -> Curve:
        """The numbers called `name` in the records of this kind; where there is none, there is no point."""
        points: dict[float, float] = {}
        for record in self.records[kind]:
            if record.get(name) is not None:
                # one at each x: while the last evaluation is awaited, records go on and agent steps do not
                points.setdefault(record[_X[axis]], record[name])
        return Curve(np.array(list(points)), np.array(list(points.values()), np.float64))


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds."""

    label: str
    runs: list[Run]

    def curves(self, kind: str, name: str, axis: Axis) -> list[Curve]:
        """One each, of those runs that have any points."""
        curves = [run.curve(kind, name, axis) for run in self.runs]
        return [curve for curve in curves if len(curve.x)]


def read_run(directory: Path) -> Run:
    """What the run in `directory` wrote down. Raises UsageError if that is nothing, or cannot be read."""
    records: list[Record] = []
    for record in read_records(directory):
        if record["kind"] == "resumed":  # what was not in the checkpoint has never been
            reached = record["agent_steps"]
            records = [each for each in records if each.get("agent_steps", 0) <= reached]
        records.append(record)
    config = next((record for record in records if record["kind"] == "config"), {})
    kept = {kind: [record for record in records if record["kind"] == kind] for kind in ("progress", "eval")}
    if not any(kept.values()):
        raise UsageError(
            f"the run {directory.name} has no records to plot; one that has begun writes some every second"
        )
    return Run(directory.name, config, kept)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Those that belong together, in the order in which they were named. No two labels are the same."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(json.dumps(_settings(run), sort_keys=True), []).append(run)
    found = list(together.values())
    return [Group(_label(each, found), each) for each in found]


def thinned(curve: Curve, most: int = 60) -> Curve:
    """At most so many points: the mean of those that lie together along x."""
    if len(curve.x) <= most:
        return curve
    bins = np.linspace(curve.x[0], curve.x[-1], most + 1)[1:-1]
    _, places, counts = np.unique(np.digitize(curve.x, bins), return_inverse=True, return_counts=True)
    return Curve(*(np.bincount(places, each) / counts for each in curve))


def over_runs(curves: Sequence[Curve]) -> Band:
    """Mean and spread as far as all of them go, at every x that one of them has; in between they are straight."""
    first, last = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    x = x[(x >= first) & (x <= last)]
    y = np.array([np.interp(x, curve.x, curve.y) for curve in curves])
    return Band(x, y.mean(axis=0), y.min(axis=0), y.max(axis=0))


def _settings(run: Run) -> Record:
    """The options that make a run what it is; --algo.tau and the like under their own names."""
    flat: Record = {}
    for name, value in run.config.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        elif name not in _OF_ONE_RUN:
            flat[name] = value
    return flat


def _title(runs: list[Run]) -> str:
    config = runs[0].config
    return f"{config.get('algorithm', runs[0].name)} in {config.get('env', 'an unknown environment')}"


def _label(runs: list[Run], groups: list[list[Run]]) -> str:
    """Algorithm and environment; where others have the same, also the options in which they differ."""
    label, mine = _title(runs), _settings(runs[0])
    rivals = [_settings(each[0]) for each in groups if _title(each) == label]
    for name in mine:
        if any(rival.get(name) != mine[name] for rival in rivals):
            label += f", {name} {mine[name]}"
    return label if len(runs) == 1 else f"{label} ({len(runs)} runs)"
