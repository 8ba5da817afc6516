"""Any Gymnasium environment as an Env: some copies of it in one process, a copy an agent.

Only the copy whose episode ended is reset, in the same step; its true last observation stands in `ended`, the first of
its next episode among the deciding ones. Cut by a time limit is not ended: the two flags stay apart to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from core.types import Action, ActionSpec, EnvSpec, FieldSpec, FloatArray, IntArray
from envproc.env import Ended, Step

Gym = gymnasium.Env[Any, Any]
ToEnv = Callable[[FloatArray, IntArray], Any]
"""one agent's continuous and discrete actions -> what the environment takes"""


class GymnasiumEnv:
    """`copies` of `env_id`; column = copy, and every copy decides at every step.

    Observations: a Box of one dimension is the field "vector", of three the field "image", a Discrete a one-hot
    "vector"; a Dict of such Boxes gives a field for each key. uint8 is kept, everything else becomes float32.
    Actions: a bounded Box in its own units, Discrete, MultiDiscrete. Others: ValueError.
    """

    def __init__(self, env_id: str, copies: int = 1) -> None:
        if copies < 1:
            raise ValueError(f"{copies} copies of {env_id}; there must be at least 1")
        self._envs = [_make(env_id)]
        try:
            self._fields = _fields(env_id, self._envs[0].observation_space)
            action, self._to_env = _actions(env_id, self._envs[0].action_space)
        except ValueError:
            self.close()
            raise
        self._envs += [_make(env_id) for _ in range(1, copies)]
        self.spec = EnvSpec(self._fields, action, copies)
        self._agents = np.arange(copies)
        self._obs = self._room()
        self._reward = np.zeros(copies, np.float32)
        self._last_obs = self._room()  # of the episode that ended, and so the next two
        self._last_reward = np.zeros(copies, np.float32)
        self._terminated = np.zeros(copies, np.bool_)
        self._asked: set[int] = set()  # to be reset at the next step

    def reset(self, seed: int) -> Step:
        """All copies from scratch. Each is seeded once, here: their later episodes follow from their own generators."""
        self._asked.clear()
        self._reward[:] = 0.0
        for copy, env in enumerate(self._envs):
            # A number for each copy of each seed, no two the same; many simulators take 32 bits and no more.
            obs, _ = env.reset(seed=(seed * len(self._envs) + copy) % 2**32)
            self._see(copy, obs)
        return self._step([])

    def reset_agents(self, agents: IntArray) -> None:
        """Cut these copies' episodes at the next step, in which they are not stepped."""
        wrong = np.setdiff1d(agents, self._agents)
        if wrong.size:
            raise ValueError(f"no copies {wrong.tolist()}; there are 0..{self._agents[-1]}")
        self._asked.update(agents.tolist())

    def step(self, action: Action) -> Step:
        ended: list[int] = []
        for copy, (env, continuous, discrete) in enumerate(zip(self._envs, *action, strict=True)):
            reward, terminated, truncated = 0.0, False, copy in self._asked
            if not truncated:
                obs, gained, terminated, truncated, _ = env.step(self._to_env(continuous, discrete))
                reward = float(gained)
                self._see(copy, obs)
            if terminated or truncated:
                ended.append(copy)
                for name, last in self._last_obs.items():
                    last[copy] = self._obs[name][copy]
                self._last_reward[copy] = reward
                # Both at once is a true end: nothing would have followed, limit or not.
                self._terminated[copy] = terminated
                reward = 0.0
                self._see(copy, env.reset()[0])
            self._reward[copy] = reward
        self._asked.clear()
        return self._step(ended)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _room(self) -> dict[str, np.ndarray[Any, Any]]:
        return {name: np.zeros((self.spec.num_agents, *each.shape), each.dtype) for name, each in self._fields.items()}

    def _see(self, copy: int, obs: Any) -> None:
        """Copy, because an environment may write its next observation over this one."""
        space = self._envs[copy].observation_space
        if isinstance(space, spaces.Discrete):
            self._obs["vector"][copy] = np.arange(space.n) == obs - space.start
        elif isinstance(space, spaces.Dict):
            for name in self._fields:
                self._obs[name][copy] = obs[name]
        else:
            (only,) = self._obs.values()
            only[copy] = obs

    def _step(self, ended: list[int]) -> Step:
        who = np.array(ended, np.int64)
        last_obs = {name: each[who] for name, each in self._last_obs.items()}
        last = Ended(who, last_obs, self._last_reward[who], self._terminated[who])
        return Step(self._agents, self._obs, self._reward, last)


def _make(env_id: str) -> Gym:
    try:
        # Gymnasium's own checker looks at the first step only and costs at every one; tests/contracts.py checks more.
        return gymnasium.make(env_id, disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"{env_id} needs a package that is missing: {error}") from error
    except ImportError as error:
        raise ValueError(f"{env_id} cannot be imported: {error}") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"Gymnasium has no {env_id!r}: {error}") from error


def _fields(env_id: str, space: gymnasium.Space[Any]) -> dict[str, FieldSpec]:
    match space:
        case spaces.Discrete():
            return {"vector": FieldSpec((int(space.n),))}
        case spaces.Dict():
            inner = space.spaces
        case _:
            inner = {"image" if len(space.shape or ()) == 3 else "vector": space}
    fields = {}
    for name, each in inner.items():
        if not isinstance(each, spaces.Box) or len(each.shape) not in (1, 3):
            raise ValueError(
                f"{env_id} observes {space}; supported are a Box of 1 or 3 dimensions, a Dict of such Boxes and a "
                "Discrete: bring it into one of these with a wrapper such as gymnasium.wrappers.FlattenObservation"
            )
        fields[name] = FieldSpec(each.shape, "uint8" if each.dtype == np.uint8 else "float32")
    return fields


def _actions(env_id: str, space: gymnasium.Space[Any]) -> tuple[ActionSpec, ToEnv]:
    match space:
        case spaces.Box(shape=shape, dtype=dtype) if np.issubdtype(dtype, np.floating) and space.is_bounded():
            low, high = (tuple(map(float, bound.ravel())) for bound in (space.low, space.high))
            return ActionSpec(low, high), lambda continuous, _: continuous.reshape(shape).astype(dtype)
        case spaces.Discrete(start=start):
            return ActionSpec(branches=(int(space.n),)), lambda _, discrete: discrete[0] + start
        case spaces.MultiDiscrete(nvec=nvec, start=start):
            branches = tuple(nvec.ravel().tolist())
            return ActionSpec(branches=branches), lambda _, discrete: discrete.reshape(nvec.shape) + start
        case _:
            raise ValueError(
                f"{env_id} acts in {space}; supported are a Box of floats with finite bounds (see "
                "gymnasium.wrappers.RescaleAction), Discrete and MultiDiscrete"
            )
