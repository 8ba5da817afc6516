"""3DBall against its rules, and against the same rules written out for one ball (one_ball.py)."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.types import Action
from envproc.ball3d import Ball3D
from tests.contracts import check_env
from tests.envproc.one_ball import OneBall, balance


def act(wish: npt.NDArray[Any]) -> Action:
    return Action(wish.astype(np.float32), np.zeros((len(wish), 0), np.int64))


IDLE = act(np.zeros((12, 2)))
TENTH = np.float32(0.1)


def flat() -> Ball3D:
    """A fresh one with all plates level."""
    env = Ball3D()
    env.reset(0)
    env._balls.plate[:] = np.array([[1.0], [0.0], [0.0], [0.0]])
    return env


def physics_steps_since_reset(v_y: np.float32) -> int:
    """Of a ball that still falls freely: the episode's age, and with it its place within the decision period."""
    return round(float(v_y) / (-9.81 * 0.02))


@given(
    seed=st.integers(0, 2**32 - 1),
    agent=st.integers(0, 11),
    skill=st.sampled_from([0.0, 0.5, 1.0]),
    noise=st.sampled_from([0.0, 0.3, 2.0]),
    resets=st.sets(st.integers(0, 79), max_size=3),
    age=st.sampled_from([0, 4800]),
)
@settings(max_examples=40, deadline=None)
def test_every_agent_lives_as_the_rules_written_for_one_agent_say(
    seed: int, agent: int, skill: float, noise: float, resets: set[int], age: int
) -> None:
    env, one = Ball3D(), OneBall(seed, agent)
    step = env.reset(seed)
    random = np.random.default_rng(seed)
    env._steps[agent] = one.step_count = age  # near MaxStep, so that 80 decisions see truncations too
    for number in range(80):
        np.testing.assert_allclose(step.obs["vector"][agent], one.obs(), rtol=0, atol=2e-6)
        wish = (skill * balance(step) + random.normal(0, noise, (12, 2))).astype(np.float32)
        if number in resets:
            env.reset_agents(np.array([agent]))
        step = env.step(act(wish))
        ends = one.decide((float(wish[agent, 0]), float(wish[agent, 1])), reset=number in resets)
        assert step.reward[agent] == np.float32(one.reward)
        rows = np.flatnonzero(step.ended.agent == agent)
        assert len(rows) == len(ends)
        for row, (obs, reward, terminated) in zip(rows, ends, strict=True):
            np.testing.assert_allclose(step.ended.obs["vector"][row], obs, rtol=0, atol=2e-6)
            assert step.ended.reward[row] == np.float32(reward)
            assert step.ended.terminated[row] == terminated


def test_it_keeps_the_contract() -> None:
    check_env(Ball3D(areas=2))


def test_a_ball_that_leaves_the_plate_ends_only_its_own_agent() -> None:
    env = Ball3D()
    step = env.reset(0)
    ended = Counter[int]()
    for _ in range(60):
        wish = balance(step)
        wish[3] = 1.0
        step = env.step(act(wish))
        assert np.array_equal(step.agent, np.arange(12))
        assert step.ended.terminated.all() and (step.ended.reward == -1).all()
        ended.update(step.ended.agent.tolist())
    assert set(ended) == {3} and ended[3] >= 2


def test_an_end_shows_the_last_sight_of_the_old_episode_and_the_first_of_the_new() -> None:
    env = Ball3D(areas=2)
    step = env.reset(1)
    for _ in range(60):
        step = env.step(act(np.ones((24, 2))))
        _, _, x, y, z, *_ = step.ended.obs["vector"].T
        assert ((np.abs(x) > 3) | (np.abs(z) > 3) | (y < -2)).all()
        fresh = step.obs["vector"][step.ended.agent]
        assert (fresh[:, 3] > 3.5).all()
        assert (np.abs(fresh[:, [0, 1]]) <= math.sin(math.radians(5)) + 1e-6).all()  # no action has touched it yet


def test_an_episode_that_began_with_the_period_is_truncated_after_exactly_1000_decisions() -> None:
    env = Ball3D()
    step = env.reset(2)
    for _ in range(999):
        step = env.step(act(balance(step)))
        assert len(step.ended.agent) == 0
        assert (step.reward == TENTH).all()  # a tenth a decision, not one a step
    step = env.step(act(balance(step)))
    assert np.array_equal(step.ended.agent, np.arange(12))
    assert not step.ended.terminated.any()
    assert (step.ended.reward == TENTH).all()
    assert (step.reward == 0).all()  # the reset came with the last step of the period, nothing was earned since


