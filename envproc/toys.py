"""Small environments to learn on in a minute or two, one for each kind of action, one for memory, one for images:

    --env envproc.toys:Masked                      discrete, with moves that may not be made
    --env envproc.toys:MultiDiscrete               two choices at once
    --env envproc.toys:Hybrid                      a choice and a continuous action at once
    --env envproc.toys:CartPoleWithoutVelocities   what is seen now is not enough
    --env envproc.toys:Catch                       an image; with --frame-stack 2 it shows what moves where

Eight agents to a copy. What the best policy earns stands with each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.types import ACTION_MASK, Action, ActionSpec, BoolArray, EnvSpec, FieldSpec, FloatArray, IntArray, Obs
from envproc.env import Ended, Step
from envproc.gymnasium import GymnasiumEnv

AGENTS = 8


class CartPoleWithoutVelocities(GymnasiumEnv):
    """CartPole-v1 that shows where the cart and the pole are, (2,), and not how fast they move.

    A policy that remembers can infer the velocities and earn 500. One that sees only the present stays below 100: it
    cannot tell a pole that falls from one that is coming back.
    """

    def __init__(self, copies: int) -> None:
        super().__init__("CartPole-v1", AGENTS * copies)
        self.spec = replace(self.spec, obs={"vector": FieldSpec((2,))})

    def reset(self, seed: int) -> Step:
        return _positions(super().reset(seed))

    def step(self, action: Action) -> Step:
        return _positions(super().step(action))


def _positions(step: Step) -> Step:
    now, last = ({"vector": obs["vector"][:, ::2]} for obs in (step.obs, step.ended.obs))
    return step._replace(obs=now, ended=step.ended._replace(obs=last))


class _Toy:
    """Agents that decide at every step, each with an episode and random numbers of its own."""

    def __init__(self, copies: int, obs: dict[str, FieldSpec], action: ActionSpec, limit: int) -> None:
        if copies < 1:
            raise ValueError(f"{copies} copies of {type(self).__name__}; there must be at least 1")
        num = AGENTS * copies
        self.spec = EnvSpec(obs, action, num)
        self._agents = np.arange(num)
        self._age = np.zeros(num, np.int64)
        self._limit = limit  # decisions after which an episode is cut
        self._asked = np.zeros(num, np.bool_)  # to be reset at the next step

    def reset(self, seed: int) -> Step:
        self._random = [np.random.default_rng([seed, agent]) for agent in self._agents.tolist()]
        self._asked[:] = False
        self._begin_all(self._agents)
        nobody = np.zeros(len(self._agents), np.bool_)
        return self._tell(np.zeros(len(self._agents), np.float32), nobody, nobody)

    def step(self, action: Action) -> Step:
        reward, done = self._act(action)
        self._age += 1
        done = done & ~self._asked
        cut = self._asked | (self._age >= self._limit)
        self._asked[:] = False
        return self._tell(reward, done, cut)

    def reset_agents(self, agents: IntArray) -> None:
        self._asked[agents] = True

    def close(self) -> None:
        """Nothing to free."""

    def _tell(self, reward: FloatArray, done: BoolArray, cut: BoolArray) -> Step:
        ending = np.flatnonzero(done | cut)
        last = {name: values[ending] for name, values in self._see().items()}
        if ACTION_MASK in last:
            last[ACTION_MASK][done[ending]] = True  # there is nothing left to do
        ended = Ended(ending, last, reward[ending], done[ending])
        self._begin_all(ending)
        return Step(self._agents, self._see(), reward, ended)

    def _begin_all(self, agents: IntArray) -> None:
        self._age[agents] = 0
        for agent in agents.tolist():
            self._begin(agent, self._random[agent])

    def _begin(self, agent: int, random: np.random.Generator) -> None:
        """A fresh episode, drawn from `random`."""
        raise NotImplementedError

    def _see(self) -> Obs:
        """What all agents observe now, in arrays of its own."""
        raise NotImplementedError

    def _act(self, action: Action) -> tuple[FloatArray, BoolArray]:
        """Of each agent its reward, and whether that is the end."""
        raise NotImplementedError


_MAP = (
    ".....",
    ".###.",
    ".#...",
    ".#.#.",
    "...#G",
)
_FREE = np.pad([[cell != "#" for cell in row] for row in _MAP], 1)  # beyond the edge there is a wall
_STARTS = np.argwhere(np.pad([[cell == "." for cell in row] for row in _MAP], 1))
_GOAL = np.argwhere(np.pad([[cell == "G" for cell in row] for row in _MAP], 1))[0]
_MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # up, right, down, left


class Masked(_Toy):
    """A walk on a map, from anywhere to the goal; a move into a wall or off the map is masked, and AssertionError.

    Observations: one-hot of the cell (25,). A move costs 0.1, the goal is a true end, after 50 moves the walk is cut.
    The best policy goes the shortest way and earns -0.57 in the mean. All values are negative, and what
    is masked is never tried: who forgets the mask in a target bootstraps from values that nothing ever corrects.
    """

    def __init__(self, copies: int) -> None:
        obs = {"vector": FieldSpec((25,)), ACTION_MASK: FieldSpec((4,), "bool")}
        super().__init__(copies, obs, ActionSpec(branches=(4,)), limit=50)
        self._place = np.zeros((len(self._agents), 2), np.int64)  # row and column, counted from 1: see _FREE

    def _begin(self, agent: int, random: np.random.Generator) -> None:
        self._place[agent] = random.choice(_STARTS)

    def _allowed(self) -> BoolArray:
        row, column = (self._place[:, None] + _MOVES).transpose(2, 0, 1)
        allowed: BoolArray = _FREE[row, column]
        return allowed

    def _see(self) -> Obs:
        cell = np.zeros((len(self._agents), 5, 5), np.float32)
        cell[self._agents, self._place[:, 0] - 1, self._place[:, 1] - 1] = 1.0
        return {"vector": cell.reshape(-1, 25), ACTION_MASK: self._allowed()}

    def _act(self, action: Action) -> tuple[FloatArray, BoolArray]:
        move = action.discrete[:, 0]
        wrong = np.flatnonzero(~self._allowed()[self._agents, move])
        assert wrong.size == 0, f"agents {wrong} at {self._place[wrong].tolist()} made masked moves {move[wrong]}"
        self._place += _MOVES[move]
        return np.full(len(move), -0.1, np.float32), (self._place == _GOAL).all(axis=1)


class _Targets(_Toy):
    """At each decision a new target: a kind for each branch, and a place for each continuous action.

    Observations: the kinds as one-hots, then the places in [-1, 1]. Reward: the part of the kinds that was chosen
    right, times 1 - the mean distance to the places. So the best policy, which repeats what it sees, earns 1 a decision
    and 20 an episode; who guesses earns a fraction of that. Episodes are cut after 20 decisions.
    """

    def __init__(self, copies: int, branches: tuple[int, ...], places: int) -> None:
        obs = {"vector": FieldSpec((sum(branches) + places,))}
        super().__init__(copies, obs, ActionSpec((-1.0,) * places, (1.0,) * places, branches), limit=20)
        num = len(self._agents)
        self._branches = np.array(branches)
        # an episode's targets, each in [0, 1), and one more: the last observation has a target too
        self._dice = np.zeros((num, self._limit + 1, len(branches) + places), np.float32)

    def _begin(self, agent: int, random: np.random.Generator) -> None:
        random.random(out=self._dice[agent], dtype=np.float32)

    def _target(self) -> tuple[IntArray, FloatArray]:
        dice = self._dice[self._agents, self._age]
        kinds, places = np.split(dice, [len(self._branches)], axis=1)
        return (kinds * self._branches).astype(np.int64), 2 * places - 1

    def _see(self) -> Obs:
        kinds, places = self._target()
        one_hots = [np.eye(size, dtype=np.float32)[kinds[:, i]] for i, size in enumerate(self._branches)]
        return {"vector": np.concatenate([*one_hots, places], axis=1)}

    def _act(self, action: Action) -> tuple[FloatArray, BoolArray]:
        kinds, places = self._target()
        reward = (action.discrete == kinds).mean(axis=1, dtype=np.float32)
        if places.shape[1]:
            reward *= 1 - np.abs(action.continuous - places).mean(axis=1)
        return reward, np.zeros(len(reward), np.bool_)


class Hybrid(_Targets):
    """One branch of 3 and one continuous action; observations (4,). The best policy earns 20, guessing 2.2."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies, branches=(3,), places=1)


