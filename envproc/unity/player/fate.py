"""What the scenes without a task of their own share: when and how episodes end, and agents on a line."""

from __future__ import annotations

import numpy as np

from core.types import IntArray
from envproc.unity.player.academy import Agents, Array, Behaviour, Sensor, streams


class Fate:
    """Drawn as an episode begins, each agent for itself.

    It lasts 3 to 40 decisions, the last one perhaps in part; every other one, about, is interrupted."""

    def __init__(self, seed: int, slots: int, decision_period: int) -> None:
        self.random = streams(seed, slots)
        self._period = decision_period
        self._length = np.zeros(slots, np.int64)  # in Academy steps
        self._interrupted = np.zeros(slots, np.bool_)

    def draw(self, slots: IntArray) -> None:
        for slot in slots.tolist():
            self._length[slot] = self.random[slot].integers(2 * self._period + 1, 40 * self._period, endpoint=True)
            self._interrupted[slot] = self.random[slot].random() < 0.5

    def strike(self, agents: Agents) -> None:
        """End whose time has come; to be called where they act."""
        due = agents.acting[agents.steps[agents.acting] >= self._length[agents.acting]]
        interrupted = self._interrupted[due]  # before they begin anew, and draw again
        agents.end(due[~interrupted])
        agents.end(due[interrupted], interrupted=True)


class OnALine(Behaviour):
    """Each agent has a place on a line, 0 as its episode begins; it sees its trace and its place."""

    sensors = (Sensor("VectorSensor_size4", (4,)),)

    def __init__(self, seed: int) -> None:
        self._fate = Fate(seed, self.slots, self.decision_period)
        self._place = np.zeros(self.slots)

    def begin(self, agents: Agents, slots: IntArray) -> None:
        self._fate.draw(slots)
        self._place[slots] = 0.0

    def observe(self, agents: Agents, slots: IntArray) -> list[Array]:
        return [np.column_stack([agents.trace(slots), self._place[slots]])]
