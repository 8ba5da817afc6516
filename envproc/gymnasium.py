"""Any Gymnasium environment as an Env: some copies of it in one process, a copy an agent.

Only the copy whose episode ended is reset, in the same step; its true last observation stands in `ended`, the first of
its next episode among the deciding ones. Cut by a time limit is not ended: the two flags stay apart to the last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import AtariPreprocessing

from core.types import ACTION_MASK, Action, EnvSpec, IntArray
from envproc.env import CannotSet, Ended, EnvFailed, Picture, Step
from envproc.spaces import Array, actions_of, as_given, boxes_of, field_of, flat, mask_of

Gym = gymnasium.Env[Any, Any]

_ATARI_SKIP = 4
"""frames that an action lasts"""
_ATARI_FRAMES_PER_S = 60.0
"""of the console; what the games' metadata say is half of it"""
_PICTURES_PER_S = 30.0
"""of environments that do not say how fast they are; Gymnasium's own videos take the same"""


class GymnasiumEnv:
    """`copies` of `env_id`; column = copy, and every copy decides at every step.

    Observations: a Box of one dimension is the field "vector"; of three, or of two and uint8, the field "image", with
    its channels first wherever the environment has them; a Discrete is a one-hot "vector"; a Dict of such Boxes gives
    a field for each key. uint8 is kept, everything else becomes float32. Actions: a bounded Box in its own units,
    Discrete, MultiDiscrete. Others: ValueError. If the info of a reset has an "action_mask", as that of Taxi-v4, so has
    the spec, and it is read at every step; nothing is masked where an episode is over, and not only cut.

    Ids that begin with "ALE/" are Atari games, preprocessed as usual (see Machado et al. 2018, "Revisiting the Arcade
    Learning Environment"): up to 30 no-ops at the start; each action for 4 frames, the last two of them max-pooled;
    84 x 84 in grey; a life lost is no end; rewards as they are; sticky actions (0.25), which "-v5" stands for.

    `pictures`: the first copy draws itself, which costs time and packages; ValueError if it cannot. `make`: a class, or
    a function that wraps one, where `env_id` is only a name.
    """

    def __init__(
        self, env_id: str, copies: int = 1, pictures: bool = False, make: Callable[..., Gym] | None = None
    ) -> None:
        if copies < 1:
            raise ValueError(f"{copies} copies of {env_id}; there must be at least 1")
        make = make or partial(_registered, env_id)
        self._env_id = env_id
        self._envs = [_drawn(env_id, make) if pictures else make()]
        if not isinstance(self._envs[0], gymnasium.Env):
            made = type(self._envs[0]).__name__
            raise ValueError(f"{env_id} makes a {made}, no gymnasium.Env; what takes `copies` makes an envproc.env.Env")
        try:
            self._observes = self._envs[0].observation_space
            boxes = boxes_of(env_id, self._observes)
            fields = {name: field_of(each) for name, each in boxes.items()}
            action, self._to_env = actions_of(env_id, self._envs[0].action_space)
            if action.branches:
                fields |= mask_of(env_id, self._envs[0].reset()[1], action.branches)
        except ValueError:
            self.close()
            raise
        self._envs += [make() for _ in range(1, copies)]
        self.spec = EnvSpec(fields, action, copies)
        self._agents = np.arange(copies)
        self._obs = self._room()
        self._as_given = {name: as_given(self._obs[name], each.shape) for name, each in boxes.items()}
        self._allowed = self._obs.get(ACTION_MASK)
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
            self._see(copy, *env.reset(seed=(seed * len(self._envs) + copy) % 2**32))
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
                obs, gained, terminated, truncated, info = env.step(self._to_env(continuous, discrete))
                reward = float(gained)
                self._see(copy, obs, None if terminated else info)
            if terminated or truncated:
                ended.append(copy)
                for name, last in self._last_obs.items():
                    last[copy] = self._obs[name][copy]
                self._last_reward[copy] = reward
                # Both at once is a true end: nothing would have followed, limit or not.
                self._terminated[copy] = terminated
                reward = 0.0
                self._see(copy, *env.reset())
            self._reward[copy] = reward
        self._asked.clear()
        return self._step(ended)

    def set_parameter(self, name: str, value: float) -> None:
        """Of those that a wrapper or the environment itself declares: it has a dict `parameters`, numbers by name, and
        reads them whenever it likes."""
        declared = [found for env in self._envs for found in _parameters(env) if name in found]
        if not declared:
            known = sorted({each for found in _parameters(self._envs[0]) for each in found})
            raise CannotSet(f"env.{name} = {value:g}: {self._env_id} declares {', '.join(known) or 'no parameters'}")
        for found in declared:
            found[name] = value

    def close(self) -> None:
        for env in self._envs:
            env.close()

    @property
    def pictures_per_s(self) -> float:
        if self._env_id.startswith("ALE/"):
            return _ATARI_FRAMES_PER_S / _ATARI_SKIP
        return float(self._envs[0].metadata.get("render_fps", _PICTURES_PER_S))

    def picture(self) -> Picture:
        try:
            drawn = self._envs[0].render()
        except Exception as error:  # what is missing, a package or a display, each tells in its own way
            hint = "; without a display, set MUJOCO_GL=egl" if type(error).__module__.startswith("mujoco") else ""
            raise EnvFailed(f"{self._env_id} could not draw itself: {error}{hint}") from error
        if not isinstance(drawn, np.ndarray):
            raise EnvFailed(f"{self._env_id} drew {drawn!r:.80}, no array; for pictures it is made with pictures=True")
        return drawn.astype(np.uint8)

    def _room(self) -> dict[str, Array]:
        num = self.spec.num_agents
        return {name: np.zeros((num, *each.shape), each.dtype) for name, each in self.spec.obs.items()}

    def _see(self, copy: int, obs: Any, info: dict[str, Any] | None) -> None:
        """Copy, because an environment may write its next observation over this one. No info: nothing comes after."""
        space = self._observes
        if isinstance(space, spaces.Discrete):
            self._obs["vector"][copy] = np.arange(space.n) == obs - space.start
        elif isinstance(space, spaces.Dict):
            for name, room in self._as_given.items():
                room[copy] = obs[name]
        else:
            (only,) = self._as_given.values()
            only[copy] = obs
        if self._allowed is None:
            return
        if info is not None and ACTION_MASK not in info:
            raise EnvFailed(f"{self._env_id} gave no {ACTION_MASK!r} in an info, but did before; give it in every one")
        self._allowed[copy] = True if info is None else flat(info[ACTION_MASK])

    def _step(self, ended: list[int]) -> Step:
        who = np.array(ended, np.int64)
        last_obs = {name: each[who] for name, each in self._last_obs.items()}
        last = Ended(who, last_obs, self._last_reward[who], self._terminated[who])
        return Step(self._agents, self._obs, self._reward, last)