def test_a_full_episode_returns_100_whenever_it_began() -> None:
    env = Ball3D()
    step = env.reset(3)
    began: dict[int, int] = {}
    rewards: dict[int, list[np.float32]] = {}
    finished: dict[int, list[np.float32]] = {}
    for number in range(2000):
        # Everyone but 0 and 1 is tipped over first, one by one: the episodes that follow start anywhere in a period.
        wish = balance(step)
        for agent in range(2, 12):
            if agent not in began:
                wish[agent] = 1 - 0.05 * agent
        if number == 7:
            env.reset_agents(np.array([1]))
        step = env.step(act(wish))
        for row, agent in enumerate(step.ended.agent.tolist()):
            if agent in rewards:
                assert not step.ended.terminated[row]
                finished[agent] = [*rewards[agent], step.ended.reward[row]]
            began.setdefault(agent, physics_steps_since_reset(step.obs["vector"][agent, 6]))
            rewards[agent] = []  # and the reward of an episode's first decision is ignored
        for agent in set(rewards) - set(step.ended.agent.tolist()):
            rewards[agent].append(step.reward[agent])
        if len(finished) == 12:
            break
    assert len(finished) == 12 and set(began.values()) == {1, 2, 3, 4, 5}
    for each in finished.values():
        assert set(each) == {TENTH} and len(each) * 0.1 == 100.0


def test_a_ball_that_falls_in_the_last_step_of_its_episode_has_fallen() -> None:
    env = Ball3D()
    env.reset(0)
    env._steps[4] = 4999
    env._balls.ball[0, 4] = 3.5
    step = env.step(IDLE)
    assert [step.ended.agent, step.ended.reward, step.ended.terminated] == [4, -1.0, True]


