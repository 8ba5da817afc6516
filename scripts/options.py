"""The command line of a training run: `python -m scripts.train ALGORITHM [options]`.

What it does not say stands in a file, if it names one (config_file.py, mlagents_config.py), or is the default.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from algos import ALGORITHMS
from core.types import require
from core.waiting import num_cores as num_cores
from envproc import EnvConfig
from envproc.unity.options import UnityOptions
from scripts import config_file, mlagents_config
from scripts.command_line import UsageError, read_command_line

AlgoConfig = TypeVar("AlgoConfig")
_TAKES_FLAGS = "--unity.args"
_LEAST_SPARE, _SPARE_FOR_COLLECTORS = 4, 64
RESUME = "python -m scripts.train --resume RUN [options]"


@dataclass(frozen=True)
class Options(Generic[AlgoConfig]):
    """Train an agent in an environment."""

    algo: AlgoConfig
    env: str = "3dball"
    """3dball, gymnasium:ID, unity:PATH, unity:editor, or path/to/file.py:Class, Gymnasium's or by envproc/env.py"""
    behavior: str = ""
    """of a Unity scene with several behaviours: the one to train; the others do nothing"""
    unity: UnityOptions = field(default_factory=UnityOptions)
    run: str = ""
    """name of the run, a new directory below --runs-dir; empty: made from algorithm, environment and time"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""
    force: bool = False
    """replace the run of this name, if there is one"""
    wandb: str = ""
    """project of Weights & Biases that gets the run's numbers, too; empty: none"""
    control: str = ""
    """also take orders over TCP: tcp://127.0.0.1:PORT, or, with --control-keys, at another address; * is any port"""
    control_keys: Path | None = None
    """directory of the keys that orders over TCP take (python -m scripts.keys); without it, there is a token"""
    listen: str = ""
    """let collectors on other machines join (python -m scripts.worker): tcp://ADDRESS:PORT, with --listen-keys"""
    listen_keys: Path | None = None
    """directory of the keys of those who may join (python -m scripts.keys)"""
    init_from: str = ""
    """name or directory of a run of the same algorithm: begin with its networks"""
    checkpoint_every: int = 20_000
    """agent steps between two checkpoints, from which `--resume RUN` goes on; 0: only at the end. In the modes sync and
    single every episode is cut short there"""
    keep_checkpoints: int = 2
    """the newest so many stay"""
    seed: int = 1
    """the same seed gives the same weights in the modes sync and single"""
    workers: int = 0
    """environment processes; 0: one less than there are cores"""
    copies: int = 1
    """environment copies (3dball: areas of 12 agents; Unity: areas of a TrainingAreaReplicator) in each worker"""
    frame_stack: int = 1
    """frames of each image that an agent sees at once"""
    env_params: tuple[str, ...] = ()
    """parameters of the environment, each as key=number: what a Unity scene reads, or what the environment declares"""
    min_workers: int = 1
    """with fewer, the run is saved and ends"""
    max_restarts: int = 10
    """how often a worker that died, failed or hung is replaced, each; 0: never"""
    hang_s: float = 120.0
    """seconds that a step or a reset of the environment may take, before its worker is replaced"""
    launch_s: float = 300.0
    """seconds that an environment may take to start"""
    mode: Literal["async", "sync", "single"] = "async"
    """async: workers and learner run freely within the replay ratio; sync: in lock-step, repeatable;
    single: in lock-step in this one process, for a debugger"""
    steps: int = 60_000
    """agent steps after which the run ends"""
    until_return: float | None = None
    """end as soon as an evaluation reaches this mean return"""
    eval_every: int = 2_000
    """agent steps between evaluations"""
    eval_episodes: int = 96
    """episodes of one evaluation, at least; they are played side by side. 24 do for an environment that is slow"""
    device: str = "cpu"
    """where the networks are trained: cpu, cuda, cuda:1"""
    threads: int = 0
    """of torch, where the networks are trained on the CPU; 0: as many as the workers leave cores. Fewer are faster
    where other programs, Unity's among them, keep these cores busy"""
    replay_device: str = ""
    """where the ring's rows are held once more, so that each crosses the bus once: as --device; empty: nowhere, each
    batch crosses it"""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """of the networks' arithmetic while training; tf32: products on an NVIDIA GPU with 10 bits of mantissa; bfloat16 is
    mixed precision: parameters stay float32"""
    trace: Path | None = None
    """write what each process did and when, the newest events of it, into this file for ui.perfetto.dev"""
    compile: bool = False
    """have torch.compile translate the networks; needs a C++ compiler and pays for large ones"""

    @property
    def env_config(self) -> EnvConfig:
        """Paths of players and runs are absolute: a policy may be played again from elsewhere."""
        env, unity = self.env, self.unity
        if env.startswith("unity:") and not self.in_editor:
            env = f"unity:{_absolute(env[len('unity:') :])}"
        others = tuple(f"{name}={_absolute(run)}" for name, run in unity.policies().items())
        return EnvConfig(
            env, self.copies, self.behavior, replace(unity, others=others), self.frame_stack, self.env_params
        )

    @property
    def in_editor(self) -> bool:
        """There is one Editor with one scene: one worker, and nobody to evaluate."""
        return self.env == "unity:editor"

    @property
    def lock_stepped(self) -> bool:
        """Workers and learner take turns, and the run is repeatable."""
        return self.mode != "async"

    @property
    def spare(self) -> int:
        """Lanes for workers that somebody may add (`ctl workers +2`), or that may join."""
        least = _SPARE_FOR_COLLECTORS if self.listen else _LEAST_SPARE
        return 0 if self.in_editor else max(self.workers, least)

    def check(self) -> None:
        """Raises ValueError, in one line, for the first option that cannot be meant."""
        limits = {
            "workers": 0,
            "copies": 1,
            "steps": 1,
            "eval_every": 1,
            "eval_episodes": 24,
            "seed": 0,
            "frame_stack": 1,
            "checkpoint_every": 0,
            "keep_checkpoints": 1,
            "min_workers": 1,
            "max_restarts": 0,
            "threads": 0,
        }
        for name, least in limits.items():
            value = getattr(self, name)
            require(f"--{name.replace('_', '-')}", value, value >= least, f"at least {least}")
        require("--seed", self.seed, self.seed < 2**32, "below 2**32")
        # the answer to an evaluation is one message, with all returns
        require("--eval-episodes", self.eval_episodes, self.eval_episodes <= 4000, "at most 4000")
        self.env_config.parameters()
        goal = self.until_return
        require("--until-return", goal, goal is None or isfinite(goal), "a finite number")
        for name in ("hang_s", "launch_s"):
            value = getattr(self, name)
            require(f"--{name.replace('_', '-')}", value, 0 < value < 1e6, "seconds above 0")
        require("--control-keys", self.control_keys, not self.control_keys or self.control != "", "used with --control")
        require("--listen-keys", self.listen_keys, bool(self.listen_keys) == bool(self.listen), "used with --listen")
        wish = "async with --listen: who joins in mid-run makes it another one than its seed stands for"
        require("--mode", self.mode, not self.listen or self.mode == "async", wish)
        require("--listen", self.listen, not (self.listen and self.in_editor), "left out with the Editor")
        mirror, precision = self.replay_device, self.precision
        require("--replay-device", mirror, mirror in ("", self.device), f"left out, or that of --device {self.device}")
        wish = f"float32 or bfloat16 with --device {self.device}: TF32 is arithmetic of NVIDIA's GPUs"
        require("--precision", precision, precision != "tf32" or self.device.startswith("cuda"), wish)
        if self.in_editor:
            require("--workers", self.workers, self.workers <= 1, "1 with the Editor, which runs one scene")
            num = self.unity.players_per_worker
            require("--unity.players-per-worker", num, num == 1, "1 with the Editor, which runs one scene")
            require("--until-return", goal, goal is None, "left out with the Editor, which has no scene to evaluate in")
        if self.run and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", self.run):
            raise ValueError(
                f"--run {self.run[:80]!r}; a name has 1 to 64 letters, digits, '.', '_' or '-', and no dot in front"
            )