def _parameters(env: Gym) -> list[dict[str, float]]:
    """What each wrapper and the environment inside declare."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    # not getattr: a wrapper may answer for what is inside it
    return [vars(layer)["parameters"] for layer in layers if isinstance(vars(layer).get("parameters"), dict)]


def _registered(env_id: str, **options: Any) -> Gym:
    """What Gymnasium knows by this name."""
    try:
        if env_id.startswith("ALE/"):
            return _atari(env_id, options)
        # Gymnasium's own checker looks at the first step only and costs at every one; tests/contracts.py checks more.
        return gymnasium.make(env_id, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"{env_id} needs a package that is missing: {error}") from error
    except ImportError as error:
        raise ValueError(f"{env_id} cannot be imported: {error}") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"Gymnasium has no {env_id!r}: {error}") from error


def _drawn(env_id: str, make: Callable[..., Gym]) -> Gym:
    """One that gives pictures as arrays. Raises ValueError if it cannot."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window is wanted, and SDL complains where none can be had
    trial = make()
    modes = trial.metadata.get("render_modes", [])
    trial.close()
    if "rgb_array" not in modes:
        raise ValueError(f"{env_id} cannot draw itself: its render modes are {modes}, and 'rgb_array' is needed")
    return make(render_mode="rgb_array")


def _atari(env_id: str, options: dict[str, Any]) -> Gym:
    try:
        import ale_py
        import cv2
    except ModuleNotFoundError as error:
        way_out = "pip install ale-py opencv-python-headless"
        raise ValueError(f"{env_id} needs {error.name}, which is missing: {way_out}") from error
    cv2.setNumThreads(1)  # one core a worker: it is the workers that run side by side
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Warning)  # no banner from each of them
    gymnasium.register_envs(ale_py)
    # the wrapper skips, and pools what it skips
    game = gymnasium.make(env_id, disable_env_checker=True, frameskip=1, **options)
    return AtariPreprocessing(
        game,
        noop_max=30,
        frame_skip=_ATARI_SKIP,
        screen_size=84,
        terminal_on_life_loss=False,
        grayscale_obs=True,
        scale_obs=False,
    )
