"""An environment in which agents take turns: `--env tests/process/turns.py:Turns`."""

from __future__ import annotations

import time

import numpy as np

from core.types import Action, ActionSpec, EnvSpec, FieldSpec, IntArray
from envproc.env import Ended, Step
from tests.process.counting import name

AGENTS = 12


class Turns:
    """Twelve agents that see (agent, episode, decision). Agent i's episodes last 3 + i decisions; a third of the agents
    decide at each step, a third at every second one, a third whenever they like. The reward is the action's, halved.

    Even agents terminate, odd ones are truncated. In worker 0 a step takes ten times as long as in the others.
    """

    def __init__(self, copies: int) -> None:
        self.spec = EnvSpec({"vector": FieldSpec((3,))}, ActionSpec((-1.0,), (1.0,)), AGENTS)
        self._random = np.random.default_rng(0)
        self._episode = np.zeros(AGENTS, np.int64)
        self._decision = np.zeros(AGENTS, np.int64)
        self._earned = np.zeros(AGENTS, np.float32)  # since the last decision
        self._asked = np.zeros(AGENTS, np.bool_)
        self._deciding = np.arange(AGENTS)
        self._time = 0
        self._nap_s = 0.001 if name() == "worker-0" else 0.0001

    def reset(self, seed: int) -> Step:
        self._episode[:] = self._decision[:] = 0
        self._asked[:] = False
        self._deciding = np.arange(AGENTS)
        nobody = self._deciding[:0]
        ended = Ended(nobody, self._see(nobody), np.zeros(0, np.float32), np.zeros(0, np.bool_))
        return Step(self._deciding, self._see(self._deciding), np.zeros(AGENTS, np.float32), ended)

    def step(self, action: Action) -> Step:
        time.sleep(self._nap_s)
        self._time += 1
        self._earned[self._deciding] = action.continuous[:, 0] / 2
        self._decision[self._deciding] += 1
        ending = np.flatnonzero(self._asked | (self._decision >= 3 + np.arange(AGENTS)))
        ended = Ended(ending, self._see(ending), self._earned[ending], ~self._asked[ending] & (ending % 2 == 0))
        self._earned[ending] = 0
        self._asked[ending] = False
        self._episode[ending] += 1
        self._decision[ending] = 0
        due = np.stack([np.ones(4, np.bool_), np.full(4, self._time % 2 == 0), self._random.random(4) < 0.4], axis=1)
        self._deciding = np.flatnonzero(due.reshape(-1))
        reward = self._earned[self._deciding]
        self._earned[self._deciding] = 0
        return Step(self._deciding, self._see(self._deciding), reward, ended)

    def reset_agents(self, agents: IntArray) -> None:
        self._asked[agents] = True

    def close(self) -> None:
        """Nothing to free."""

    def _see(self, agents: IntArray) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
        seen = np.stack([agents, self._episode[agents], self._decision[agents]], axis=1)
        return {"vector": seen.astype(np.float32)}
