"""Sequences from steps, against the definition of a sequence written out for one agent and one episode."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.types import Recording, Rows
from envproc.sequences import Sequences
from tests.envproc.scripted import DECIDES, EVENTS, STATE_DIM, Event, Life, Scripted, scripts


class Row(NamedTuple):
    """One sequence of T decisions, as the definition says."""

    sights: list[list[int]]
    """T + 1 of them; after an end the last one again"""
    actions: list[float]
    choices: list[int]
    rewards: list[float]
    discounts: list[float]
    valid: list[float]
    state: list[float]
    """before the first decision"""


def spans(life: Life, length: int, stride: int) -> list[tuple[int, int]]:
    """First decision and end of each sequence of an episode that is complete by now.

    They begin every `stride` decisions and are complete when they are full. A proper end also completes the first that
    is not full: it has decisions that are in no other, or it is the only one.
    """
    known = len(life.rewards)
    full = [(start, start + length) for start in range(0, known - length + 1, stride)]
    if life.end not in ("terminated", "truncated") or (full and full[-1][1] == known):
        return full
    return [*full, (len(full) * stride, known)]


def sequences(life: Life, recording: Recording) -> list[Row]:
    result = []
    for start, end in spans(life, recording.length, recording.stride):
        number, empty = end - start, recording.length - (end - start)
        discounts = [recording.gamma] * number
        if life.end == "terminated" and end == len(life.rewards):
            discounts[-1] = 0.0
        row = Row(
            life.sights[start : end + 1] + [life.sights[end]] * empty,
            life.actions[start:end] + [0.0] * empty,
            life.choices[start:end] + [0] * empty,
            life.rewards[start:end] + [0.0] * empty,
            discounts + [0.0] * empty,
            [1.0] * number + [0.0] * empty,
            life.states[start],
        )
        result.append(row)
    return result


class World:
    """Scripted agents, Sequences that watch them, and the rows that they made of that."""

    def __init__(self, num_agents: int, length: int, stride: int, gamma: float = 0.9, first: Any = None) -> None:
        self.recording = Recording(gamma, length=length, stride=stride, state_dim=STATE_DIM)
        self.agents = Scripted(num_agents, first=first)
        self.sequences = Sequences(self.agents.spec, self.recording)
        self.rows: list[list[Row]] = [[] for _ in range(num_agents)]

    def step(self, events: list[Event]) -> None:
        """As a worker does it: decide, forced resets, a step of the environment, rows."""
        asked = self.agents.step
        self.sequences.decide(asked.agent, asked.obs, self.agents.decide())
        self.sequences.drop(self.agents.forced(events))
        self._keep(self.sequences.observe(self.agents.play(events)))

    def expected(self, agent: int) -> list[Row]:
        return [row for life in self.agents.lives[agent] for row in sequences(life, self.recording)]

    def _keep(self, rows: Rows) -> None:
        for row in rows:
            sights = row["obs"]["sight"]
            assert np.array_equal(row["obs"]["image"].reshape(sights.shape), sights)
            said = row["action"][:, 0].tolist(), row["choice"][:, 0].tolist()
            came = row["reward"].tolist(), row["discount"].tolist()
            kept = Row(sights.tolist(), *said, *came, row["valid"].tolist(), row["state"].tolist())
            self.rows[row["agent"]].append(kept)


LENGTHS = st.integers(1, 8).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length)))
"""(length, stride)"""


@given(script=scripts(), lengths=LENGTHS, gamma=st.sampled_from([0.0, 0.5, 1.0]), absent=st.sets(st.integers(0, 3)))
@settings(max_examples=100, deadline=None)
def test_rows_are_what_the_definition_says_and_come_as_soon_as_they_are_complete(
    script: list[list[Event]], lengths: tuple[int, int], gamma: float, absent: set[int]
) -> None:
    num_agents = len(script[0])
    first = np.array([agent for agent in range(num_agents) if agent not in absent], np.int64)
    world = World(num_agents, *lengths, gamma, first)
    for events in script:
        world.step(events)
        for agent in range(num_agents):
            assert world.rows[agent] == world.expected(agent)
    assert world.sequences.episodes == world.agents.episodes


@given(script=scripts(), lengths=LENGTHS)
@settings(max_examples=60, deadline=None)
def test_no_row_spans_an_end_or_a_reset(script: list[list[Event]], lengths: tuple[int, int]) -> None:
    world = World(len(script[0]), *lengths)
    for events in script:
        world.step(events)
    for agent, rows in enumerate(world.rows):
        for row in rows:
            by, episodes, *_ = zip(*row.sights, strict=True)
            assert set(by) == {agent} and len(set(episodes)) == 1
            times = [high * 256 + low for _, _, high, low in row.sights[: int(sum(row.valid)) + 1]]
            assert times == sorted(set(times))


@given(script=scripts([event for event in EVENTS if "reset" not in event]), lengths=LENGTHS)
@settings(max_examples=60, deadline=None)
def test_every_decision_of_an_episode_that_ended_is_in_a_row_and_neighbours_share_length_minus_stride(
    script: list[list[Event]], lengths: tuple[int, int]
) -> None:
    length, stride = lengths
    world = World(len(script[0]), length, stride)
    for events in script:
        world.step(events)
    for agent, rows in enumerate(world.rows):
        for number, life in enumerate(world.agents.lives[agent], 1):
            own = [row for row in rows if row.sights[0][1] == number]
            seen = [row.sights[: int(sum(row.valid))] for row in own]
            if life.end:
                assert sorted({tuple(sight) for sights in seen for sight in sights}) == [
                    tuple(sight) for sight in life.sights[:-1]
                ]
            for one, other in pairwise(seen):
                shared = length - stride
                assert len(one) == length and one[stride:] == other[:shared] and len(other) > shared


def test_what_an_episode_leaves_behind_is_not_in_the_next_ones_rows() -> None:
    world = World(1, 6, 3, gamma=0.5)
    for _ in range(5):
        world.step([(DECIDES,)])
    world.step([("terminated", DECIDES)])
    world.step([(DECIDES,)])
    world.step([("truncated",)])
    (long, short) = world.rows[0]
    assert long.valid == [1.0] * 6 and long.discounts == [0.5] * 5 + [0.0]
    assert short.valid == [1.0] * 2 + [0.0] * 4 and short.discounts == [0.5] * 2 + [0.0] * 4
    for padded in (short.actions, short.choices, short.rewards):
        assert padded[2:] == [0] * 4
    assert short.sights[2:] == [short.sights[2]] * 5


def test_an_agent_that_nobody_knows_to_have_decided_may_be_reset_or_end() -> None:
    world = World(2, 3, 2, first=np.array([1]))
    world.step([("reset",), (DECIDES,)])
    world.step([("terminated",), (DECIDES,)])
    assert world.sequences.episodes == [] and world.rows == [[], []]


def test_drop_says_who_had_an_episode_open() -> None:
    world = World(3, 3, 2, first=np.array([1, 2]))
    asked = world.agents.step
    world.sequences.decide(asked.agent, asked.obs, world.agents.decide())
    assert world.sequences.drop([0, 2]) == [2]


@pytest.mark.parametrize("stride", [1, 4])
def test_the_rows_of_one_call_are_one_for_each_agent_at_the_most(stride: int) -> None:
    world = World(4, 4, stride)
    for _ in range(3):
        world.step([(DECIDES,)] * 4)
    world.step([(DECIDES,), ("terminated", DECIDES), ("truncated", DECIDES), ("reset", DECIDES)])
    assert [len(rows) for rows in world.rows] == [1, 1, 1, 0]
