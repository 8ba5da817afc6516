"""Shapes of rows that are measured, and steps of them on their way into a ring."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from core.ring import Ring, Writer
from core.types import ActionSpec, EnvSpec, FieldSpec, IntArray, Recording, Rows, frames_of

IMAGE = "image"


class Shape(NamedTuple):
    """One environment's rows."""

    spec: EnvSpec
    """its agents: rows of one step"""
    capacity: int
    """rows that are held; images are many bytes where they are stored whole"""


def _continuous(obs: int, actions: int, agents: int) -> EnvSpec:
    return EnvSpec({"vector": FieldSpec((obs,))}, ActionSpec((-1.0,) * actions, (1.0,) * actions), agents)


SHAPES = {
    "3DBall": Shape(_continuous(8, 2, 12), 1_000_000),
    "HalfCheetah": Shape(_continuous(17, 6, 8), 1_000_000),
    "images": Shape(EnvSpec({IMAGE: FieldSpec((4, 84, 84), "uint8", stack=4)}, ActionSpec(branches=(6,)), 1), 10_000),
}
"""the built-in scene; eight copies of a robot; one game of Atari"""


class Steps:
    """The same step of all agents, appended again and again; stacked frames go into the ring once, as in a worker."""

    def __init__(self, ring: Ring, writer: Writer, seed: int = 0) -> None:
        self._writer, spec = writer, ring.spec
        self.rows = some_rows(ring, spec.num_agents, seed)
        random = np.random.default_rng(seed)
        self.frames = {
            name: random.integers(0, 256, (spec.num_agents, *each.shape)).astype(each.dtype)
            for name, each in frames_of(spec).items()
        }
        agents = np.arange(spec.num_agents)[:, None]
        self._behind: dict[str, IntArray] = {  # of the newest step's first frame, where each agent's stack lies
            name: agents + spec.num_agents * np.arange(1 - spec.obs[name].stack, 1) for name in self.frames
        }

    def append(self) -> None:
        if self.frames:
            first = self._writer.append_frames(self.frames)
            for name, behind in self._behind.items():
                self.rows["next_obs"][name] = np.maximum(first + behind, 0)
                self.rows["obs"][name] = np.maximum(first + behind - len(self.rows), 0)
        self._writer.append(self.rows)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + sum(each.nbytes for each in self.frames.values())


def some_rows(ring: Ring, count: int, seed: int) -> Rows:
    """Random ones; of stacked frames the numbers are 0."""
    random, action = np.random.default_rng(seed), ring.spec.action
    rows: Rows = np.zeros(count, ring.layout)
    for side in ("obs", "next_obs"):
        for name, field in ring.spec.obs.items():
            if side in (ring.layout.names or ()) and field.stack == 1:
                rows[side][name] = random.standard_normal(rows[side][name].shape, np.float32)
    rows["reward"] = random.standard_normal(rows["reward"].shape, np.float32)
    rows["discount"] = np.where(random.random(rows["discount"].shape) < 0.01, 0, 0.99)
    if action.num_continuous:
        rows["action"] = random.uniform(-1, 1, rows["action"].shape)
    for branch, choices in enumerate(action.branches):
        rows["choice"][..., branch] = random.integers(0, choices, rows["choice"].shape[:-1])
    if ring.recording.length:
        rows["valid"] = 1
    if ring.recording.ordered:
        rows["log_prob"] = -1
    return rows


def fill(ring: Ring, writer: Writer, seed: int = 0) -> None:
    """A lane of a ring that has frames."""
    steps = Steps(ring, writer, seed)
    while writer.published < ring.capacity:
        steps.append()


def full_ring(shape: Shape, lanes: int = 1) -> Ring:
    """A ring whose lanes are all full."""
    ring = Ring.create(shape.spec, Recording(), lanes, shape.capacity)
    for lane in range(lanes):
        writer = ring.writer(lane, 0)
        if ring.frames:
            fill(ring, writer, lane)
        else:
            rows = some_rows(ring, min(1000, ring.capacity // 2), lane)
            while writer.published < ring.capacity:
                writer.append(rows[: ring.capacity - writer.published])
    return ring
