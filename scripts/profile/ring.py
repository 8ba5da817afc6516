"""Rows into the ring and out of it: appending, sampling, sampling by priority, and all that while others write.

Beside a bare copy of the same bytes, and beside packaged buffers in an interpreter that has them (--buffers): cpprb,
Stable-Baselines3 (which has no priorities), Tianshou, TorchRL. Medians of single calls; all that stands on one line was
measured in turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any

import numpy as np
import torch

from core.prioritized import Prioritization, PrioritizedSampler
from core.replay import Sampler
from core.ring import Ring
from core.types import Recording
from scripts.profile.another import Another
from scripts.profile.buffers import PACKAGES
from scripts.profile.copies import copy_steps, memory, take_batches
from scripts.profile.measure import in_rounds, times
from scripts.profile.report import Figure, Report, option_parser, positive, read_options
from scripts.profile.shapes import SHAPES, Shape, Steps, full_ring
from scripts.profile.writers import beside_writers

BATCH = 256
WORKS = {  # what it is beside
    "append": ("Append one step, us", "copy"),
    "sample": (f"Sample {BATCH} rows uniformly, us", "take"),
    "prioritized": (f"Sample {BATCH} rows by priority and update their priorities, us", "take"),
}
Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One kind of work on rows of one shape."""

    work: str
    rows: str
    shape: Shape
    lanes: int = 1

    def __str__(self) -> str:
        if self.work == "append":
            return f"{self.rows}, {self.shape.spec.num_agents} rows"
        return f"{self.rows} x {self.shape.capacity:,}" + (f", {self.lanes} lanes" if self.lanes > 1 else "")


def cases(work: str, shapes: dict[str, Shape]) -> Iterator[Case]:
    """Of the built-in scene, samples from fewer rows and from several lanes, too."""
    for rows, shape in shapes.items():
        if work == "sample" and rows == "3DBall":
            few = shape._replace(capacity=shape.capacity // 5)
            yield from (Case(work, rows, each, lanes) for each in (few, shape) for lanes in (1, 4))
        else:
            yield Case(work, rows, shape)


@contextlib.contextmanager
def ours(case: Case) -> Iterator[tuple[Work, Work]]:
    """The work on our ring, and the bare copy of the same bytes."""
    with contextlib.ExitStack() as opened:
        if case.work == "append":
            ring = opened.enter_context(Ring.create(case.shape.spec, Recording(), 1, case.shape.capacity))
            steps = Steps(ring, ring.writer(0, 0))
            yield steps.append, copy_steps(steps, memory(steps, case.shape.capacity))
            return
        ring = opened.enter_context(full_ring(case.shape, case.lanes))
        steps = Steps(ring, ring.writer(0, 1))
        take = take_batches(steps, memory(steps, case.shape.capacity), BATCH)
        yield (Sampler(ring, BATCH, 0).sample if case.work == "sample" else _by_priority(ring)), take


def _by_priority(ring: Ring) -> Work:
    sampler = PrioritizedSampler(ring, BATCH, 0, Prioritization())
    td_errors = cycle(torch.from_numpy(np.random.default_rng(0).exponential(1, (100, BATCH)).astype(np.float32)))

    def sample_and_update() -> None:
        sampler.sample()
        sampler.learned(next(td_errors))

    for _ in range(4 * ring.num_lanes * ring.capacity // BATCH):  # priorities as they are in a run: all different
        sample_and_update()
    return sample_and_update


class Packaged:
    """One library, in an interpreter that has it."""

    def __init__(self, library: str, python: str) -> None:
        self.process = Another(python, "scripts.profile.buffers", library)
        self.said: dict[str, None] = {}
        """what there is to know of its figures"""
        self._library = library

    def measure(self, case: Case, seconds: float) -> float:
        """Microseconds; not a number if it cannot do this."""
        (obs,), action = case.shape.spec.obs.values(), case.shape.spec.action
        what = {"work": case.work, "obs": obs.shape, "dtype": obs.dtype, "stack": obs.stack}
        actions = {"continuous": action.num_continuous, "choices": sum(action.branches)}
        sizes = {"agents": case.shape.spec.num_agents, "capacity": case.shape.capacity, "batch": BATCH}
        answer: dict[str, Any] = self.process.ask({**what, **actions, **sizes, "seconds": seconds})
        self.said[f"{PACKAGES[self._library]} {answer['version'] or 'is left out'}"] = None
        if answer["refused"]:
            self.said[f"{PACKAGES[self._library]}, {case.work}: {answer['refused']}"] = None
        return float("nan") if answer["us"] is None else float(answer["us"])


def measure(case: Case, packaged: dict[str, Packaged], rounds: int, seconds: float) -> list[Figure]:
    """Medians over the rounds: ours, the bare copy, how many times that is, and each library."""
    with ours(case) as (work, plain):
        sides: dict[str, Callable[[], float]] = {
            "ours": lambda: times({"": work}, seconds)[""],
            "plain": lambda: times({"": plain}, seconds)[""],
        }
        sides |= {name: partial(each.measure, case, seconds) for name, each in packaged.items()}
        taken = {name: median(each) for name, each in in_rounds(sides, rounds).items()}
    figures = [taken["ours"], taken["plain"], taken["ours"] / taken["plain"], *(taken[name] for name in packaged)]
    return [None if np.isnan(each) else each for each in figures]


def main(arguments: list[str]) -> int:
    """Returns the exit code. Raises UsageError if an option cannot be meant."""
    parser = option_parser("ring", __doc__)
    kinds, rows, libraries = (*WORKS, "writers"), tuple(SHAPES), tuple(PACKAGES)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, help="what to measure")
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows, help="of what shape")
    parser.add_argument(
        "--writers", nargs="+", type=positive, metavar="N", help="so many at once; else 1, 2, 4 ... to a core each"
    )
    parser.add_argument("--buffers", metavar="PYTHON", help="an interpreter that has packaged buffers")
    parser.add_argument("--libraries", nargs="+", choices=libraries, default=libraries, help="which of them")
    options = read_options(parser, arguments)
    rounds, seconds = (1, 0.02) if options.quick else (5, 0.3)
    shapes = {name: SHAPES[name] for name in options.rows}
    if options.quick:
        shapes = {name: shape._replace(capacity=2000) for name, shape in shapes.items()}
    torch.set_num_threads(1)  # as in training, where the workers have the other cores
    report = Report("ring", options.json)
    with contextlib.ExitStack() as opened:
        packaged = {name: Packaged(name, options.buffers) for name in (options.libraries if options.buffers else ())}
        for each in packaged.values():
            opened.enter_context(each.process)
        for work, (title, plain) in WORKS.items():
            if work in options.only:
                table = report.table(title, 30, "ours", plain, "times", *packaged)
                for case in cases(work, shapes):
                    table.row(str(case), *measure(case, packaged, rounds, seconds))
        for note in [note for each in packaged.values() for note in each.said]:
            report.note(note)
    if "writers" in options.only:
        beside_writers(report, shapes, options.writers, BATCH, rounds, seconds)
    report.write()
    return 0