class MultiDiscrete(_Targets):
    """Two branches, of 3 and of 5; observations (8,). The best policy earns 20, guessing 5.3."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies, branches=(3, 5), places=0)


class Catch(_Toy):
    """A ball falls from the top of an image, to the left or to the right; a paddle at the bottom is to be below it.

    Observations: uint8 image (1, 20, 20) of the ball (2 x 2 pixels) and the paddle (2 x 4). The choices are left, stay
    and right, by 2 pixels; the ball falls by 2 and moves aside by 1, and bounces. When it is down the episode ends,
    with 1 if it was caught, else -1. The best policy earns 1, random choices -0.42.
    """

    _SIZE, _PADDLE = 20, 4

    def __init__(self, copies: int) -> None:
        obs = {"image": FieldSpec((1, self._SIZE, self._SIZE), "uint8")}
        super().__init__(copies, obs, ActionSpec(branches=(3,)), limit=self._SIZE)
        self._ball, self._way, self._paddle = (np.zeros(len(self._agents), np.int64) for _ in range(3))

    def _begin(self, agent: int, random: np.random.Generator) -> None:
        self._ball[agent] = random.integers(0, self._SIZE - 1)  # its left column
        self._way[agent] = random.choice([-1, 1])
        self._paddle[agent] = self._SIZE // 2 - self._PADDLE // 2

    def _see(self) -> Obs:
        image = np.zeros((len(self._agents), 1, self._SIZE, self._SIZE), np.uint8)
        who, row = self._agents, (2 * self._age).clip(max=self._SIZE - 2)
        for down in range(2):
            for aside in range(2):
                image[who, 0, row + down, self._ball + aside] = 255
            for aside in range(self._PADDLE):
                image[who, 0, self._SIZE - 2 + down, self._paddle + aside] = 255
        return {"image": image}

    def _act(self, action: Action) -> tuple[FloatArray, BoolArray]:
        moved = self._paddle + 2 * (action.discrete[:, 0] - 1)
        self._paddle = moved.clip(0, self._SIZE - self._PADDLE)
        self._way = np.where(self._ball == 0, 1, np.where(self._ball == self._SIZE - 2, -1, self._way))
        self._ball += self._way
        is_down = 2 * (self._age + 1) >= self._SIZE - 2
        is_caught = (self._ball + 1 >= self._paddle) & (self._ball <= self._paddle + self._PADDLE - 1)
        return np.where(is_down, np.where(is_caught, 1, -1), 0).astype(np.float32), is_down
