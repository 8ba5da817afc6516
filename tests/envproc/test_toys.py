"""The toys to learn on: they keep the contract, and their best policies earn what is promised."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest

from core.types import ACTION_MASK, Action, FloatArray, IntArray
from envproc import EnvConfig, make_env, toys
from envproc.env import Env, Step
from tests.contracts import check_env

ALL = ["Masked", "Hybrid", "MultiDiscrete", "Catch", "CartPoleWithoutVelocities"]


def toy(name: str, copies: int = 1) -> Env:
    return make_env(EnvConfig(f"envproc.toys:{name}", copies))


def returns(env: Env, play: Callable[[Step], Action], steps: int) -> float:
    """The mean of all episodes that end within so many steps."""
    step, total, finished = env.reset(0), np.zeros(env.spec.num_agents), []
    for _ in range(steps):
        step = env.step(play(step))
        for agent, reward in zip(step.ended.agent.tolist(), step.ended.reward.tolist(), strict=True):
            finished.append(total[agent] + reward)
        total += step.reward
        total[step.ended.agent] = 0
    return float(np.mean(finished))


def discrete(*choices: IntArray) -> Action:
    columns = np.stack(choices, axis=1)
    return Action(np.zeros((len(columns), 0), np.float32), columns)


@pytest.mark.parametrize("name", ALL)
def test_a_toy_keeps_the_contract_and_has_8_agents_a_copy(name: str) -> None:
    env = toy(name, copies=2)
    assert env.spec.num_agents == 16
    check_env(env)


@pytest.mark.parametrize("name", ALL)
def test_copies_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^(0|-8) copies of"):
        toy(name, copies=0 if name != ALL[-1] else -1)


def distances() -> IntArray:
    """(7, 7) moves from each cell of Masked to the goal; -1: a wall."""
    away = np.full((7, 7), -1)
    away[tuple(toys._GOAL)] = 0
    queue = deque([toys._GOAL])
    while queue:
        cell = queue.popleft()
        for move in toys._MOVES:
            beside = tuple(cell + move)
            if toys._FREE[beside] and away[beside] < 0:
                away[beside] = away[tuple(cell)] + 1
                queue.append(cell + move)
    return away


def test_the_shortest_way_earns_what_masked_promises_and_no_wandering_does() -> None:
    away = distances()
    starts = away[tuple(toys._STARTS.T)]
    assert (starts > 0).all(), "the goal can be reached from everywhere"
    assert -0.1 * starts.mean() == pytest.approx(-0.57, abs=0.005)

    def shortest(step: Step) -> Action:
        cells = np.stack(np.divmod(step.obs["vector"].argmax(axis=1), 5), axis=1) + 1
        beside = away[tuple((cells[:, None] + toys._MOVES).transpose(2, 0, 1))]
        return discrete(np.where(step.obs[ACTION_MASK], beside, 99).argmin(axis=1))

    random = np.random.default_rng(0)

    def wander(step: Step) -> Action:
        mask = step.obs[ACTION_MASK]
        return discrete(np.where(mask, random.random(mask.shape), -1).argmax(axis=1))

    assert returns(toy("Masked", copies=4), shortest, 1000) == pytest.approx(-0.57, abs=0.03)
    assert returns(toy("Masked", copies=4), wander, 1000) < -1.5


def test_a_masked_move_is_an_error() -> None:
    env = toy("Masked")
    mask = env.reset(0).obs[ACTION_MASK]
    assert (mask.sum(axis=1) >= 1).all() and not mask.all()
    moves = mask.argmax(axis=1)
    env.step(discrete(moves))
    mask = env.reset(0).obs[ACTION_MASK]
    wrong = int(np.flatnonzero(~mask.all(axis=1))[0])
    moves[wrong] = mask[wrong].argmin()
    with pytest.raises(AssertionError, match=rf"agents \[{wrong}\] at .* made masked moves \[{moves[wrong]}\]"):
        env.step(discrete(moves))


def test_a_forced_reset_cuts_even_at_the_goal_and_a_reset_of_all_forgets_it() -> None:
    env = toy("Masked")
    assert isinstance(env, toys.Masked)
    for asked in ([], [3]):
        env.reset(0)
        env.reset_agents(np.array([5]))
        env.reset(0)
        env._place[3] = toys._GOAL - (1, 0)  # the goal lies below
        mask = env._see()[ACTION_MASK]
        env.reset_agents(np.array(asked, np.int64))
        step = env.step(discrete(np.where(mask[:, 2], 2, mask.argmax(axis=1))))
        assert 3 in step.ended.agent and 5 not in step.ended.agent
        assert step.ended.terminated[step.ended.agent == 3].tolist() == [not asked]
        # at the goal there is nothing to do any more; whose episode is cut could go on, and is valued by what it may do
        assert step.ended.obs[ACTION_MASK][step.ended.agent == 3].all() != bool(asked)


def test_agents_have_luck_of_their_own() -> None:
    targets = toy("Hybrid").reset(0).obs["vector"][:, 3]
    assert len(set(targets.tolist())) == 8


def kinds(step: Step, *sizes: int) -> list[IntArray]:
    parts = np.split(step.obs["vector"], np.cumsum(sizes), axis=1)
    return [each.argmax(axis=1) for each in parts[: len(sizes)]]


def test_repeating_the_target_earns_20_and_guessing_what_is_told() -> None:
    def hybrid(step: Step) -> Action:
        return Action(step.obs["vector"][:, 3:], kinds(step, 3)[0][:, None])

    def choices(step: Step) -> Action:
        return discrete(*kinds(step, 3, 5))

    assert returns(toy("Hybrid"), hybrid, 100) == pytest.approx(20)
    assert returns(toy("MultiDiscrete"), choices, 100) == pytest.approx(20)

    random = np.random.default_rng(0)

    def guess(*sizes: int, continuous: int = 0) -> Callable[[Step], Action]:
        def play(step: Step) -> Action:
            places: FloatArray = random.uniform(-1, 1, (len(step.agent), continuous)).astype(np.float32)
            return Action(places, random.integers(0, sizes, (len(step.agent), len(sizes))))

        return play

    assert returns(toy("Hybrid", 4), guess(3, continuous=1), 1000) == pytest.approx(2.2, abs=0.1)
    assert returns(toy("MultiDiscrete", 4), guess(3, 5), 1000) == pytest.approx(5.3, abs=0.1)


def test_who_remembers_where_the_pole_was_balances_it_and_who_does_not_cannot() -> None:
    before = np.zeros((8, 2), np.float32)

    def remember(step: Step) -> Action:
        place = step.obs["vector"].copy()
        before[step.ended.agent] = place[step.ended.agent]
        speed, before[:] = place - before, place
        return discrete((place @ [0.05, 1.0] + speed @ [1.5, 15.0] > 0).astype(np.int64))

    def forget(step: Step) -> Action:
        return discrete((step.obs["vector"] @ [0.05, 1.0] > 0).astype(np.int64))

    assert returns(toy("CartPoleWithoutVelocities"), remember, 1100) == 500
    assert returns(toy("CartPoleWithoutVelocities"), forget, 1100) < 100


def test_who_sees_where_the_ball_moves_catches_it_and_who_guesses_earns_what_is_told() -> None:
    last: list[FloatArray] = []

    def below_the_ball(step: Step) -> Action:
        image = step.obs["image"][:, 0].astype(np.float32)
        ball, paddle = (image[:, rows].sum(1).argmax(1) for rows in (slice(0, 18), slice(18, 20)))
        row = image[:, :18].any(axis=2).argmax(1)
        before = last[0] if last and len(last[0]) == len(ball) else ball
        last[:] = [ball]
        # two pixels down is one aside; at the sides it bounces
        way = np.where(row == 0, 0, ball - before)
        lands = ball + way * (18 - row) // 2
        lands = np.where(lands < 0, -lands, np.where(lands > 18, 36 - lands, lands))
        return discrete(np.sign(lands - 1 - paddle) * (np.abs(lands - 1 - paddle) > 1) + 1)

    assert returns(toy("Catch", 4), below_the_ball, 300) > 0.95
    random = np.random.default_rng(0)
    guess = returns(toy("Catch", 4), lambda step: discrete(random.integers(0, 3, len(step.agent))), 1000)
    assert guess == pytest.approx(-0.42, abs=0.05)
