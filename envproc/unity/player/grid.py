"""Nine agents on grids of their own, 5 by 5, decide at every Academy step: where to go, and whether to claim a goal.

There are two goals, of which one is right; an agent is told which by a goal signal. Going into a wall is masked, and so
is a claim elsewhere than on a goal; who does it all the same does nothing. A claim is worth +1 or -1 and is the end.
"""

from __future__ import annotations

import numpy as np

from core.types import BoolArray, IntArray
from envproc.unity.player.academy import Agents, Array, Behaviour, Sensor, streams

SIDE = 5
MOVES = np.array([(0, 0), (0, 1), (0, -1), (-1, 0), (1, 0)])
"""stay, up, down, left, right"""


class Grid(Behaviour):
    name = "Grid"
    slots = 9
    sensors = (Sensor("VectorSensor_size2_GoalSignal", (2,), goal=True), Sensor("VectorSensor_size9", (9,)))
    branches = (len(MOVES), 2)
    decision_period = 1
    max_step = 100

    def __init__(self, seed: int) -> None:
        self._random = streams(seed, self.slots)
        self._place = np.zeros((self.slots, 2), np.int64)
        self._goals = np.zeros((self.slots, 2, 2), np.int64)
        self._right = np.zeros(self.slots, np.int64)

    def begin(self, agents: Agents, slots: IntArray) -> None:
        for slot in slots.tolist():
            cells = self._random[slot].choice(SIDE * SIDE, 3, replace=False)
            self._place[slot], *self._goals[slot] = np.stack(np.divmod(cells, SIDE), axis=1)
            self._right[slot] = self._random[slot].integers(2)

    def observe(self, agents: Agents, slots: IntArray) -> list[Array]:
        goals = self._goals[slots].reshape(-1, 4)
        return [np.eye(2)[self._right[slots]], np.column_stack([agents.trace(slots), self._place[slots], goals])]

    def mask(self, agents: Agents, slots: IntArray) -> BoolArray:
        there = self._place[slots, None] + MOVES
        wall = ((there < 0) | (there >= SIDE)).any(axis=2)
        elsewhere = ~self._on_goals(slots).any(axis=1)
        return np.column_stack([wall, np.zeros_like(elsewhere), elsewhere])

    def act(self, agents: Agents) -> None:
        acting = agents.acting
        agents.reward[acting] -= 0.01
        move, claim = agents.discrete[acting].T
        self._place[acting] = np.clip(self._place[acting] + MOVES[move] * (1 - claim)[:, None], 0, SIDE - 1)
        on_goals = self._on_goals(acting)
        claims = (claim == 1) & on_goals.any(axis=1)
        agents.reward[acting[claims]] += np.where(on_goals[claims, self._right[acting[claims]]], 1.0, -1.0)
        agents.end(acting[claims])

    def _on_goals(self, slots: IntArray) -> BoolArray:
        """(m, 2)"""
        on: BoolArray = (self._place[slots, None] == self._goals[slots]).all(axis=2)
        return on


def scene(seed: int, areas: int) -> list[Behaviour]:
    return [Grid(seed)]
