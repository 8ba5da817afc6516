"""Frame stacking: an agent sees the newest k frames of each of its images at once, the newest last.

At the first decision of an episode all k are its first frame: nothing of an earlier episode is ever seen. The true last
observation of an episode is its last frame on top of what that agent saw at its last decision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.types import Action, IntArray, Obs
from envproc.env import Env, HasLink, HasParameters, HasPictures, HasStats, HasTimeScale, Step, TakesTurns


class Stacked:
    """`env` with its images stacked along the first axis: (k * channels, height, width).

    Other fields, and images that come stacked, stay as they are. Raises ValueError if that leaves nothing to stack.
    """

    def __init__(self, env: Env, k: int) -> None:
        spec = env.spec
        images = {name: each for name, each in spec.obs.items() if len(each.shape) == 3 and each.stack == 1}
        assert k >= 1
        if not images:
            raise ValueError(f"--frame-stack {k}, but there is no image to stack among {spec.obs}; leave it at 1")
        stacked = {
            name: replace(each, shape=(k * each.shape[0], *each.shape[1:]), stack=k) for name, each in images.items()
        }
        self.spec = replace(spec, obs={**spec.obs, **stacked})
        self._env = env
        self._all = np.arange(spec.num_agents)
        self._fresh = np.ones(spec.num_agents, np.bool_)  # no decision yet in the running episode
        self._frames: dict[str, npt.NDArray[Any]] = {
            name: np.zeros((spec.num_agents, k, *each.shape), each.dtype) for name, each in images.items()
        }
        if isinstance(env, HasStats):
            self.stats = env.stats  # on the object, not the class: whoever asks for HasStats gets the inner answer
        if isinstance(env, HasParameters):
            self.set_parameter = env.set_parameter
        if isinstance(env, HasTimeScale):
            self.set_time_scale = env.set_time_scale
        if isinstance(env, HasLink):
            self.time_by = env.time_by
        if isinstance(env, TakesTurns):
            self.on_turn = env.on_turn
        if isinstance(env, HasPictures):
            self.picture, self.pictures_per_s = env.picture, env.pictures_per_s

    def reset(self, seed: int) -> Step:
        self._fresh[:] = True
        return self._stack(self._env.reset(seed))

    def step(self, action: Action) -> Step:
        return self._stack(self._env.step(action))

    def reset_agents(self, agents: IntArray) -> None:
        self._env.reset_agents(agents)

    def close(self) -> None:
        self._env.close()

    def _stack(self, step: Step) -> Step:
        # In this order: an agent that ended may decide in the same step, and then sees its new episode only.
        ended = step.ended
        last = self._push(ended.agent, ended.obs)
        self._fresh[ended.agent] = True
        now = self._push(step.agent, step.obs, may_lend=True)
        self._fresh[step.agent] = False
        return step._replace(obs=now, ended=ended._replace(obs=last))

    def _push(self, agents: IntArray, obs: Obs, may_lend: bool = False) -> Obs:
        """These agents see one frame more. (n, ...) of all fields: copies, or if everybody is there the stacks lent."""
        fresh = self._fresh[agents].tolist()
        lend = may_lend and np.array_equal(agents, self._all)
        seen = dict(obs)
        for name, frames in self._frames.items():
            for agent, first, frame in zip(agents.tolist(), fresh, obs[name], strict=True):
                stack = frames[agent]
                if first:
                    stack[:] = frame
                else:
                    flat = stack.reshape(-1)  # in one dimension numpy moves what overlaps without a copy
                    flat[: -frame.size] = flat[frame.size :]
                    stack[-1] = frame
            stacks = frames if lend else frames[agents]
            seen[name] = stacks.reshape(len(agents), *self.spec.obs[name].shape)
        return seen