@given(seed=st.integers(0, 1000), agent=st.integers(0, 11), resets=st.sets(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_nobody_notices_that_another_agent_was_reset(seed: int, agent: int, resets: set[int]) -> None:
    left, right = Ball3D(), Ball3D()
    left.reset(seed), right.reset(seed)
    others = np.arange(12) != agent
    random = np.random.default_rng(seed)
    for number in range(60):
        wish = random.uniform(-1, 1, (12, 2))
        if number in resets:
            right.reset_agents(np.array([agent]))
        a, b = left.step(act(wish)), right.step(act(wish))
        assert np.array_equal(a.obs["vector"][others], b.obs["vector"][others])
        assert np.array_equal(a.reward[others], b.reward[others])
        mine, theirs = a.ended.agent != agent, b.ended.agent != agent
        assert np.array_equal(a.ended.agent[mine], b.ended.agent[theirs])
        assert np.array_equal(a.ended.obs["vector"][mine], b.ended.obs["vector"][theirs])
    assert np.array_equal(left._balls.state[:, others], right._balls.state[:, others])


def test_a_reset_agent_is_truncated_with_what_it_saw_and_its_action_is_ignored() -> None:
    steps = []
    for wish_of_3 in (-1.0, 1.0):
        env = Ball3D()
        step = env.reset(0)
        for _ in range(20):
            step = env.step(act(balance(step)))
        seen = step.obs["vector"][3].copy()
        wish = balance(step)
        wish[3] = wish_of_3
        env.reset_agents(np.array([3]))
        step = env.step(act(wish))
        assert [step.ended.agent, step.ended.reward, step.ended.terminated] == [3, 0.0, False]
        assert np.array_equal(step.ended.obs["vector"][0], seen)
        assert physics_steps_since_reset(step.obs["vector"][3, 6]) == 5
        steps.append(step)
    assert np.array_equal(steps[0].obs["vector"], steps[1].obs["vector"])


def test_a_reset_lasts_one_step_and_is_forgotten_by_a_reset_of_all() -> None:
    env = Ball3D()
    step = env.reset(0)
    env.reset_agents(np.array([2]))
    env.reset_agents(np.array([2, 5]))
    step = env.step(act(balance(step)))
    assert step.ended.agent.tolist() == [2, 5]
    step = env.step(act(balance(step)))
    assert len(step.ended.agent) == 0
    env.reset_agents(np.array([2]))
    step = env.reset(0)
    assert len(env.step(act(balance(step))).ended.agent) == 0


def test_an_episode_begins_at_rest_and_uniformly_off_the_middle() -> None:
    q_z, q_x, x, y, z, *v = Ball3D(areas=40).reset(5).obs["vector"].astype(np.float64).T
    assert not np.any(v)
    assert (y == 4.0).all()
    # x = sin a cos b and z = cos a sin b, of half the angles about own X and own Z
    total, difference = np.arcsin(q_x + q_z), np.arcsin(q_x - q_z)
    about_x, about_z = np.degrees(total + difference), np.degrees(total - difference)
    for values, limit in ((about_x, 10.0), (about_z, 10.0), (x, 1.5), (z, 1.5)):
        spread = limit / math.sqrt(3)
        assert 0.97 * limit < np.abs(values).max() <= limit + 1e-5
        assert abs(values.mean()) < 4 * spread / math.sqrt(len(values))
        assert abs(values.std() / spread - 1) < 0.1
    assert np.abs(np.corrcoef([about_x, about_z, x, z]) - np.eye(4)).max() < 0.2


def test_an_agent_has_the_same_luck_however_many_others_there_are() -> None:
    assert np.array_equal(Ball3D(1).reset(9).obs["vector"], Ball3D(3).reset(9).obs["vector"][:12])


def test_the_balls_spin_outlives_an_episode_but_not_a_reset_of_all() -> None:
    env = Ball3D()
    env.reset(0)
    env._balls.spin[:, 6] = (1.0, 2.0, 3.0)
    env.reset_agents(np.array([6]))
    env.step(IDLE)
    np.testing.assert_allclose(env._balls.spin[:, 6], np.array([1.0, 2.0, 3.0]) * (1 - 0.01 * 0.02) ** 5)
    env.reset(0)
    assert not env._balls.spin.any()


def test_a_plate_turns_two_degrees_a_step_and_stops_a_little_beyond_a_quarter() -> None:
    """The limit is looked at before each turn: overshoot, but less than one turn."""
    for column in (0, 1):
        for sign in (-1.0, 1.0):
            env, wish = Ball3D(), np.zeros((12, 2))
            env.reset(4)
            wish[:, column] = 3 * sign  # as good as 1: more than 2 degrees a step there is not
            before = env._balls.plate.copy()
            env.step(act(wish))
            np.testing.assert_allclose(
                (before * env._balls.plate).sum(axis=0), math.cos(math.radians(10) / 2), rtol=1e-9
            )
            for _ in range(4):
                tilt = sign * env.step(act(wish)).obs["vector"][:, column]
            assert ((tilt >= 0.25) & (tilt < math.sin(math.asin(0.25) + math.radians(1)) + 1e-6)).all()


def test_a_ball_rolls_down_a_slope_as_a_solid_sphere_does() -> None:
    """Mechanics, not the model's own words: a sphere that rolls without slipping gains 5/7 g sin(slope)."""
    env = Ball3D()
    env.reset(0)
    slope, start = math.radians(10), 1.5
    env._balls.plate[:] = np.array([[math.cos(slope / 2)], [0.0], [math.sin(slope / 2)], [0.0]])
    normal, uphill = (-math.sin(slope), math.cos(slope)), (math.cos(slope), math.sin(slope))
    env._balls.ball[:] = np.array([[3 * n + start * u] for n, u in zip(normal, uphill, strict=True)] + [[0.0]])
    for _ in range(8):
        env.step(IDLE)
    speed = -(env._balls.velocity[0] * uphill[0] + env._balls.velocity[1] * uphill[1])
    np.testing.assert_allclose(speed, 5 / 7 * 9.81 * math.sin(slope) * 0.8, rtol=2e-3)  # the drag takes a little
    np.testing.assert_allclose(env._balls.spin[2], speed / 0.5, rtol=2e-3)


def test_a_ball_at_rest_on_a_flat_plate_stays_there() -> None:
    env = flat()
    env._balls.ball[:] = np.array([[0.5], [3.0], [-0.5]])
    for _ in range(20):
        step = env.step(IDLE)
    np.testing.assert_allclose(step.obs["vector"], np.tile([0, 0, 0.5, 3, -0.5, 0, 0, 0], (12, 1)), atol=1e-6)


def test_a_ball_falls_freely_once_its_centre_is_over_the_edge() -> None:
    env = flat()
    env._balls.ball[:] = np.array([[2.51], [3.0], [0.0]])
    step = env.step(IDLE)
    np.testing.assert_allclose(step.obs["vector"][:, 6], -9.81 * 0.1, rtol=1e-6)


def test_actions_that_make_no_sense_are_refused_with_what_is_expected() -> None:
    env = Ball3D()
    env.reset(0)
    for wish in (np.zeros((11, 2)), np.zeros((12, 3)), np.full((12, 2), np.nan)):
        with pytest.raises(ValueError, match=r"takes \(12, 2\) finite actions, got"):
            env.step(act(wish))


def test_agents_that_do_not_exist_are_refused() -> None:
    for wrong in (12, -1):
        with pytest.raises(ValueError, match=rf"no agents \[{wrong}\] in 3DBall; there are 0\.\.11"):
            Ball3D().reset_agents(np.array([0, wrong]))
    with pytest.raises(ValueError, match="0 areas"):
        Ball3D(areas=0)
