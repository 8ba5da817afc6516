"""Whether a step of an environment has the form that the contract asks for (envproc/env.py), said in one line."""

from __future__ import annotations

import numpy as np

from core.types import EnvSpec, FloatArray, IntArray, Obs
from envproc.env import EnvFailed, Step


class Broken(EnvFailed):
    """The environment does not keep the contract; the message is one line that says how and what to do."""


def check_form(where: str, spec: EnvSpec, step: Step) -> Step:
    """The same step. Raises Broken for fields, shapes, dtypes or agents that are not what `spec` says."""
    if not isinstance(step, tuple) or len(step) != len(Step._fields):
        raise Broken(f"{where} gave a {type(step).__name__}; give an envproc.env.Step")
    step = Step(*step)
    ended = step.ended
    _check_side(f"{where}: ended", spec, ended.agent, ended.obs, ended.reward)
    _check_array(f"{where}: ended.terminated", ended.terminated, (len(ended.agent),), "bool")
    _check_side(where, spec, step.agent, step.obs, step.reward)
    return step


def _check_side(where: str, spec: EnvSpec, agents: IntArray, obs: Obs, reward: FloatArray) -> None:
    _check_array(f"{where}: agent", agents, (np.size(agents),), "int64")
    wrong = agents[(agents < 0) | (agents >= spec.num_agents)]
    if wrong.size:
        raise Broken(f"{where} has agents {wrong.tolist()[:5]}; spec.num_agents says 0 to {spec.num_agents - 1}")
    if len(np.unique(agents)) < len(agents):
        raise Broken(f"{where} has an agent twice: {agents.tolist()[:20]}; give each one row")
    _check_array(f"{where}: reward", reward, (len(agents),), "float32")
    if set(obs) != set(spec.obs):
        raise Broken(f"{where}: obs has the fields {sorted(obs)}; spec says {sorted(spec.obs)}")
    for name, field in spec.obs.items():
        _check_array(f"{where}: obs[{name!r}]", obs[name], (len(agents), *field.shape), field.dtype)


def _check_array(where: str, array: object, shape: tuple[int, ...], dtype: str) -> None:
    if not isinstance(array, np.ndarray):
        raise Broken(f"{where} is a {type(array).__name__}; give a numpy array of {dtype}")
    if array.dtype != np.dtype(dtype):
        raise Broken(f"{where} has dtype {array.dtype}; make it {dtype}, or change spec")
    if array.shape != shape:
        raise Broken(f"{where} has shape {array.shape}; make it {shape}, or change spec")
