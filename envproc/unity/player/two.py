"""Two kinds of agents with nothing in common: other observations, other actions, other decision periods, other teams.

Runners act by two numbers and a choice, remember their last observation (a stack of two), see up to six things in a
buffer of variable length, and form a group with a reward of its own. Chasers have one choice.
"""

from __future__ import annotations

import numpy as np

from core.types import IntArray
from envproc.unity.player.academy import Agents, Array, Behaviour, Sensor
from envproc.unity.player.fate import Fate, OnALine

VARIABLE_SIZE, NONE = 4, 1
THINGS = 6
GROUP = 1


class Runner(Behaviour):
    name = "Runner"
    slots = 3
    sensors = (
        Sensor("BufferSensor", (THINGS, 3), (VARIABLE_SIZE, NONE)),
        Sensor("StackingSensor_size2_VectorSensor_size4", (8,)),
    )
    continuous = 2
    branches = (3,)
    decision_period = 4

    def __init__(self, seed: int) -> None:
        self._fate = Fate(seed, self.slots, self.decision_period)
        self._things = np.zeros((self.slots, THINGS, 3))
        self._place = np.zeros(self.slots)
        self._last = np.zeros((self.slots, 4))

    def start(self, agents: Agents) -> None:
        super().start(agents)
        agents.group[:] = GROUP

    def begin(self, agents: Agents, slots: IntArray) -> None:
        self._fate.draw(slots)
        self._place[slots] = 0.0
        self._last[slots] = 0.0
        self._things[slots] = 0.0
        for slot in slots.tolist():
            random = self._fate.random[slot]
            number = random.integers(0, THINGS, endpoint=True)
            self._things[slot, :number] = random.uniform(0.1, 1, (number, 3))

    def observe(self, agents: Agents, slots: IntArray) -> list[Array]:
        now = np.column_stack([agents.trace(slots), self._place[slots]])
        stack = np.concatenate([self._last[slots], now], axis=1)  # oldest first
        self._last[slots] = now
        return [self._things[slots], stack]

    def act(self, agents: Agents) -> None:
        acting = agents.acting
        speed = np.array([0.0, 1.0, -1.0])[agents.discrete[acting, 0]]
        self._place[acting] += 0.1 * speed + 0.01 * agents.continuous[acting].sum(axis=1)
        agents.reward[acting] += 0.05 - 0.01 * np.abs(self._place[acting])
        agents.group_reward[agents.alive] += 0.25
        self._fate.strike(agents)


class Chaser(OnALine):
    name = "Chaser"
    team = 1
    slots = 2
    branches = (4,)
    decision_period = 3

    def act(self, agents: Agents) -> None:
        acting = agents.acting
        self._place[acting] += np.array([0.0, 0.1, -0.1, 0.3])[agents.discrete[acting, 0]]
        agents.reward[acting] += 0.02 * (1.0 + self._place[acting])
        self._fate.strike(agents)


def scene(seed: int, areas: int) -> list[Behaviour]:
    return [Runner(seed), Chaser(seed + 1)]
