"""Agents that meet what a script says, and a memory of all they saw and did to compare rows with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from core.acting import Decision
from core.control import Episode
from core.types import ActionSpec, EnvSpec, FieldSpec, FloatArray, IntArray
from envproc.env import Ended, Step

ENDS, DECIDES = ("terminated", "truncated", "reset"), "decides"
Event = tuple[str, ...]
"""What an agent meets in one step, in this order: an end (a "reset" is one that was forced), a decision, or nothing."""

EVENTS: list[Event] = [(DECIDES,)] * 12 + [()] * 2 + [(end,) for end in ENDS] + [(end, DECIDES) for end in ENDS]
STATE_DIM = 3


@dataclass
class Life:
    """One episode of one agent."""

    sights: list[list[int]] = field(default_factory=list)
    """[agent, episode, time / 256, time % 256] of each decision, and of the end"""
    actions: list[float] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    states: list[list[float]] = field(default_factory=list)
    """before each decision"""
    rewards: list[float] = field(default_factory=list)
    """what came after each decision, until the next or the end"""
    end: str = ""

    def stack(self, at: int, size: int) -> list[list[int]]:
        """The newest `size` sights of the `at`-th, the newest last; before the first there is the first."""
        return [self.sights[max(at - size + 1 + i, 0)] for i in range(size)]


class Scripted:
    """Turn by turn: decide(), who is `forced` by the turn's events, play()."""

    def __init__(self, num_agents: int, stack: int = 1, first: IntArray | None = None) -> None:
        obs = {"sight": FieldSpec((4,)), "image": FieldSpec((stack, 2, 2), "uint8", stack)}
        self.spec = EnvSpec(obs, ActionSpec((-1.0,), (1.0,), (5,)), num_agents)
        self.lives = [[Life()] for _ in range(num_agents)]
        self.episodes: list[Episode] = []
        self.seen: dict[tuple[int, ...], npt.NDArray[np.uint8]] = {}
        """sight -> the image that came with it"""
        self._stack, self._time = stack, 0
        self._random = np.random.default_rng(0)
        deciding = np.arange(num_agents) if first is None else first
        nobody = np.zeros(0, np.int64)
        over = Ended(nobody, self._look(nobody), np.zeros(0, np.float32), np.zeros(0, np.bool_))
        self.step = Step(deciding, self._look(deciding), self._reward(deciding), over)

    def decide(self) -> Decision:
        """Of all who are asked."""
        n = len(self.step.agent)
        action = self._random.uniform(-1, 1, (n, 1)).astype(np.float32)
        choice, state = self._random.integers(1, 5, (n, 1)), self._random.normal(size=(n, STATE_DIM))
        decision = Decision(action, choice, np.zeros(n, np.float32), np.zeros(n, np.float32), state.astype(np.float32))
        for row, agent in enumerate(self.step.agent.tolist()):
            life = self.lives[agent][-1]
            life.actions.append(action.item(row))
            life.choices.append(choice.item(row))
            life.states.append(decision.state[row].tolist())
        return decision

    def forced(self, events: list[Event]) -> list[int]:
        """Who is reset in this turn."""
        forced: list[int] = self._who(events, "reset").tolist()
        for agent in forced:
            self._end(agent, "reset")
        return forced

    def play(self, events: list[Event]) -> Step:
        self._time += 1
        ended = self._who(events, *ENDS)
        terminated = np.array(["terminated" in events[agent] for agent in ended], np.bool_)
        self._earn(ended, end_reward := self._reward(ended))
        over = Ended(ended, self._look(ended), end_reward, terminated)
        for agent in ended.tolist():
            self._end(agent, events[agent][0])
        deciding = self._who(events, DECIDES)
        self._earn(deciding, reward := self._reward(deciding))
        self.step = Step(deciding, self._look(deciding), reward, over)
        return self.step

    def _who(self, events: list[Event], *which: str) -> IntArray:
        agents = np.array([agent for agent, event in enumerate(events) if set(which) & set(event)], np.int64)
        self._random.shuffle(agents)
        return agents

    def _earn(self, agents: IntArray, reward: FloatArray) -> None:
        for agent, each in zip(agents.tolist(), reward.tolist(), strict=True):
            if self.lives[agent][-1].actions:  # else it came before an episode's first decision
                self.lives[agent][-1].rewards.append(each)

    def _end(self, agent: int, end: Any) -> None:
        life = self.lives[agent][-1]
        if life.actions:
            life.end = end
            earned: Any = pytest.approx(sum(life.rewards), abs=1e-4)
            self.episodes.append(Episode(agent, earned, len(life.actions), end))
        if life.sights:
            self.lives[agent].append(Life())

    def _reward(self, agents: IntArray) -> FloatArray:
        return self._random.normal(size=len(agents)).astype(np.float32)

    def _look(self, agents: IntArray) -> dict[str, npt.NDArray[Any]]:
        images = np.zeros((len(agents), self._stack, 2, 2), np.uint8)
        for row, agent in enumerate(agents.tolist()):
            life = self.lives[agent][-1]
            now = len(life.rewards)
            life.sights[now:] = [[agent, len(self.lives[agent]) % 256, *divmod(self._time, 256)]]
            images[row] = np.reshape(life.stack(now, self._stack), (self._stack, 2, 2))
            self.seen[tuple(life.sights[now])] = images[row]
        return {"sight": images[:, -1].reshape(-1, 4).astype(np.float32), "image": images}


def scripts(events: list[Event] = EVENTS, most: int = 40) -> st.SearchStrategy[list[list[Event]]]:
    """What up to 4 agents meet in so many steps at the most."""
    of = st.integers(1, 4).map(lambda agents: st.lists(st.sampled_from(events), min_size=agents, max_size=agents))
    return of.flatmap(lambda step: st.lists(step, min_size=1, max_size=most))


def script(num_agents: int, steps: int, seed: int, events: list[Event] = EVENTS) -> list[list[Event]]:
    """A long one, drawn at random."""
    random = np.random.default_rng(seed)
    return [[events[which] for which in random.integers(len(events), size=num_agents)] for _ in range(steps)]
