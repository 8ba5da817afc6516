"""The environment that all toys are, but for one twist; and where its process stands in the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from core.types import Action, ActionSpec, EnvSpec, FieldSpec, IntArray
from envproc.env import CannotSet, Ended, Step

AGENTS = 8  # to a copy


def epoch() -> int:
    """Of the worker that this is: how many lives its lane had before."""
    return int(json.loads(sys.argv[1])["epoch"])


def name() -> str:
    """Of the process that this is: worker-0, ..., evaluator; main otherwise."""
    at_home = Path(sys.argv[0]).stem in ("worker", "evaluator")
    return str(json.loads(sys.argv[1])["name"]) if at_home else "main"


class Counting:
    """Observations say whose they are: (agent, episode, step). Agent i's episodes last 7 + i % 5 decisions.

    Even agents terminate, odd ones are truncated. The action earns: reward 0.1 - its absolute value, and the parameter
    `bonus`, 0 at first.
    """

    def __init__(self, copies: int) -> None:
        num = AGENTS * copies
        self.spec = EnvSpec({"vector": FieldSpec((3,))}, ActionSpec((-1.0,), (1.0,)), num)
        self._agents = np.arange(num)
        self._episode = np.zeros(num, np.int64)
        self._step = np.zeros(num, np.int64)
        self._asked = np.zeros(num, np.bool_)
        self._length = 7 + self._agents % 5
        self.steps = 0
        self.bonus = 0.0
        self.in_worker = name().startswith("worker")

    def reset(self, seed: int) -> Step:
        self._episode[:] = self._step[:] = 0
        self._asked[:] = False
        return self._make(self._agents[:0], np.zeros(len(self._agents), np.float32))

    def set_parameter(self, name: str, value: float) -> None:
        if name != "bonus" or value < 0:
            raise CannotSet(f"env.{name} = {value:g}: Counting has bonus, at least 0")
        self.bonus = value

    def step(self, action: Action) -> Step:
        self.steps += 1
        self._step += 1
        reward = (0.1 + self.bonus - np.abs(action.continuous[:, 0])).astype(np.float32)
        return self._make(np.flatnonzero(self._asked | (self._step >= self._length)), reward)

    def reset_agents(self, agents: IntArray) -> None:
        self._asked[agents] = True

    def close(self) -> None:
        """Nothing to free."""

    def _make(self, ending: IntArray, reward: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Step:
        terminated = ~self._asked[ending] & (ending % 2 == 0)
        ended = Ended(ending, {"vector": self._see()[ending]}, reward[ending], terminated)
        self._asked[ending] = False
        self._episode[ending] += 1
        self._step[ending] = 0
        return Step(self._agents, {"vector": self._see()}, reward, ended)

    def _see(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.stack([self._agents, self._episode, self._step], axis=1).astype(np.float32)
