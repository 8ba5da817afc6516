"""Rows from steps, against the definition of an n-step row written out for one agent and one episode."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.control import Episode
from core.types import Action, ActionSpec, EnvSpec, FieldSpec, FloatArray, IntArray, Rows
from envproc.accumulator import Accumulator
from envproc.ball3d import Ball3D
from envproc.env import Ended, Step

ENDS, DECIDES = ("terminated", "truncated", "reset"), "decides"
Event = tuple[str, ...]
"""What an agent meets in one step, in this order: an end (a "reset" is one that was forced), a decision, or nothing."""

EVENTS: list[Event] = [(DECIDES,)] * 8 + [()] * 2 + [(end,) for end in ENDS] + [(end, DECIDES) for end in ENDS]


class Row(NamedTuple):
    """One transition, as the definition says."""

    sight: list[float]
    """[agent, episode, time] of the decision: what it saw"""
    action: float
    reward: float
    discount: float
    next_sight: list[float]


@dataclass
class Life:
    """One episode of one agent."""

    sights: list[list[float]] = field(default_factory=list)
    """of each decision, and of the end"""
    actions: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    """what came after each decision, until the next or the end"""
    end: str = ""

    def rows(self, n_step: int, gamma: float) -> list[Row]:
        """All that are complete."""
        result = []
        for t in range(len(self.rewards)):
            length = min(n_step, len(self.rewards) - t)
            if length == n_step or self.end in ("terminated", "truncated"):
                earned = sum(gamma**i * self.rewards[t + i] for i in range(length))
                ends_it = self.end == "terminated" and t + length == len(self.rewards)
                discount = 0.0 if ends_it else gamma**length
                result.append(Row(self.sights[t], self.actions[t], earned, discount, self.sights[t + length]))
        return result


class World:
    """Agents that meet scripted events, an accumulator that watches them, and the rows that it made of that."""

    def __init__(self, num_agents: int, n_step: int, gamma: float, first: IntArray | None = None) -> None:
        obs = {"sight": FieldSpec((3,)), "pixels": FieldSpec((2, 2), "uint8")}
        self.accumulator = Accumulator(EnvSpec(obs, ActionSpec((-1.0,), (1.0,)), num_agents), gamma, n_step)
        self.lives = [[Life()] for _ in range(num_agents)]
        self.rows: list[list[Row]] = [[] for _ in range(num_agents)]
        self.episodes: list[tuple[int, Any, int, str]] = []
        self._n_step, self._gamma, self._time = n_step, gamma, 0
        self._random = np.random.default_rng(0)
        self._deciding = np.arange(num_agents) if first is None else first
        self._obs = self._look(self._deciding)

    def expected(self, agent: int) -> list[Row]:
        return [row for life in self.lives[agent] for row in life.rows(self._n_step, self._gamma)]

    def step(self, events: list[Event]) -> None:
        """As a worker does it: decide, forced resets, a step of the environment, rows."""
        actions = self._random.uniform(-1, 1, (len(self._deciding), 1)).astype(np.float32)
        self.accumulator.decide(self._deciding, self._obs, actions)
        for agent, action in zip(self._deciding.tolist(), actions[:, 0].tolist(), strict=True):
            self.lives[agent][-1].actions.append(action)
        forced = self._who(events, "reset")
        self.accumulator.drop(forced)
        for agent in forced.tolist():
            self._end(agent, "reset")

        self._time += 1
        ended = self._who(events, *ENDS)
        terminated = np.array(["terminated" in events[agent] for agent in ended], np.bool_)
        self._earn(ended, end_reward := self._reward(ended))
        over = Ended(ended, self._look(ended), end_reward, terminated)
        for agent in ended.tolist():
            self._end(agent, events[agent][0])
        self._deciding = self._who(events, DECIDES)
        self._earn(self._deciding, reward := self._reward(self._deciding))
        self._obs = self._look(self._deciding)
        self._keep(self.accumulator.observe(Step(self._deciding, self._obs, reward, over)))

    def _who(self, events: list[Event], *which: str) -> IntArray:
        agents = np.array([agent for agent, event in enumerate(events) if set(which) & set(event)], np.int64)
        self._random.shuffle(agents)
        return agents

    def _earn(self, agents: IntArray, reward: FloatArray) -> None:
        for agent, each in zip(agents.tolist(), reward.tolist(), strict=True):
            if self.lives[agent][-1].actions:  # else it came before an episode's first decision
                self.lives[agent][-1].rewards.append(each)

    def _end(self, agent: int, end: str) -> None:
        life = self.lives[agent][-1]
        if life.actions:
            life.end = end
            self.lives[agent].append(Life())
            self.episodes.append((agent, pytest.approx(sum(life.rewards), abs=1e-4), len(life.actions), end))

    def _reward(self, agents: IntArray) -> FloatArray:
        return self._random.normal(size=len(agents)).astype(np.float32)

    def _look(self, agents: IntArray) -> dict[str, Any]:
        sights = np.zeros((len(agents), 3), np.float32)
        for row, agent in enumerate(agents.tolist()):
            sights[row] = agent, len(self.lives[agent]), self._time
            life = self.lives[agent][-1]
            life.sights[len(life.rewards) :] = [sights[row].tolist()]  # before a first action, the latest counts
        return {"sight": sights, "pixels": np.full((len(agents), 2, 2), self._time % 256, np.uint8)}

    def _keep(self, rows: Rows) -> None:
        for row in rows:
            for obs in (row["obs"], row["next_obs"]):
                assert (obs["pixels"] == obs["sight"][2] % 256).all()
            action, reward, discount = float(row["action"][0]), float(row["reward"]), float(row["discount"])
            sight, next_sight = row["obs"]["sight"].tolist(), row["next_obs"]["sight"].tolist()
            self.rows[row["agent"]].append(Row(sight, action, reward, discount, next_sight))


def scripts(events: list[Event]) -> st.SearchStrategy[list[list[Event]]]:
    """What up to 4 agents meet in up to 40 steps."""
    of = st.integers(1, 4).map(lambda agents: st.lists(st.sampled_from(events), min_size=agents, max_size=agents))
    return of.flatmap(lambda step: st.lists(step, min_size=1, max_size=40))


@given(
    script=scripts(EVENTS),
    n_step=st.integers(1, 5),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    absent=st.sets(st.integers(0, 3)),
)
@settings(max_examples=300, deadline=None)
def test_rows_are_what_the_definition_says_and_come_as_soon_as_they_are_complete(
    script: list[list[Event]], n_step: int, gamma: float, absent: set[int]
) -> None:
    num_agents = len(script[0])
    first = np.array([agent for agent in range(num_agents) if agent not in absent], np.int64)
    world = World(num_agents, n_step, gamma, first)
    for events in script:
        world.step(events)
        for agent in range(num_agents):
            expected = world.expected(agent)
            assert len(world.rows[agent]) == len(expected)
            for row, right in zip(world.rows[agent], expected, strict=True):
                assert row[:2] == right[:2] and row.next_sight == right.next_sight
                assert row[2:4] == pytest.approx(right[2:4], abs=1e-5)
    assert world.accumulator.episodes == [Episode(*each) for each in world.episodes]  # type: ignore[arg-type]


@given(script=scripts(EVENTS), n_step=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_no_row_spans_an_end_or_a_reset(script: list[list[Event]], n_step: int) -> None:
    world = World(len(script[0]), n_step, 0.9)
    for events in script:
        world.step(events)
    for agent, rows in enumerate(world.rows):
        for (by, episode, time), _, _, _, (next_by, next_episode, next_time) in rows:
            assert by == next_by == agent and episode == next_episode and time < next_time


@given(script=scripts([(DECIDES,)] * 6 + [("terminated", DECIDES), ("truncated", DECIDES), ("reset", DECIDES)]))
@settings(max_examples=100, deadline=None)
def test_with_one_step_rows_the_rows_of_an_agent_nobody_resets_form_an_unbroken_chain(
    script: list[list[Event]],
) -> None:
    world = World(len(script[0]), 1, 0.99)
    for events in script:
        world.step(events)
    for agent, rows in enumerate(world.rows):
        resets = [time for time, events in enumerate(script) if "reset" in events[agent]]
        # a row for each step, but for those in which it was reset
        assert [row.sight[2] for row in rows] == [time for time in range(len(script)) if time not in resets]
        for row, following in pairwise(rows):
            time = int(row.sight[2])
            if script[time][agent] == (DECIDES,) and time + 1 not in resets:
                assert row.next_sight == following.sight


def test_resets_of_one_agent_leave_the_rows_of_the_others_as_they_would_have_been() -> None:
    untouched, touched = ball3d_rows(resets=set()), ball3d_rows(resets={3, 4, 50, 90})
    assert len(untouched) == 12 * 120
    for agent in set(range(12)) - {5}:
        assert np.array_equal(untouched[untouched["agent"] == agent], touched[touched["agent"] == agent])
    assert (touched["agent"] == 5).sum() == 120 - 4


def ball3d_rows(resets: set[int]) -> Rows:
    """120 steps of 3DBall under random actions; agent 5 is reset in some of them."""
    env, random = Ball3D(), np.random.default_rng(0)
    accumulator, step, kept = Accumulator(env.spec, 0.99, 1), env.reset(0), []
    for time in range(120):
        action = random.uniform(-1, 1, (12, 2)).astype(np.float32)
        accumulator.decide(step.agent, step.obs, action)
        if time in resets:
            accumulator.drop(np.array([5]))
            env.reset_agents(np.array([5]))
        step = env.step(Action(action, np.zeros((12, 0), np.int64)))
        kept.append(accumulator.observe(step).copy())
    rows: Rows = np.concatenate(kept)
    return rows


def test_an_agent_that_nobody_knows_to_have_decided_may_be_reset_or_end() -> None:
    world = World(2, 3, 0.99, first=np.array([1]))
    world.step([("reset",), (DECIDES,)])
    world.step([("terminated",), (DECIDES,)])
    assert world.accumulator.episodes == [] and world.rows == [[], []]


def test_a_window_of_no_steps_is_refused_with_its_value() -> None:
    with pytest.raises(ValueError, match="n_step 0"):
        World(1, 0, 0.99)
