"""Toys whose numbers are bad, or whose steps have another form than they said; in workers alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.types import Action, IntArray
from envproc.env import CannotReset, Step
from tests.process.counting import AGENTS, Counting
from tests.process.toys import STEPS_BEFORE_TROUBLE

EVERY = 17
"""steps from one bad number to the next: fewer than 10 in 1,000 agent steps"""
HEALTHY = (0, 3, 6)
"""agents that never have one"""
BAD = (np.nan, np.inf, -np.inf)


def spoilt(number: int) -> tuple[int, bool, bool, float]:
    """What is bad in step `number`: whose (-1: nobody's), in its end, in the reward; the value."""
    nth, is_now = divmod(number, EVERY)
    sick = [agent for agent in range(AGENTS) if agent not in HEALTHY]
    agent = sick[nth % len(sick)] if not is_now else -1
    return agent, nth % 3 == 0, nth % 2 == 0, BAD[nth % 7 % 3]


class Sick(Counting):
    """Now and then a number is bad: of an observation or a reward, while the episode goes on or at its end."""

    def step(self, action: Action) -> Step:
        step = super().step(action)
        agent, in_end, in_reward, value = spoilt(self.steps)
        if not self.in_worker or agent < 0:
            return step
        side: Any = step.ended if in_end else step
        where = side.agent == agent
        (side.reward if in_reward else side.obs["vector"])[where] = value
        return step


class SickAndWelded(Sick):
    """No agent of its can be reset."""

    def reset_agents(self, agents: IntArray) -> None:
        raise CannotReset("they are welded together")


class Rotten(Counting):
    """Agent 3 gives nothing but NaN, whatever is done about it."""

    def step(self, action: Action) -> Step:
        step = super().step(action)
        if self.in_worker:
            step.obs["vector"][3, 2] = np.nan
        return step


class Huge(Counting):
    """Large, and finite."""

    def step(self, action: Action) -> Step:
        step = super().step(action)
        if self.in_worker:
            step.obs["vector"][:, 2] = 1e38
            step.reward[:] = -1e38
        return step


class HugeRewards(Counting):
    """Rewards whose squares no float32 holds, from the time on when something has been learned."""

    def step(self, action: Action) -> Step:
        step = super().step(action)
        if self.in_worker and self.steps > 100:
            step.reward[:] = 1e30
        return step


class LateForm(Counting):
    """After some steps these have another form."""

    def step(self, action: Action) -> Step:
        step = super().step(action)
        return self.other(step) if self.in_worker and self.steps > STEPS_BEFORE_TROUBLE * 3 + 1 else step

    def other(self, step: Step) -> Step:
        raise NotImplementedError


class OtherShape(LateForm):
    def other(self, step: Step) -> Step:
        return step._replace(obs={"vector": step.obs["vector"][:, :2]})


class OtherDtype(LateForm):
    def other(self, step: Step) -> Step:
        return step._replace(reward=step.reward.astype(np.float64))


class OneTooMany(LateForm):
    def other(self, step: Step) -> Step:
        vector = np.concatenate([step.obs["vector"], step.obs["vector"][:1]])
        return step._replace(agent=np.arange(AGENTS + 1), obs={"vector": vector}, reward=np.zeros(AGENTS + 1, "f4"))


class OtherField(LateForm):
    def other(self, step: Step) -> Step:
        return step._replace(obs={"vektor": step.obs["vector"]})


class Closes(Counting):
    """Not."""

    def close(self) -> None:
        raise ValueError("no")
