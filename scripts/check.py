"""Check: `python -m scripts.check ENV` tries an environment out before anybody trains in it.

Everything that touches the environment happens in processes of its own (envproc/prober.py): whatever it does there,
hang and die included, is a line of the report.
"""

from __future__ import annotations

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from core.types import EnvSpec, require
from envproc import check_player
from envproc.prober import Offers, Refused, Speed, Walked
from envproc.probes import Finding
from envproc.unity.options import UnityOptions
from scripts.advice import Facts, agent_steps_per_s, commands, learners, memory, pace
from scripts.command_line import UsageError, read_command_line, refusals_are_usage_errors
from scripts.options import Options as TrainOptions
from scripts.options import joined, num_cores
from scripts.probers import Lost, examined, measured

FINE, USAGE, BROKEN = 0, 2, 3


@dataclass(frozen=True)
class Options:
    """Try an environment out: does it keep its promises, how fast is it, how to train in it."""

    env: Annotated[str, tyro.conf.Positional]
    """3dball, gymnasium:ID, unity:PATH, unity:editor, or path/to/file.py:Class"""
    behavior: str = ""
    """of a Unity scene with several behaviours: the one to act for"""
    unity: UnityOptions = field(default_factory=UnityOptions)
    copies: int = 1
    """environment copies in each process"""
    frame_stack: int = 1
    """frames of each image that an agent sees at once"""
    processes: int = 0
    """measure the speed of up to so many at a time; 0: as many as there are cores"""
    patience: float = 30.0
    """seconds after which an environment that does not answer counts as hung; of a Unity player, after what
    --unity.launch-s and --unity.answer-s allow"""


class Report:
    """Prints findings as they come, and keeps what has to be said at the end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self.advice: list[str] = []
        self.is_broken = False

    def add(self, *findings: Finding) -> None:
        if self._title:  # not before there is something to say: what cannot be tried is told in one line
            print(self._title, end="\n\n")
            self._title = ""
        for each in findings:
            print(f"{each.level:<5} {each.what}", flush=True)
            self.is_broken |= each.level == "BAD"
            if each.advice:
                self.advice.append(each.advice)

    def close(self, commands: list[str]) -> int:
        """Print the end. Returns the exit code."""
        if self.advice:
            print("\nadvice")
        for number, advice in enumerate(self.advice, 1):
            print(f"  {number}. {advice}")
        if self.is_broken:
            print("\nIt cannot be trained in as it is: see what is BAD.")
            return BROKEN
        print("\ntrain")
        for command in commands:
            print(f"  {command}")
        return FINE


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 it can be trained in, 2 usage, 3 something is broken."""
    try:
        options = read_command_line(Options, joined(arguments), "python -m scripts.check")
        return check(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def check(options: Options) -> int:
    """Print the report. Returns the exit code; raises UsageError if there is no such environment."""
    train = _as_for_training(options)
    patience_s = options.patience
    if options.env.startswith("unity:"):
        patience_s += options.unity.launch_s + options.unity.answer_s
    report = Report(options.env)
    spec: EnvSpec | None = None
    length = 0.0
    speeds: dict[int, list[Speed]] = {}
    with tempfile.TemporaryDirectory(prefix="sharl-check-") as logs:
        try:
            for line in examined(train.env_config, Path(logs), patience_s):
                match line:
                    case Finding():
                        report.add(line)
                    case Offers():
                        spec = line.spec
                    case Walked():
                        length = line.mean_length
                    case Refused():
                        raise UsageError(line.why)
            if not report.is_broken and not train.in_editor:  # which runs one scene
                for num in _numbers(options.processes):
                    speeds[num] = measured(train.env_config, num, Path(logs), patience_s)
                    report.add(_speed(num, speeds[num]))
        except Lost as lost:
            report.add(Finding("BAD", str(lost), "step it in a debugger, to see where it dies or waits"))
    if spec is None or report.is_broken:
        return report.close([])
    facts = Facts(train, spec, length, speeds)
    report.add(*learners(facts))
    if speeds and facts.algorithms:
        report.add(*pace(facts), *memory(facts))
    return report.close(commands(facts))


def _as_for_training(options: Options) -> TrainOptions[None]:
    train = TrainOptions(
        None,
        env=options.env,
        behavior=options.behavior,
        unity=options.unity,
        copies=options.copies,
        frame_stack=options.frame_stack,
    )
    with refusals_are_usage_errors():
        train.check()
        require("--processes", options.processes, options.processes >= 0, "at least 0")
        require("--patience", options.patience, 0 < options.patience < 1e6, "seconds above 0")
        if options.env.startswith("unity:"):
            check_player(train.env_config.name)
    return train


def _numbers(most: int) -> list[int]:
    """Of processes at a time: 1, 2, 4 and so on, and the most."""
    most = most or num_cores()
    return sorted({most, *(2**power for power in range(most.bit_length()))})


def _speed(num: int, speeds: list[Speed]) -> Finding:
    steps, agent_steps = sum(each.steps / each.seconds for each in speeds), agent_steps_per_s(speeds)
    processes = "1 process:   " if num == 1 else f"{num} processes:"
    return Finding("ok", f"{processes} {steps:,.0f} steps/s, {agent_steps:,.0f} agent steps/s, nobody learning")


if __name__ == "__main__":
    run_main(main)