@dataclass(frozen=True)
class CommandLine(Options[AlgoConfig]):
    """Train an agent in an environment."""

    config: Path | None = None
    """a TOML file with options; what stands on the command line wins"""
    mlagents_config: Path | None = None
    """a trainer configuration of ML-Agents (YAML); what stands on the command line wins"""
    save_config: Path | None = None
    """write all options into this new TOML file, for --config, and end without training"""


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def parse(arguments: Sequence[str]) -> tuple[str, Options[Any]]:
    """The algorithm's name and all options.

    Raises UsageError; SystemExit(0) after printing help, or writing a file, that was asked for.
    """
    known = ", ".join(ALGORITHMS)
    if not arguments:
        raise UsageError(f"name an algorithm: python -m scripts.train ALGORITHM [options]; there is: {known}")
    name, *rest = arguments
    if name in ("-h", "--help"):
        print(f"usage: python -m scripts.train ALGORITHM [options]\n       {RESUME}\n\nalgorithms: {known}\n")
        print("python -m scripts.train ALGORITHM --help lists the options")
        raise SystemExit(0)
    if name not in ALGORITHMS:
        close = difflib.get_close_matches(name, ALGORITHMS, n=1)
        raise UsageError(
            f"unknown algorithm {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there is: {known}")
        )
    rest = joined(rest)
    kind = ALGORITHMS[name].config
    default, remarks = _from_files(name, Options(algo=kind()), rest)
    line = CommandLine(**_shallow(default))
    line = read_command_line(CommandLine[kind], rest, f"python -m scripts.train {name}", line)  # type: ignore[valid-type]
    options = Options(**_shallow(line))
    for remark in remarks:
        print(remark, file=sys.stderr)
    if line.save_config:
        _save(name, options, line.save_config)
        raise SystemExit(0)
    return name, options


