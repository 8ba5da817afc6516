"""Site: what a run has before anybody works for it. A run that is refused here leaves nothing behind."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from core import checkpoint, snapshots
from core.door import Door
from core.trace import Trace
from core.types import EnvSpec
from scripts import preflight
from scripts.command_line import refusals_are_usage_errors
from scripts.parts import Parts, build, spec_of, traced
from scripts.plan import Plan
from scripts.run_directory import RankDirectory, RunDirectory


class Site(NamedTuple):
    """Where one run takes place."""

    directory: RunDirectory | RankDirectory
    door: Door | None
    """for operators who come over TCP"""
    trace: Trace | None
    parts: Parts | None
    """None: only a process that has started the environment can tell what it offers"""
    snapshot: Path | None
    """the checkpoint from which this learner goes on"""
    rejected: list[str]
    """those that are newer and damaged, and what is wrong with them"""

    @property
    def path(self) -> Path:
        """Of the directory."""
        return self.directory.path


def take_site(plan: Plan, opened: contextlib.ExitStack) -> Site:
    """All of it, closed when `opened` is. Raises UsageError."""
    name, options, path, resumed, group = plan
    directory: RunDirectory | RankDirectory
    spec: EnvSpec | None
    with refusals_are_usage_errors():
        door = opened.enter_context(Door(options.control, options.control_keys)) if options.control else None
        snapshot, rejected = None, list[str]()
        if restores := resumed and plan.leads:
            directory = opened.enter_context(RunDirectory(path, resumed=True))
            snapshot, rejected = snapshots.newest(path)
            spec = checkpoint.read_policy(snapshot)[0].env_spec
        else:
            spec = spec_of(options)
        preflight.check_machine(options)
        trace = opened.enter_context(traced(options)) if options.trace else None
        parts = None if spec is None else build(name, options, spec, opened)
        # a new directory comes last: nothing is left of a run that cannot begin
        if group and not plan.leads:
            group.hear("the run's directory")
            directory = opened.enter_context(RankDirectory(path, group.rank))
        elif not restores:
            directory = opened.enter_context(RunDirectory(path, force=options.force))
        if group and plan.leads:
            group.say("the run's directory", str(path))
    return Site(directory, door, trace, parts, snapshot, rejected)
