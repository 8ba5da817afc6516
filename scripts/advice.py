"""What follows from what `python -m scripts.check` has measured: pace, memory, who can learn it, commands to train."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from functools import cached_property
from typing import Any, NamedTuple

from algos import ALGORITHMS
from core.ring import ring_size
from core.shm import free_memory, readable
from core.types import EnvSpec
from envproc.prober import Speed
from envproc.probes import Finding
from envproc.unity.options import UnityOptions
from scripts.options import Options

_LEARNER = 400 * 2**20
"""bytes that the main process takes, about, most of them torch"""
_SLOW = 500
"""agent steps a second; below, collecting is what a run waits for"""
_LONG_EVALUATION_S = 20.0
_SCALES = 1.3
"""times as fast as one process, below which more of them are no help"""
_LARGE_RING = 2**30
_SMALLEST_IMAGE = 36
"""side of images that the default encoder takes"""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known about the environment."""

    options: Options[None]
    spec: EnvSpec
    episode_length: float
    """decisions, in the mean, with random actions; 0: none ended"""
    speeds: dict[int, list[Speed]]
    """number of processes -> what each did"""

    @property
    def smallest_side(self) -> int:
        """Of all images; 0 where there is none."""
        return min((min(each.shape[1:]) for each in self.spec.obs.values() if len(each.shape) == 3), default=0)

    @cached_property
    def algorithms(self) -> list[str]:
        """Those that can learn it, by their own word; the ones to try first in front."""
        able = []
        for name in ALGORITHMS:
            try:
                ALGORITHMS[name].build(self.spec, self.config(name), "cpu")
            except ValueError:
                continue
            able.append(name)
        first = [name for name in ("sac", "ddpg", "dqn", "ppo") if name in able]
        return first + [name for name in able if name not in first]

    def config(self, name: str) -> Any:
        config = ALGORITHMS[name].config()
        small = 0 < self.smallest_side < _SMALLEST_IMAGE
        return dataclasses.replace(config, conv="simple") if small else config


def agent_steps_per_s(speeds: list[Speed]) -> float:
    """Of processes that ran at the same time, together."""
    return sum(each.agent_steps / each.seconds for each in speeds)


def pace(facts: Facts) -> list[Finding]:
    """Whether more processes help, and what a run waits for."""
    most, steps = max(facts.speeds), facts.options.steps
    alone, together = agent_steps_per_s(facts.speeds[1]), agent_steps_per_s(facts.speeds[most])
    findings = []
    if most > 1 and together < _SCALES * alone:
        told = f"{most} processes do {together / alone:.2f} times what one does"
        advice = "--workers 1 and more --copies may be as fast, and leave the learner a core"
        findings.append(Finding("note", told, f"{told}: {advice}"))
    if together < _SLOW:
        minutes = steps / together / 60
        told = f"{together:,.0f} agent steps/s are few: the {steps:,} of a run (--steps) take {minutes:,.0f} min"
        advice = (
            "more --copies, more --workers if there are cores, a higher --algo.replay-ratio to learn more from each"
        )
        findings.append(Finding("note", told, f"{told}; {advice}"))
    evaluation_s = _evaluation_s(facts)
    if evaluation_s > _LONG_EVALUATION_S:
        findings.append(
            Finding(
                "note",
                f"an evaluation of {facts.options.eval_episodes} episodes takes about {evaluation_s:.0f} s",
                f"an evaluation takes about {evaluation_s:.0f} s: --eval-episodes 24 and a larger --eval-every",
            )
        )
    return findings


def _evaluation_s(facts: Facts) -> float:
    return facts.options.eval_episodes * facts.episode_length / agent_steps_per_s(facts.speeds[1])


class Need(NamedTuple):
    """Bytes of a run with the defaults of an algorithm that replays."""

    ring: int
    run: int
    """the ring, the workers and the learner"""
    free: int
    fits: int
    """a capacity that leaves some room; 0: none would"""


