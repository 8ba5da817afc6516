"""Agents that appear and are destroyed: three at first, at most eight at a time, each with an id never seen before.

Some are destroyed in the middle of an episode, which is told as a true end, and some before their first decision, so
that the trainer hears of their end only. Each place draws for how long it is taken, and then for how long it is empty.
"""

from __future__ import annotations

import numpy as np

from envproc.unity.player.academy import Agents, Behaviour, streams
from envproc.unity.player.fate import OnALine

FIRST = 3


class Spawn(OnALine):
    name = "Spawn"
    slots = 8
    continuous = 1

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._random = streams(seed + 1, self.slots)  # of the places; those of Fate are the agents' own
        self._left = np.zeros(self.slots, np.int64)  # Academy steps until the agent disappears, or one appears

    def start(self, agents: Agents) -> None:
        for slot in range(self.slots):
            if slot < FIRST:
                agents.enable(slot)
            self._left[slot] = self._random[slot].integers(20, 200)

    def act(self, agents: Agents) -> None:
        acting = agents.acting
        self._place[acting] += 0.1 * np.clip(agents.continuous[acting, 0], -1, 1)
        agents.reward[acting] += 0.01 + 0.1 * self._place[acting]
        self._fate.strike(agents)

    def simulate(self, agents: Agents) -> None:
        self._left -= 1
        for slot in np.flatnonzero(self._left <= 0).tolist():
            random = self._random[slot]
            if slot in agents.alive:
                agents.disable(slot)
                self._left[slot] = random.integers(1, 100)
            else:
                agents.enable(slot)
                # one in four does not live to be asked, or hardly
                short = random.random() < 0.25
                self._left[slot] = random.integers(1, self.decision_period) if short else random.integers(20, 300)


def scene(seed: int, areas: int) -> list[Behaviour]:
    return [Spawn(seed)]
