"""A walk through an environment: random actions within the bounds and masks, each step held against the contract.

What an environment does wrong, an exception of its own included, is raised as Broken: one line, with the way out.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import numpy as np
import numpy.typing as npt

from core.types import ACTION_MASK, Action, EnvSpec, FieldSpec, FloatArray, Obs, in_one_line
from envproc.contract import Broken, check_form
from envproc.env import CannotReset, Env, EnvFailed, Step

Answer = TypeVar("Answer")
_DICE = 256
"""decisions of an agent after which its random numbers come again"""


class Event(NamedTuple):
    """What an agent met."""

    kind: str
    """decided, terminated or truncated"""
    reward: float
    obs: int
    """checksum of what it saw"""


def call(what: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
    """What the function of an environment returns. Raises Broken for whatever it raises, but for CannotReset."""
    try:
        return function(*arguments)
    except (CannotReset, Broken):
        raise
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, EnvFailed) else f" ({os.path.relpath(last.filename)}, line {last.lineno})"
        raise Broken(f"{what} raised {type(error).__name__}: {in_one_line(error, 500)}{where}") from error


def walk(env: Env, seed: int, steps: int, seconds: float) -> Iterator[Step]:
    """The step of reset(seed), then up to `steps` more, until `seconds` are over. Raises Broken.

    What an agent does depends on how often it decided, and on neither the seed nor the others. It begins at the lower
    bounds, then at the upper ones.
    """
    spec = env.spec
    choose = RandomActions(spec)
    end = time.monotonic() + seconds
    is_open = np.zeros(spec.num_agents, np.bool_)
    where = f"reset({seed})"
    step = call(where, env.reset, seed)
    for number in range(steps + 1):
        check(where, spec, step, is_open)
        if not number and len(step.ended.agent):
            raise Broken(f"{where} has agents {step.ended.agent.tolist()[:5]} in ended; there nobody has begun")
        yield step
        if time.monotonic() > end:
            return
        where = f"step {number + 1} after reset({seed})"
        step = call(where, env.step, choose(step))


class RandomActions:
    """Uniform within the bounds and among what is allowed."""

    def __init__(self, spec: EnvSpec) -> None:
        action = spec.action
        self._branches, self._num = np.array(action.branches, np.int64), action.num_continuous
        self._low, self._high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        width = self._num + len(self._branches)
        self._dice = np.random.default_rng(0).random((spec.num_agents, _DICE, width), np.float32)
        self._dice[:, 0], self._dice[:, 1] = 0.0, np.nextafter(np.float32(1), np.float32(0))
        self._decisions = np.zeros(spec.num_agents, np.int64)

    def __call__(self, step: Step) -> Action:
        dice = self._dice[step.agent, self._decisions[step.agent] % _DICE]
        self._decisions[step.agent] += 1
        continuous = self._low + (self._high - self._low) * dice[:, : self._num]
        discrete = (dice[:, self._num :] * self._branches).astype(np.int64)
        if ACTION_MASK in step.obs:
            allowed = np.split(step.obs[ACTION_MASK], np.cumsum(self._branches)[:-1], axis=1)
            for branch, mask in enumerate(allowed):
                which = (dice[:, self._num + branch] * mask.sum(axis=1)).astype(np.int64)
                discrete[:, branch] = (np.cumsum(mask, axis=1) > which[:, None]).argmax(axis=1)
        return Action(np.clip(continuous, self._low, self._high), discrete)


def check(where: str, spec: EnvSpec, step: Step, is_open: npt.NDArray[np.bool_]) -> None:
    """Raises Broken for what is wrong with this step. `is_open`, the agents whose episode runs, is brought up to it."""
    step = check_form(where, spec, step)
    ended = step.ended
    _check_finite(f"{where}: ended", ended.obs, ended.reward)
    _check_finite(where, step.obs, step.reward)
    strangers = ended.agent[~is_open[ended.agent]]
    if strangers.size and is_open.any():
        raise Broken(f"{where} ends agents {strangers.tolist()[:5]}, which have no episode; tell an end once")
    is_open[ended.agent] = False
    is_open[step.agent] = True
    allowed = step.obs.get(ACTION_MASK)
    if allowed is not None:
        for branch, mask in enumerate(np.split(allowed, np.cumsum(spec.action.branches)[:-1], axis=1)):
            stuck = step.agent[~mask.any(axis=1)]
            if stuck.size:
                raise Broken(f"{where}: agent {stuck[0]} may do nothing in branch {branch}; allow at least one choice")


def _check_finite(where: str, obs: Obs, reward: FloatArray) -> None:
    for name, array in [("reward", reward), *((f"obs[{name!r}]", values) for name, values in obs.items())]:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            at = np.argwhere(~np.isfinite(array))[0].tolist()
            raise Broken(
                f"{where}: {name}{at} is {array[tuple(at)]}; one such number ruins every weight: find where it is made"
            )


def events_of(step: Step) -> Iterator[tuple[int, Event]]:
    """(agent, event), ends first."""
    ended = step.ended
    for row, agent in enumerate(ended.agent.tolist()):
        kind = "terminated" if ended.terminated[row] else "truncated"
        yield agent, Event(kind, float(ended.reward[row]), _checksum(ended.obs, row))
    for row, agent in enumerate(step.agent.tolist()):
        yield agent, Event("decided", float(step.reward[row]), _checksum(step.obs, row))


def _checksum(obs: Obs, row: int) -> int:
    total = 0
    for name in sorted(obs):
        total = crc32(np.ascontiguousarray(obs[name][row]).tobytes(), total)
    return total


def shown(field: FieldSpec) -> str:
    """As in 'uint8 (3, 84, 84)'."""
    return f"{field.dtype} {field.shape}"


def spec_of(env: Env) -> EnvSpec:
    """What the environment says about itself. Raises Broken where that cannot be."""
    spec = env.spec
    if spec.num_agents < 1:
        raise Broken(f"spec.num_agents is {spec.num_agents}; have at least one agent")
    if not set(spec.obs) - {ACTION_MASK}:
        raise Broken(f"spec.obs has the fields {sorted(spec.obs)}; name at least one that can be observed")
    if not spec.action.num_continuous and not spec.action.branches:
        raise Broken("spec.action has no action; give bounds of continuous ones, or branches, or both")
    mask, choices = spec.obs.get(ACTION_MASK), sum(spec.action.branches)
    if mask is not None and (mask.dtype != "bool" or mask.shape != (choices,)):
        raise Broken(f"{ACTION_MASK} is {shown(mask)}; make it bool ({choices},), an entry for each choice")
    return spec