def joined(arguments: Sequence[str]) -> list[str]:
    """The same, with the one option whose value looks like an option, too, and its value as one."""
    words = list(arguments)
    if _TAKES_FLAGS in words[:-1]:
        place = words.index(_TAKES_FLAGS)
        words[place : place + 2] = ["=".join(words[place : place + 2])]
    return words


def _shallow(options: Options[Any]) -> dict[str, Any]:
    return {each.name: getattr(options, each.name) for each in fields(Options)}


def _from_files(name: str, default: Options[Any], arguments: Sequence[str]) -> tuple[Options[Any], list[str]]:
    """The options as the file says that `arguments` name, if they name one, and what is to be said about it."""
    # What stands in the file is the default of the command line, so this much of it is read before all else.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("config", "mlagents-config", "behavior", "env"):
        first.add_argument(f"--{option}", f"--{option.replace('-', '_')}", default="")
    try:
        found, _ = first.parse_known_args(arguments)
    except argparse.ArgumentError:  # a value is missing: told by who reads it all
        return default, []
    if found.config and found.mlagents_config:
        raise UsageError(
            "give --config or --mlagents-config; with --save-config the latter is written as a file for the former"
        )
    if found.config:
        file = Path(found.config)
        return config_file.fill_in(default, config_file.read(file), file), []
    if found.mlagents_config:
        file = Path(found.mlagents_config)
        table, remarks = mlagents_config.read(file, name, found.behavior, found.env)
        return config_file.fill_in(default, table, file), remarks
    return default, []


def _save(name: str, options: Options[Any], file: Path) -> None:
    try:
        options.check()
    except ValueError as error:
        raise UsageError(str(error)) from error
    title = f"python -m scripts.train {name} --config FILE; what stands on the command line wins."
    config_file.write(options, file, title)
    print(f"options: {file}")
