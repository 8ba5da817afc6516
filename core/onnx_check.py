"""Does an exported model say what the policy says? Both are asked about the same random observations, step by step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from core.acting import Policy
from core.checkpoint import SavedPolicy
from core.net import unpack
from core.types import ACTION_MASK, FloatArray, Obs


class Difference(NamedTuple):
    """Between a model and the policy that it was made of."""

    action: float
    """the largest one of a continuous action"""
    choices: int
    """discrete ones that are not the same"""
    decisions: int
    """how many were compared, of agents that decided one after the other"""


def compare(
    model: onnx.ModelProto, saved: SavedPolicy, parameters: FloatArray, agents: int = 64, steps: int = 4, seed: int = 0
) -> Difference:
    """Ask both at their best: a recurrent policy goes on from its own state, the model from the one that it gave."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    unity, wanted = "version_number" in names, {each.name for each in session.get_inputs()}
    action = saved.env_spec.action
    policy = Policy(saved.policy_spec, action, agents, parameters, seed=0)
    state: FloatArray = np.zeros((agents, 2 * saved.policy_spec.net.lstm), np.float32)
    random = np.random.default_rng(seed)
    furthest, choices = 0.0, 0
    for _ in range(steps):
        obs = random_obs(saved, parameters, agents, random)
        decision = policy.act(obs, np.arange(agents))
        feed = unity_inputs(saved, obs, state) if unity else {**obs, "state_in": state}
        feed = {name: values for name, values in feed.items() if name in wanted}
        said = dict(zip(names, session.run(None, feed), strict=True))
        if action.num_continuous:
            theirs = said["deterministic_continuous_actions" if unity else "action"]
            # without scaling what is stochastic is clipped all the same
            ours = decision.action.clip(-1, 1) if unity else policy.to_env(decision).continuous
            furthest = float(np.maximum(furthest, np.abs(theirs - ours).max()))  # NaN stays
        if action.branches:
            choices += int((said["deterministic_discrete_actions" if unity else "choice"] != decision.choice).sum())
        if state.size:
            state = said["recurrent_out" if unity else "state_out"].reshape(state.shape)
    return Difference(furthest, choices, agents * steps)


def unity_inputs(saved: SavedPolicy, obs: Obs, state: FloatArray) -> dict[str, FloatArray]:
    """What Unity would give the model where the environment observed `obs`."""
    inputs: dict[str, FloatArray] = {"recurrent_in": state[:, None]}
    n, branches = len(state), sum(saved.env_spec.action.branches)
    inputs["action_masks"] = np.asarray(obs.get(ACTION_MASK, np.ones((n, branches))), np.float32)
    sensors = [name for name in saved.env_spec.obs if name != ACTION_MASK]
    for place, name in enumerate(sensors):
        is_bytes = name in saved.policy_spec.net.images and obs[name].dtype == np.uint8
        inputs[f"obs_{place}"] = obs[name].astype(np.float32) / np.float32(255 if is_bytes else 1)
    return inputs


def random_obs(
    saved: SavedPolicy, parameters: FloatArray, n: int, random: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Vectors around what the normaliser knows, or else 0; images evenly; half of all choices are allowed."""
    net = saved.policy_spec.net
    arrays = unpack(net, parameters)
    vector = random.standard_normal((n, net.width))
    if "mean" in arrays:
        vector = arrays["mean"] + 3 * vector / arrays["scale"]  # beyond the normaliser's limits, too
    ends = np.cumsum(list(net.vector.values()))
    parts = dict(zip(net.vector, np.split(vector, ends[:-1], axis=1), strict=True)) if net.vector else {}
    obs: dict[str, npt.NDArray[Any]] = {}
    for name, field in saved.env_spec.obs.items():
        shape = (n, *field.shape)
        values: npt.NDArray[Any]
        if name in parts:
            values = parts[name].reshape(shape)
            if not np.issubdtype(field.dtype, np.floating):
                values = np.abs(values).round()
        elif field.dtype == "uint8":
            values = random.integers(0, 256, shape)
        else:  # an image's numbers, and a mask's, which 0 makes False
            values = random.random(shape) if field.dtype != "bool" else random.integers(0, 2, shape)
        obs[name] = values.astype(field.dtype)
    return obs
