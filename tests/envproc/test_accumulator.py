"""Rows from steps, against the definition of an n-step row written out for one agent and one episode."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.acting import Decision
from core.control import Episode
from core.types import Action, ActionSpec, EnvSpec, FieldSpec, FloatArray, IntArray, Recording, Rows
from envproc.accumulator import Accumulator, Worth
from envproc.ball3d import Ball3D
from envproc.env import Ended, Step

ENDS, DECIDES = ("terminated", "truncated", "reset"), "decides"
Event = tuple[str, ...]
"""What an agent meets in one step, in this order: an end (a "reset" is one that was forced), a decision, or nothing."""

EVENTS: list[Event] = [(DECIDES,)] * 8 + [()] * 2 + [(end,) for end in ENDS] + [(end, DECIDES) for end in ENDS]


class Said(NamedTuple):
    """One decision of one agent."""

    action: float
    choice: list[int]
    log_prob: float
    value: float
    """what its policy thought of it"""


class Row(NamedTuple):
    """One transition, as the definition says."""

    sight: list[float]
    """[agent, episode, time] of the decision: what it saw"""
    action: float
    choice: list[int]
    next_sight: list[float]
    reward: float
    discount: float
    ordered: tuple[float, int] | None = None
    """log_prob, and number of the decision in its episode"""
    priority: float | None = None
    """|sum of the discounted rewards + discount * worth of the next sight - value of the decision|"""


@dataclass
class Life:
    """One episode of one agent."""

    sights: list[list[float]] = field(default_factory=list)
    """of each decision, and of the end"""
    worths: list[float] = field(default_factory=list)
    """of each sight, as the policy thinks"""
    said: list[Said] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    """what came after each decision, until the next or the end"""
    end: str = ""

    def rows(self, recording: Recording) -> list[Row]:
        """All that are complete."""
        result, n_step, gamma = [], recording.n_step, recording.gamma
        for t in range(len(self.rewards)):
            length = min(n_step, len(self.rewards) - t)
            if length == n_step or self.end in ("terminated", "truncated"):
                earned = sum(gamma**i * self.rewards[t + i] for i in range(length))
                ends_it = self.end == "terminated" and t + length == len(self.rewards)
                discount = 0.0 if ends_it else gamma**length
                action, choice, log_prob, value = self.said[t]
                ordered = (log_prob, t) if recording.ordered else None
                error = abs(earned + discount * self.worths[t + length] - value) if recording.priority else None
                then = self.sights[t + length]
                result.append(Row(self.sights[t], action, choice, then, earned, discount, ordered, error))
        return result


class World:
    """Agents that meet scripted events, an accumulator that watches them, and the rows that it made of that."""

    def __init__(self, num_agents: int, recording: Recording, first: IntArray | None = None) -> None:
        obs = {"sight": FieldSpec((3,)), "pixels": FieldSpec((2, 2), "uint8")}
        self.accumulator = Accumulator(EnvSpec(obs, ActionSpec((-1.0,), (1.0,), (3, 2)), num_agents), recording)
        self.lives = [[Life()] for _ in range(num_agents)]
        self.rows: list[list[Row]] = [[] for _ in range(num_agents)]
        self.episodes: list[tuple[int, Any, int, str]] = []
        self._recording, self._time = recording, 0
        self._random = np.random.default_rng(0)
        self._deciding = np.arange(num_agents) if first is None else first
        self._obs, _ = self._look(self._deciding)

    def expected(self, agent: int) -> list[Row]:
        return [row for life in self.lives[agent] for row in life.rows(self._recording)]

    def step(self, events: list[Event]) -> None:
        """As a worker does it: decide, forced resets, a step of the environment, rows."""
        decision = decided(self._random, len(self._deciding))
        self.accumulator.decide(self._deciding, self._obs, decision)
        for place, agent in enumerate(self._deciding.tolist()):
            action, choice, log_prob, value, _ = (each[place] for each in decision)
            said = Said(float(action[0]), choice.tolist(), float(log_prob), float(value))
            self.lives[agent][-1].said.append(said)
        forced = self._who(events, "reset")
        self.accumulator.drop(forced)
        for agent in forced.tolist():
            self._end(agent, "reset")

        self._time += 1
        ended = self._who(events, *ENDS)
        terminated = np.array(["terminated" in events[agent] for agent in ended], np.bool_)
        self._earn(ended, end_reward := self._reward(ended))
        last, last_worth = self._look(ended)
        over = Ended(ended, last, end_reward, terminated)
        for agent in ended.tolist():
            self._end(agent, events[agent][0])
        self._deciding = self._who(events, DECIDES)
        self._earn(self._deciding, reward := self._reward(self._deciding))
        self._obs, worth = self._look(self._deciding)
        thinks = Worth(worth, last_worth) if self._recording.priority else None
        self._keep(self.accumulator.observe(Step(self._deciding, self._obs, reward, over), thinks))

    def _who(self, events: list[Event], *which: str) -> IntArray:
        agents = np.array([agent for agent, event in enumerate(events) if set(which) & set(event)], np.int64)
        self._random.shuffle(agents)
        return agents

    def _earn(self, agents: IntArray, reward: FloatArray) -> None:
        for agent, each in zip(agents.tolist(), reward.tolist(), strict=True):
            if self.lives[agent][-1].said:  # else it came before an episode's first decision
                self.lives[agent][-1].rewards.append(each)

    def _end(self, agent: int, end: str) -> None:
        life = self.lives[agent][-1]
        if life.said:
            life.end = end
            self.lives[agent].append(Life())
            self.episodes.append((agent, pytest.approx(sum(life.rewards), abs=1e-4), len(life.said), end))

    def _reward(self, agents: IntArray) -> FloatArray:
        return self._random.normal(size=len(agents)).astype(np.float32)

    def _look(self, agents: IntArray) -> tuple[dict[str, Any], FloatArray]:
        """What these agents see, and what that is worth."""
        sights, worth = np.zeros((len(agents), 3), np.float32), self._reward(agents)
        for row, agent in enumerate(agents.tolist()):
            sights[row] = agent, len(self.lives[agent]), self._time
            life = self.lives[agent][-1]
            life.sights[len(life.rewards) :] = [sights[row].tolist()]  # before a first action, the latest counts
            life.worths[len(life.rewards) :] = [float(worth[row])]
        return {"sight": sights, "pixels": np.full((len(agents), 2, 2), self._time % 256, np.uint8)}, worth

    def _keep(self, rows: Rows) -> None:
        recording, names = self._recording, rows.dtype.names or ()
        assert recording.ordered == ("log_prob" in names) == ("decision" in names)
        assert recording.priority == ("priority" in names)
        for row in rows:
            for obs in (row["obs"], row["next_obs"]):
                assert (obs["pixels"] == obs["sight"][2] % 256).all()
            sight, next_sight = row["obs"]["sight"].tolist(), row["next_obs"]["sight"].tolist()
            action, choice = float(row["action"][0]), row["choice"].tolist()
            ordered = (float(row["log_prob"]), int(row["decision"])) if recording.ordered else None
            priority = float(row["priority"]) if recording.priority else None
            reward, discount = float(row["reward"]), float(row["discount"])
            found = Row(sight, action, choice, next_sight, reward, discount, ordered, priority)
            self.rows[row["agent"]].append(found)


def decided(random: np.random.Generator, n: int, num_actions: int = 1, branches: tuple[int, ...] = (3, 2)) -> Decision:
    """Anything."""
    action = random.uniform(-1, 1, (n, num_actions)).astype(np.float32)
    choice = random.integers(0, np.array(branches, np.int64), (n, len(branches)))
    log_prob, value = random.normal(size=(2, n)).astype(np.float32)
    return Decision(action, choice, log_prob, value, np.zeros((n, 0), np.float32))


def scripts(events: list[Event]) -> st.SearchStrategy[list[list[Event]]]:
    """What up to 4 agents meet in up to 40 steps."""
    of = st.integers(1, 4).map(lambda agents: st.lists(st.sampled_from(events), min_size=agents, max_size=agents))
    return of.flatmap(lambda step: st.lists(step, min_size=1, max_size=40))


@given(
    script=scripts(EVENTS),
    n_step=st.integers(1, 5),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    ordered=st.booleans(),
    priority=st.booleans(),
    absent=st.sets(st.integers(0, 3)),
)
@settings(max_examples=150, deadline=None)
def test_rows_are_what_the_definition_says_and_come_as_soon_as_they_are_complete(
    script: list[list[Event]], n_step: int, gamma: float, ordered: bool, priority: bool, absent: set[int]
) -> None:
    num_agents = len(script[0])
    first = np.array([agent for agent in range(num_agents) if agent not in absent], np.int64)
    world = World(num_agents, Recording(gamma, n_step, ordered, priority), first)
    for events in script:
        world.step(events)
        for agent in range(num_agents):
            expected = world.expected(agent)
            assert len(world.rows[agent]) == len(expected)
            for row, right in zip(world.rows[agent], expected, strict=True):
                assert row[:4] == right[:4] and row.ordered == right.ordered
                assert row[4:6] == pytest.approx(right[4:6], abs=1e-5)
                assert row.priority == pytest.approx(right.priority, abs=1e-5)
    assert world.accumulator.episodes == [Episode(*each) for each in world.episodes]  # type: ignore[arg-type]


@given(script=scripts(EVENTS), n_step=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_no_row_spans_an_end_or_a_reset(script: list[list[Event]], n_step: int) -> None:
    world = World(len(script[0]), Recording(0.9, n_step))
    for events in script:
        world.step(events)
    for agent, rows in enumerate(world.rows):
        for row in rows:
            (by, episode, time), (next_by, next_episode, next_time) = row.sight, row.next_sight
            assert by == next_by == agent and episode == next_episode and time < next_time


@given(script=scripts([(DECIDES,)] * 6 + [("terminated", DECIDES), ("truncated", DECIDES), ("reset", DECIDES)]))
@settings(max_examples=100, deadline=None)
def test_with_one_step_rows_the_rows_of_an_agent_nobody_resets_form_an_unbroken_chain(
    script: list[list[Event]],
) -> None:
    world = World(len(script[0]), Recording())
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
    accumulator, step, kept = Accumulator(env.spec, Recording()), env.reset(0), []
    for time in range(120):
        decision = decided(random, 12, 2, ())
        accumulator.decide(step.agent, step.obs, decision)
        if time in resets:
            accumulator.drop(np.array([5]))
            env.reset_agents(np.array([5]))
        step = env.step(Action(decision.action, decision.choice))
        kept.append(accumulator.observe(step).copy())
    rows: Rows = np.concatenate(kept)
    return rows


def test_an_agent_that_nobody_knows_to_have_decided_may_be_reset_or_end() -> None:
    world = World(2, Recording(n_step=3), first=np.array([1]))
    world.step([("reset",), (DECIDES,)])
    world.step([("terminated",), (DECIDES,)])
    assert world.accumulator.episodes == [] and world.rows == [[], []]


def test_a_window_of_no_steps_is_refused_with_its_value() -> None:
    with pytest.raises(ValueError, match="n_step 0"):
        World(1, Recording(n_step=0))