def need(name: str, facts: Facts) -> Need | None:
    """None for an algorithm that does not replay: its ring is small."""
    config, workers = facts.config(name), max(max(facts.speeds) - 1, 1)
    recording = ALGORITHMS[name].build(facts.spec, config, "cpu").recording
    if recording.ordered:
        return None
    ring, free = ring_size(facts.spec, recording, workers, config.capacity), free_memory()
    run = ring + workers * _worker(facts) + _LEARNER
    fits = 0.8 * config.capacity * max(free - run + ring, 0) / ring
    return Need(ring, run, free, int(float(f"{fits:.1g}")))


def memory(facts: Facts) -> list[Finding]:
    """What a run of the first algorithm takes, against what is free."""
    name = facts.algorithms[0]
    room = need(name, facts)
    told = f"memory: {readable(_worker(facts))} a process"
    if (free := free_memory()) < sys.maxsize:  # else this system does not say
        told += f", {readable(free)} free"
    if room is None:
        return [Finding("ok", told)]
    told += f"; the ring of {name} takes {readable(room.ring)} for {facts.config(name).capacity:,} agent steps"
    if room.run > room.free:
        takes = f"a run takes {readable(room.run)} and {readable(room.free)} are free"
        advice = f"{takes}: --algo.capacity {room.fits}{_bytes(facts)}"
        return [Finding("note", told, advice)]
    advice = f"the ring takes {readable(room.ring)}{_bytes(facts)}" if room.ring > _LARGE_RING and _bytes(facts) else ""
    return [Finding("note" if advice else "ok", told, advice)]


def _bytes(facts: Facts) -> str:
    """Cameras of Unity scenes can be kept in less."""
    images = [each for each in facts.spec.obs.values() if len(each.shape) == 3 and each.dtype != "uint8"]
    is_unity = facts.options.env.startswith("unity:")
    return (
        "; --unity.image-bytes keeps images in a quarter of that, if they are cameras'" if images and is_unity else ""
    )


def _worker(facts: Facts) -> int:
    return max(each.memory for measured in facts.speeds.values() for each in measured)


def learners(facts: Facts) -> list[Finding]:
    """Which algorithms take its observations and actions."""
    if not facts.algorithms:
        return [
            Finding(
                "BAD",
                "no algorithm here takes these observations and actions",
                "the smallest image that an encoder takes has sides of 20; docs/adding_an_algorithm.md has the rest",
            )
        ]
    return [Finding("ok", f"can be learned by {', '.join(facts.algorithms)}")]


def commands(facts: Facts) -> list[str]:
    """To train with the first two algorithms."""
    return [_command(name, facts) for name in facts.algorithms[:2]]


def _command(name: str, facts: Facts) -> str:
    options, words = facts.options, []
    if options.env != "3dball":
        words += ["--env", options.env]
    if options.behavior:
        words += ["--behavior", options.behavior]
    if options.env_params:
        words += ["--env-params", *options.env_params]
    words += _unity(options.unity)
    copies = (
        8 if name == "ppo" and facts.spec.num_agents == 1 and not options.env.startswith("unity:") else options.copies
    )
    if copies != 1:
        words += ["--copies", str(copies)]
    if facts.smallest_side:
        words += ["--frame-stack", str(max(options.frame_stack, 4)), "--algo.conv", facts.config(name).conv]
    room = need(name, facts) if facts.speeds else None
    if room is not None and room.run > room.free:
        words += ["--algo.capacity", str(room.fits)]
    if facts.speeds and _evaluation_s(facts) > _LONG_EVALUATION_S:
        words += ["--eval-episodes", "24", "--eval-every", "20000"]
    return shlex.join([".venv/bin/python", "-m", "scripts.train", name, *words])


def _unity(options: UnityOptions) -> list[str]:
    """What was asked for, as it stands on a command line."""
    words: list[str] = []
    for each in dataclasses.fields(options):
        value = getattr(options, each.name)
        option = f"--unity.{each.name.replace('_', '-')}"
        if value == each.default:
            continue
        if isinstance(value, tuple):
            words += [option, *value]
        else:  # a value of one word with its option may itself look like an option
            words.append(option if value is True else f"{option}={value}")
    return words
