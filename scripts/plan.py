"""Plan: which run this process is to make, alone or as one of several learners that torchrun has started.

Rank 0 decides: the options, the run's directory, and whether it goes on with a run of this job, because an earlier
round of it has ended. The others take that over; what they were given themselves must be the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from core import snapshots
from core.group import Group
from core.to_wandb import check_wandb
from core.types import in_one_line, require
from scripts import resume
from scripts.command_line import UsageError, refusals_are_usage_errors
from scripts.options import Options, num_cores, parse
from scripts.parts import check_device
from scripts.run_directory import name_of

_RESUME = "--resume"


class Plan(NamedTuple):
    """What is to be done here."""

    algorithm: str
    options: Options[Any]
    path: Path
    """the run's directory"""
    resumed: bool
    """it is there already, and the run goes on"""
    group: Group | None = None
    """of which this learner is one"""

    @property
    def leads(self) -> bool:
        """Whether this process keeps the run's records: checkpoints, evaluations, metrics."""
        return self.group is None or self.group.leads

    @property
    def cores(self) -> int:
        """Of this machine, for this learner and its workers."""
        return max(num_cores() // (self.group.local_size if self.group else 1), 1)

    def config(self, options: Options[Any]) -> dict[str, Any]:
        """What stands in the run's config.json while its options are these."""
        job = {"job": self.group.job} if self.group else {}
        return {"algorithm": self.algorithm, **jsonable(options), "run": self.path.name, **job}


def make_plan(arguments: Sequence[str]) -> Plan:
    """By the command line, and by torchrun's environment variables. Raises UsageError, Interrupted or GroupLost."""
    if not rank_here():
        return _alone(arguments)
    try:
        group = Group()
    except (RuntimeError, KeyError) as error:
        raise UsageError(f"torchrun's store cannot be reached: {in_one_line(error, 200)}") from error
    plan = None if arguments[:1] == [_RESUME] and not group.leads else _alone(arguments)
    given: dict[str, Any] = {"arguments": list(arguments)}
    if plan is not None and not plan.resumed:
        said = jsonable(plan.options)
        parts = {group: said.pop(group) for group in ("algo", "unity")}
        given = {"algorithm": plan.algorithm, **said}
        given |= {f"{part}.{name}": value for part, them in parts.items() for name, value in them.items()}
    try:
        group.agree(given)
        if plan is not None and group.leads:
            plan = _with_earlier_rounds(plan, group)
            group.say("plan", {"options": plan.config(plan.options), "resumed": plan.resumed})
        said, resumed = (group.hear("plan")[each] for each in ("options", "resumed"))
        options = _of_rank(resume.options_of(said), group)
    except (ValueError, RuntimeError) as error:  # the latter is torch's, when the store is gone
        raise UsageError(in_one_line(error, 500)) from error
    return Plan(said["algorithm"], options, options.runs_dir / said["run"], resumed, group)


def settled(plan: Plan) -> Plan:
    """With as many workers and threads as there are cores for. Raises UsageError for what cannot be had here."""
    options = plan.options
    with refusals_are_usage_errors():
        options.check()
        check_device(options.device)
        if options.wandb:
            check_wandb()
    workers = options.workers or (1 if options.in_editor else max(plan.cores - 1, 1))
    if options.min_workers > workers:
        raise UsageError(f"--min-workers {options.min_workers}; it must be at most --workers {workers}")
    threads = options.threads or max(plan.cores - workers, 1)
    return plan._replace(options=replace(options, workers=workers, threads=threads))


def rank_here() -> str:
    """Who says something: "rank 1: ", or nothing where there is one learner that nobody but us has started."""
    return f"rank {os.environ['RANK']}: " if "TORCHELASTIC_RUN_ID" in os.environ else ""


def jsonable(options: Options[Any]) -> dict[str, Any]:
    """As they stand in a run's config.json."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}


def _alone(arguments: Sequence[str]) -> Plan:
    if arguments[:1] == [_RESUME]:
        name, options, directory = resume.parse(arguments[1:])
        return Plan(name, options, directory, True)
    name, options = parse(arguments)
    return Plan(name, options, options.runs_dir / (options.run or name_of(name, options.env)), False)


def _with_earlier_rounds(plan: Plan, group: Group) -> Plan:
    """The same, or to go on with the run that an earlier round of this job has begun."""
    directory = _unfinished(plan, group.job) if group.may_go_on and not plan.resumed else None
    if directory is None:
        return plan
    try:
        found, _ = snapshots.newest(directory)
    except ValueError:
        print(f"note: {directory} has no checkpoint yet; it begins anew", file=sys.stderr)
        return plan._replace(path=directory, options=replace(plan.options, force=True))
    rings = "rank 0 has its ring again, the others fill theirs anew"
    told = f"goes on with {directory} from checkpoint {found.name}, with {group.size} learner(s); {rings}"
    print(told, file=sys.stderr)
    return plan._replace(options=resume.parse([str(directory)])[1], path=directory, resumed=True)


def _unfinished(plan: Plan, job: str) -> Path | None:
    """The newest run of this job that has not come to its end."""
    files = plan.options.runs_dir.glob(f"{plan.options.run or '*'}/config.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            config = json.loads(file.read_text())
            last = json.loads((file.parent / "metrics.jsonl").read_bytes().splitlines()[-1])
        except (OSError, ValueError, IndexError):  # it was killed in mid-record, or had none
            last = {}
        if config.get("job") == job and last.get("exit_code") != 0:
            return file.parent
    return None


def _of_rank(options: Options[Any], group: Group) -> Options[Any]:
    """What differs: another seed and GPU for each, and only rank 0 has an audience."""
    require("--env", options.env, not options.in_editor or group.size == 1, "another: the Editor has one scene")
    if options.device.startswith("cuda"):
        num = torch.cuda.device_count()
        wish = f"of {group.local_size} or more GPUs for {group.local_size} learners on one machine; there is {num}"
        require(f"rank {group.rank}: --device", options.device, num >= group.local_size, wish)
        mirrored = options.replay_device == options.device
        device = f"cuda:{group.local_rank}"
        options = replace(options, device=device, replay_device=device if mirrored else options.replay_device)
    if group.leads:
        return options
    seed = int(np.random.SeedSequence([options.seed, group.rank]).generate_state(1)[0])
    no_audience: dict[str, Any] = {"control": "", "control_keys": None, "listen": "", "listen_keys": None, "wandb": ""}
    return replace(options, seed=seed, trace=None, init_from="", checkpoint_every=0, **no_audience)
