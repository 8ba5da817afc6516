"""3DBall for the Academy: twelve agents to an area; the rules and the physics are those of envproc/ball3d.py."""

from __future__ import annotations

from core.types import IntArray
from envproc.ball3d import AGENTS_PER_AREA, DECISION_PERIOD, FALLEN_REWARD, MAX_STEP, REWARD, Balls
from envproc.unity.player.academy import Agents, Array, Behaviour, Sensor


class Ball(Behaviour):
    name = "3DBall"
    sensors = (Sensor("VectorSensor_size8", (8,)),)
    continuous = 2
    decision_period = DECISION_PERIOD
    max_step = MAX_STEP

    def __init__(self, seed: int, areas: int) -> None:
        self.slots = AGENTS_PER_AREA * areas
        self._balls = Balls(self.slots)
        self._balls.seed(seed)

    def begin(self, agents: Agents, slots: IntArray) -> None:
        self._balls.begin(slots)

    def observe(self, agents: Agents, slots: IntArray) -> list[Array]:
        return [self._balls.see(slots)]

    def act(self, agents: Agents) -> None:
        acting = agents.acting
        self._balls.aim(agents.continuous)
        fallen = acting[self._balls.act()[acting]]
        agents.reward[acting] = REWARD
        agents.reward[fallen] = FALLEN_REWARD
        for slot in fallen.tolist():
            agents.stats += [("Ball/Fallen", 1.0, 2), ("Ball/Steps", float(agents.steps[slot]), 0)]
        agents.end(fallen)

    def simulate(self, agents: Agents) -> None:
        self._balls.simulate()

    def parameter(self, name: str, value: float) -> None:
        # Of the example's parameters, mass makes no difference to a ball on a fixed plate, and scale is not modelled.
        if name == "gravity":
            self._balls.gravity = value


def scene(seed: int, areas: int) -> list[Behaviour]:
    return [Ball(seed, areas)]
