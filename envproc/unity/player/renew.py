"""Agents whose ids change: at the end of an episode each is disabled and enabled again, as in ML-Agents' Basic.

Each stands on a line, is pushed by its first action and tires by its second; it is worth the more, the nearer to 0.
"""

from __future__ import annotations

import numpy as np

from core.types import IntArray
from envproc.unity.player.academy import Agents, Behaviour
from envproc.unity.player.fate import OnALine


class Renew(OnALine):
    name = "Renew"
    slots = 3
    continuous = 2

    def begin(self, agents: Agents, slots: IntArray) -> None:
        super().begin(agents, slots)
        for slot in slots.tolist():
            self._place[slot] = self._fate.random[slot].uniform(-1, 1)

    def act(self, agents: Agents) -> None:
        acting = agents.acting
        push, effort = agents.continuous[acting].T
        self._place[acting] += 0.1 * np.clip(push, -1, 1)
        agents.reward[acting] += 0.1 - 0.05 * np.abs(self._place[acting]) - 0.01 * np.abs(effort)
        self._fate.strike(agents)

    def simulate(self, agents: Agents) -> None:
        for slot in agents.alive[agents.ended[agents.alive]].tolist():
            agents.disable(slot)  # its end has been told already
            agents.enable(slot)


def scene(seed: int, areas: int) -> list[Behaviour]:
    return [Renew(seed)]
