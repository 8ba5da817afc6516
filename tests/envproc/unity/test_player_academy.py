"""The Academy without a wire: what no scene of the stand-in's comes to. It is also how small a scene can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from core.types import IntArray
from envproc.unity.player.academy import Academy, Agents, Array, Behaviour, Infos, Reply, Sensor


class Clock(Behaviour):
    """One agent, which sees and earns the time; it is destroyed at step 3 and another appears at step 6."""

    name = "Clock"
    slots = 1
    sensors = (Sensor("VectorSensor_size1", (1,)),)
    branches = (2,)
    decision_period = 2
    time = 0

    def begin(self, agents: Agents, slots: IntArray) -> None: ...

    def observe(self, agents: Agents, slots: IntArray) -> list[Array]:
        return [np.full((len(slots), 1), self.time)]

    def act(self, agents: Agents) -> None:
        agents.reward[agents.acting] += self.time

    def simulate(self, agents: Agents) -> None:
        self.time += 1
        if self.time == 3:
            agents.disable(0)
        if self.time == 6:
            agents.enable(0)


def test_while_nobody_is_alive_nothing_is_sent_and_the_end_leaves_with_the_next_agents_decision() -> None:
    scene = Clock()
    academy = Academy([scene])
    heard: list[tuple[int, list[tuple[int, bool, float]]]] = []

    def exchange(told: Mapping[str, Sequence[Infos]]) -> Reply:
        infos = [(int(each.id[0]), each.done, float(each.reward[0])) for each in told["Clock?team=0"]]
        heard.append((scene.time, infos))
        return Reply(reset=False, actions={})

    for _ in range(8):
        academy.step(exchange)
    assert heard == [
        (0, [(0, False, 0.0)]),
        (2, [(0, False, 0.0 + 1.0)]),
        (6, [(0, True, 2.0), (1, False, 0.0)]),
    ]


def test_actions_for_more_or_fewer_agents_than_asked_are_refused() -> None:
    def exchange(told: Mapping[str, Sequence[Infos]]) -> Reply:
        return Reply(False, {"Clock?team=0": (np.zeros((2, 0), np.float32), np.zeros((2, 1), np.int64))})

    with pytest.raises(ValueError, match=r"2 actions for 1 agents of Clock\?team=0"):
        Academy([Clock()]).step(exchange)
