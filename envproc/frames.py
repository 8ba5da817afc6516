"""Stacked frames on their way into the ring: each frame goes there once, rows name its number."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from core.ring import Writer
from core.types import EnvSpec, IntArray, Obs, frames_of
from envproc.env import Step


class Frames:
    """The numbers of the frames that each agent has in its stacks now."""

    def __init__(self, spec: EnvSpec, writer: Writer) -> None:
        self._writer = writer
        self._frames = frames_of(spec)
        self._numbers = {name: np.zeros((spec.num_agents, spec.obs[name].stack), np.int64) for name in self._frames}
        self._is_new = np.ones(spec.num_agents, np.bool_)  # whose next decision is its episode's first

    def record(self, step: Step) -> Step:
        """The same step with frames' numbers, (n, stack), in the place of stacked frames, which are written down."""
        if not self._frames:
            return step
        ended = step.ended
        last = self._see(ended.agent, ended.obs)
        self._is_new[ended.agent] = True
        return step._replace(obs=self._see(step.agent, step.obs), ended=ended._replace(obs=last))

    def _see(self, agents: IntArray, obs: Obs) -> dict[str, npt.NDArray[Any]]:
        recorded = dict(obs)
        if not len(agents):
            return {**recorded, **{name: self._numbers[name][agents] for name in self._frames}}
        newest = {name: obs[name][:, -frame.shape[0] :] for name, frame in self._frames.items()}
        number = self._writer.append_frames(newest) + np.arange(len(agents))
        fresh = self._is_new[agents]
        for name, numbers in self._numbers.items():
            moved = np.roll(numbers[agents], -1, axis=1)
            moved[:, -1] = number
            moved[fresh] = number[fresh, None]  # at an episode's start all of a stack is its first frame
            numbers[agents] = recorded[name] = moved
        self._is_new[agents] = False
        return recorded
