"""What a player said, read from its messages by ML-Agents' own classes, and the rows that must come of it.

The model is as simple as can be: one open decision for each wire id, messages in their order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from core.acting import Decision
from core.types import Action, ActionSpec, EnvSpec, FloatArray, IntArray, Recording
from envproc.accumulator import Accumulator
from envproc.env import Step
from envproc.unity.env import UnityEnv
from envproc.unity.messages import UnityMessage

GAMMA = 0.9


class Row(NamedTuple):
    """One transition of one agent, on the wire or in the ring."""

    obs: tuple[float, ...]
    action: tuple[float, ...]
    reward: float
    discount: float
    next_obs: tuple[float, ...]


class Recorder:
    """Steps a UnityEnv as a worker does, and keeps both stories: what the wire said, and what became rows."""

    def __init__(self, env: UnityEnv, behavior: str, sensor: str, seed: int = 0) -> None:
        """`sensor`: the observation field by which rows are compared."""
        self.env, self.sensor = env, sensor
        self.expected: dict[int, list[Row]] = defaultdict(list)  # by wire id
        self.found: dict[int, list[Row]] = defaultdict(list)
        self.terminal_only = self.never_decided = self.interrupted = self.terminated = self.forced = 0
        self._behavior = behavior
        self._open: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {}
        self._random = np.random.default_rng(seed)
        self._receive = env._link._talk.receive
        env._link._talk.receive = self._heard  # type: ignore[method-assign]
        # rows of any scene have one action, which the test draws: what the scene does with it does not matter
        spec = EnvSpec(env.spec.obs, ActionSpec((-1.0,), (1.0,)), env.spec.num_agents)
        self._accumulator = Accumulator(spec, Recording(GAMMA))
        self._asked: list[int] = []  # wire ids that ask for an action, in the order of the message
        self._first(UnityMessage.FromString(env._link._talk.received))
        self.step: Step = env.reset(seed)

    def turn(self, to_reset: Callable[[Step], list[int]] = lambda step: []) -> None:
        """One step: decide, reset whom `to_reset` names, step, observe."""
        step, spec = self.step, self.env.spec.action
        mark = self._random.random((len(step.agent), 1), np.float32)
        n = len(step.agent)
        nothing, stateless = np.zeros(n, np.float32), np.zeros((n, 0), np.float32)
        decision = Decision(mark, np.zeros((n, 0), np.int64), nothing, nothing, stateless)
        self._accumulator.decide(step.agent, step.obs, decision)
        for each, own in zip(self._asked, mark.tolist(), strict=True):
            self._open[each] = (self._open[each][0], tuple(own))
        unlucky = to_reset(step)
        if unlucky:
            self.env.reset_agents(np.array(unlucky))
            self._accumulator.drop(unlucky)
            self.forced += len(unlucky)
            for column in unlucky:
                its_id = self.env._columns.id_of(column)
                assert its_id is not None
                self._open.pop(its_id, None)
        self.step = self.env.step(self.action(step, spec))
        rows = self._accumulator.observe(self.step)
        for row in rows:
            seen, then = row["obs"][self.sensor].ravel(), row["next_obs"][self.sensor].ravel()
            self.found[self.owner(row)].append(
                Row(_tuple(seen), _tuple(row["action"]), float(row["reward"]), float(row["discount"]), _tuple(then))
            )

    def owner(self, row: Any) -> int:
        """The wire id of a row: scenes write it into the observation, but for 3DBall, where it never changes."""
        if self.sensor == "VectorSensor_size8":
            return int(row["agent"])
        place = 4 if self.sensor.startswith("Stacking") else 0
        return int(row["obs"][self.sensor].ravel()[place])

    def action(self, step: Step, spec: ActionSpec) -> Action:
        continuous: FloatArray = self._random.uniform(-1, 1, (len(step.agent), spec.num_continuous)).astype(np.float32)
        discrete: IntArray = np.zeros((len(step.agent), len(spec.branches)), np.int64)
        if spec.branches:
            parts = np.split(step.obs["action_mask"], np.cumsum(spec.branches)[:-1], axis=1)
            for branch, allowed in enumerate(parts):
                weight = self._random.random(allowed.shape) * allowed
                discrete[:, branch] = weight.argmax(axis=1)
        return Action(continuous, discrete)

    def check(self) -> None:
        """Every row that there must be is there, for each agent in its order, and no other."""
        assert {each for each in self.expected if self.expected[each]} == set(self.found)
        for each, rows in self.found.items():
            assert len(rows) == len(self.expected[each]), f"agent {each}"
            for place, (found, expected) in enumerate(zip(rows, self.expected[each], strict=True)):
                assert found == expected, f"agent {each}, row {place}: {found} instead of {expected}"

    def _heard(self) -> Any:
        output = self._receive()
        self._hear(UnityMessage.FromString(self.env._link._talk.received))
        return output

    def _first(self, message: Any) -> None:
        self._hear(message)
        assert not self.expected

    def _hear(self, message: Any) -> None:
        infos = message.unity_output.rl_output.agentInfos[self._behavior].value
        waiting = [info.id for info in infos if not info.done]
        self.terminal_only += not waiting and len(infos) > 0
        if waiting:
            self._asked = waiting
        for info in infos:
            place = [each.name for each in info.observations].index(self.sensor)
            seen = _tuple(info.observations[place].float_data.data)
            last = self._open.pop(info.id, None)
            if last is not None:
                going_on = not info.done or info.max_step_reached
                reward = float(np.float32(info.reward) + np.float32(info.group_reward))
                discount = float(np.float32(GAMMA * going_on))
                self.expected[info.id].append(Row(last[0], last[1], reward, discount, seen))
            if not info.done:
                self._open[info.id] = (seen, ())
            else:
                self.never_decided += last is None
                self.interrupted += info.max_step_reached
                self.terminated += not info.max_step_reached


def _tuple(values: Any) -> tuple[float, ...]:
    return tuple(np.asarray(values, np.float32).ravel().tolist())
