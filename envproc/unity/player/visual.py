"""Four agents that see a picture: a red patch that wanders, and the green one that the agent's two actions move.

Who catches the patch has ended truly. The picture is sent as Unity's camera sensors do, as PNG, or uncompressed; alone,
or in one sensor with the one before it (oldest first, black after a reset); its channels last, or first from package
version 3 on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.types import IntArray
from envproc.unity.player.academy import Agents, Array, Behaviour, Sensor
from envproc.unity.player.fate import Fate

SIDE = 24
PATCH = 4
TRANSLATIONAL, NONE = 2, 1


class Visual(Behaviour):
    name = "Visual"
    slots = 4
    continuous = 2

    def __init__(self, seed: int, raw: bool, stacked: bool, channels_first: bool) -> None:
        channels = 6 if stacked else 3
        name = "StackingSensor_size2_CameraSensor" if stacked else "CameraSensor"
        shape, properties = (SIDE, SIDE, channels), (TRANSLATIONAL, TRANSLATIONAL, NONE)
        if channels_first:
            shape, properties = (channels, SIDE, SIDE), (NONE, TRANSLATIONAL, TRANSLATIONAL)
        self.sensors = (Sensor(name, shape, properties, png=not raw), Sensor("VectorSensor_size7", (7,)))
        self._raw, self._stacked, self._channels_first = raw, stacked, channels_first
        self._fate = Fate(seed, self.slots, self.decision_period)
        self._patch, self._place = np.zeros((2, self.slots, 2))
        self._last = np.zeros((self.slots, SIDE, SIDE, 3), np.uint8)

    def begin(self, agents: Agents, slots: IntArray) -> None:
        self._fate.draw(slots)
        self._last[slots] = 0
        for slot in slots.tolist():
            self._patch[slot], self._place[slot] = self._fate.random[slot].uniform(0, SIDE - PATCH, (2, 2))

    def observe(self, agents: Agents, slots: IntArray) -> list[Array]:
        """The vector holds the two places, row and column: what the picture shows, for tests."""
        now = np.zeros((len(slots), SIDE, SIDE, 3), np.uint8)
        for picture, slot in zip(now, slots.tolist(), strict=True):
            for channel, (row, column) in enumerate((self._patch[slot].astype(int), self._place[slot].astype(int))):
                picture[row : row + PATCH, column : column + PATCH, channel] = 255
        seen = np.concatenate([self._last[slots], now], axis=3) if self._stacked else now
        self._last[slots] = now
        places = [self._patch[slots], self._place[slots]]
        return [self._as_sent(seen), np.column_stack([agents.trace(slots), *places])]

    def act(self, agents: Agents) -> None:
        acting = agents.acting
        self._place[acting] = np.clip(self._place[acting] + np.clip(agents.continuous[acting], -1, 1), 0, SIDE - PATCH)
        distance = np.abs(self._place[acting] - self._patch[acting]).max(axis=1)
        agents.reward[acting] += 0.1 - 0.01 * distance
        agents.end(acting[distance < 1.0])
        self._fate.strike(agents)

    def simulate(self, agents: Agents) -> None:
        for slot in agents.alive.tolist():
            step = self._fate.random[slot].uniform(-0.5, 0.5, 2)
            self._patch[slot] = np.clip(self._patch[slot] + step, 0, SIDE - PATCH)

    def _as_sent(self, pictures: npt.NDArray[np.uint8]) -> Array:
        if not self._raw:
            return pictures  # a PNG has its channels last in any version
        floats: Array = pictures / np.float32(255)
        return floats.transpose(0, 3, 1, 2) if self._channels_first else floats


def scene(seed: int, areas: int, raw: bool, stacked: bool, channels_first: bool) -> list[Behaviour]:
    return [Visual(seed, raw, stacked, channels_first)]
