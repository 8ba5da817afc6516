"""Environments that are sound but for one fault each: what the probes are to find."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np

from core.types import ACTION_MASK, Action, ActionSpec, EnvSpec, FieldSpec, IntArray
from envproc.env import CannotReset, Ended, Step
from envproc.toys import Hybrid, Masked, _Toy

Sound = Hybrid
"""vector (4,), one branch of 3 and one continuous action, 8 agents, episodes of 20 decisions"""


class Late(Hybrid):
    """The fault shows from the tenth step on."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        self.steps = 0

    def step(self, action: Action) -> Step:
        self.steps += 1
        step = super().step(action)
        return self.spoil(step) if self.steps >= 10 else step

    def spoil(self, step: Step) -> Step:
        raise NotImplementedError


def seen(step: Step, change: Any) -> Step:
    """What is seen now becomes what `change` makes of it."""
    return step._replace(obs={"vector": change(step.obs["vector"])})


class WrongShape(Late):
    def spoil(self, step: Step) -> Step:
        return seen(step, lambda vector: vector[:, :3])


class WrongDtype(Late):
    def spoil(self, step: Step) -> Step:
        return seen(step, lambda vector: vector.astype(np.float64))


class NotAnArray(Late):
    def spoil(self, step: Step) -> Step:
        return step._replace(reward=step.reward.tolist())


class OtherField(Late):
    def spoil(self, step: Step) -> Step:
        return step._replace(obs={"vektor": step.obs["vector"]})


class GivesNaN(Late):
    def spoil(self, step: Step) -> Step:
        vector = step.obs["vector"].copy()
        vector[2, 1] = np.nan
        return seen(step, lambda _: vector)


class InfiniteReward(Late):
    def spoil(self, step: Step) -> Step:
        return step._replace(reward=step.reward + np.float32(np.inf))


class Stranger(Late):
    def spoil(self, step: Step) -> Step:
        return step._replace(agent=step.agent + 1)


class SomebodyTwice(Late):
    def spoil(self, step: Step) -> Step:
        return step._replace(agent=np.zeros_like(step.agent))


class EndsTwice(Hybrid):
    """Agent 0 does not come back, and ends again."""

    def step(self, action: Action) -> Step:
        step = super().step(action)
        ended = Ended(np.array([0]), {"vector": step.obs["vector"][:1]}, step.reward[:1], np.array([True]))
        return Step(step.agent[1:], {"vector": step.obs["vector"][1:]}, step.reward[1:], ended)

    def _act(self, action: Action) -> Any:
        rows = len(self._agents) - len(action.discrete)
        nobody = ((rows, 0), (0, 0))
        return super()._act(Action(np.pad(action.continuous, nobody), np.pad(action.discrete, nobody)))


class BeginsWithAnEnd(Hybrid):
    def reset(self, seed: int) -> Step:
        step = super().reset(seed)
        ended = Ended(np.array([0]), {"vector": step.obs["vector"][:1]}, step.reward[:1], np.array([True]))
        return step._replace(ended=ended)


class NotAStep(Late):
    def spoil(self, step: Step) -> Step:
        return step.obs, step.reward  # type: ignore[return-value]


class Raises(Late):
    def spoil(self, step: Step) -> Step:
        raise RuntimeError("the motor\nis hot")


class Exits(Late):
    def spoil(self, step: Step) -> Step:
        sys.exit(0)


class Leaves(Late):
    def spoil(self, step: Step) -> Step:
        os._exit(0)


class KillsItself(Late):
    def spoil(self, step: Step) -> Step:
        os.kill(os.getpid(), signal.SIGKILL)
        return step


class Hangs(Late):
    def spoil(self, step: Step) -> Step:
        time.sleep(60)
        return step


class RaisesAtTheBounds(Hybrid):
    def step(self, action: Action) -> Step:
        assert (action.continuous < 0.999).all(), "beyond the rail"
        return super().step(action)


class NothingAllowed(Masked):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        step.obs[ACTION_MASK][3] = False
        return step


class NobodyThere(Hybrid):
    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        self.spec = EnvSpec(self.spec.obs, self.spec.action, 0)


class NothingToDo(Hybrid):
    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        self.spec = EnvSpec(self.spec.obs, ActionSpec(), self.spec.num_agents)


class Unseeded(Hybrid):
    def reset(self, seed: int) -> Step:
        return super().reset(int.from_bytes(os.urandom(4), "big"))


class OneSeed(Hybrid):
    def reset(self, seed: int) -> Step:
        return super().reset(7)


class DeafToReset(Hybrid):
    def reset_agents(self, agents: IntArray) -> None:
        """Forgotten."""


class CannotResetOne(Hybrid):
    def reset_agents(self, agents: IntArray) -> None:
        raise CannotReset("they are welded together")


class ResetsAll(Hybrid):
    def reset_agents(self, agents: IntArray) -> None:
        super().reset_agents(self._agents)


class OneDiceForAll(Hybrid):
    """Whoever begins takes the next numbers: an early end changes everybody's next episode."""

    def reset(self, seed: int) -> Step:
        step = super().reset(seed)
        self._random = [self._random[0]] * len(self._random)
        return step


class Numbers(_Toy):
    """vector (4,): constant, huge, and two that change; rewards by `pay`; episodes of `limit` decisions."""

    def __init__(self, pay: float = 0.0, every: int = 1, limit: int = 20, shape: tuple[int, ...] = (4,)) -> None:
        super().__init__(1, {"vector": FieldSpec(shape)}, ActionSpec(branches=(2,)), limit)
        self._pay, self._every, self._count = pay, every, 0

    def _begin(self, agent: int, random: np.random.Generator) -> None:
        """No chance in it."""

    def _see(self) -> dict[str, Any]:
        values = np.zeros((len(self._agents), *self.spec.obs["vector"].shape), np.float32)
        values[:, 1], values[:, 2], values[:, 3] = 5000 + self._count, self._count % 3, self._count % 2
        return {"vector": values}

    def _act(self, action: Action) -> Any:
        self._count += 1
        reward = self._pay * (self._count % self._every == 0) * (1 + 0.5 * action.discrete[:, 0])
        return reward.astype(np.float32), np.zeros(len(reward), np.bool_)
