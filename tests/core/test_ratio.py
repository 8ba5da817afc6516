"""What learning and collecting owe each other, whoever is slower."""

from __future__ import annotations

import math
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ratio import ReplayRatio, share
from core.ring import FOREVER


@given(
    ratio=st.floats(1e-4, 1e4),
    batch_size=st.integers(1, 4096),
    warmup=st.integers(0, 10**6),
    agents=st.integers(1, 1000),
    updates=st.integers(0, 10**9),
)
@settings(max_examples=1000, deadline=None)
def test_there_is_no_moment_at_which_neither_side_may_move(
    ratio: float, batch_size: int, warmup: int, agents: int, updates: int
) -> None:
    held = ReplayRatio(ratio, batch_size, warmup)
    limit = held.limit(updates, agents)
    assert held.due(limit, updates)  # the workers stop here, and not before
    assert not held.due(warmup, updates)
    # and they can make a step while the updates that the last one pays for are under way
    assert held.due(limit - agents, updates)


@given(
    ratio=st.floats(0.25, 16),
    batch_size=st.integers(1, 64),
    warmup=st.integers(0, 300),
    num_agents=st.integers(1, 12),
    turns=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_the_ratio_asked_for_is_held_whoever_is_slower_and_nobody_waits_for_ever(
    ratio: float, batch_size: int, warmup: int, num_agents: int, turns: list[int], seed: int
) -> None:
    """`turns`: how often the learner, and each lane, may try to move before the next one does."""
    learner_turns, *lane_turns = turns
    num_lanes = len(lane_turns)
    random = np.random.default_rng(seed)
    wanted, agents = ReplayRatio(ratio, batch_size, warmup), num_agents * num_lanes
    allowed, decided = np.zeros((2, num_lanes), np.int64)
    updates, made = 0, 0
    # within 2 % as soon as all that somebody may be ahead is 2 % of the run
    enough = 51 * (wanted.lead(agents) + num_lanes * (num_agents + 1))
    while made - warmup < enough:
        before = made, updates
        for _ in range(learner_turns):
            allowed = share(wanted.limit(updates, agents), decided, num_lanes)
            if not wanted.due(made, updates):
                break
            updates += 1
        for lane in random.permutation(num_lanes):
            for _ in range(lane_turns[lane]):
                if decided[lane] >= allowed[lane]:
                    break
                decided[lane] += int(random.integers(1, num_agents, endpoint=True))
            made = int(decided.sum())
            assert made < wanted.limit(updates, agents) + num_lanes * num_agents
        assert (made, updates) != before, "neither side moved"
        assert updates == 0 or wanted.held(made, updates) <= ratio * (1 + 1e-9)
    assert wanted.held(made, updates) == pytest.approx(ratio, rel=0.02)


def test_no_update_is_due_before_the_warmup_and_the_first_batch_after_it() -> None:
    ratio = ReplayRatio(ratio=4.0, batch_size=128, warmup=1000)
    assert not ratio.due(1000, 0) and not ratio.due(1031, 0)
    assert ratio.due(1032, 0) and not ratio.due(1032, 1)
    assert ratio.held(1032, 1) == 4.0


def test_at_ratio_0_the_learner_never_updates_and_the_workers_never_wait() -> None:
    ratio = ReplayRatio(ratio=0.0, batch_size=128, warmup=0)
    assert not ratio.due(10**12, 0)
    assert ratio.limit(0, 12) == FOREVER
    assert (share(FOREVER, np.array([10**12, 3]), 2) > 10**12).all()


@pytest.mark.parametrize("wrong", [-1.0, nan, inf, 1e-300])
def test_a_ratio_that_nobody_can_hold_is_refused_with_its_value(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"--algo.replay-ratio {wrong}; it must be"):
        ReplayRatio(wrong, 128, 0)


@given(
    limit=st.one_of(st.integers(0, 10**7), st.just(FOREVER)),
    decisions=st.lists(st.integers(0, 10**6), min_size=1, max_size=16),
)
@settings(deadline=None)
def test_every_lane_gets_its_part_of_what_is_left_and_no_more(limit: int, decisions: list[int]) -> None:
    lanes = np.array(decisions)
    allowed = share(limit, lanes, len(lanes))
    left = max(limit - sum(decisions), 0)
    parts = (allowed - lanes).tolist()
    assert set(parts) == {-(-left // len(parts))}
    assert left <= sum(parts) < left + len(parts)


@given(
    limits=st.lists(st.integers(0, 500), min_size=1, max_size=8),
    agents=st.integers(1, 12),
    num_lanes=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_lanes_that_all_use_up_their_parts_end_at_most_a_step_each_beyond_the_limit(
    limits: list[int], agents: int, num_lanes: int, seed: int
) -> None:
    random, lanes = np.random.default_rng(seed), np.zeros(num_lanes, np.int64)
    for limit in sorted(limits):
        for _ in range(3):  # split again and again, whoever used up how much in between
            allowed = share(limit, lanes, num_lanes)
            for lane in np.flatnonzero(random.random(num_lanes) < 0.6).tolist():
                while lanes[lane] < allowed[lane]:
                    lanes[lane] += agents
        allowed = share(limit, lanes, num_lanes)
        for lane in range(num_lanes):
            while lanes[lane] < allowed[lane]:
                lanes[lane] += agents
        assert limit <= lanes.sum() < limit + num_lanes * agents


@given(before=st.floats(0.1, 100), after=st.floats(0.1, 100), warmup=st.integers(0, 1000), made=st.integers(0, 100_000))
@settings(deadline=None)
def test_a_ratio_that_is_changed_asks_nobody_to_make_up_for_what_was_before(
    before: float, after: float, warmup: int, made: int
) -> None:
    old = ReplayRatio(before, 128, warmup)
    updates = max(int(before * (made - warmup) / 128), 0)
    new = old.changed(after, made, updates)
    start = max(made, warmup)
    assert not new.due(start, updates)  # no burst of the learner
    assert new.limit(updates, 12) == start + new.lead(12)  # and the workers do not stop
    steps = start + math.ceil(1000 * 128 / after)
    while new.due(steps, updates):
        updates += 1
    assert new.held(steps, updates) == pytest.approx(after, rel=0.01)
