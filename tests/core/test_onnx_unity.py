"""An exported model has what ML-Agents looks for, and decides in Unity as the policy did in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)

from core.acting import Policy
from core.onnx_check import random_obs, unity_inputs
from core.onnx_graph import build
from core.types import ACTION_MASK
from envproc.unity.fields import Fields
from tests.core.exported import policy, run, shown

N = 16
VECTORS = {"obs_0": ["batch", 8], "obs_1": ["batch", 2, 3], "obs_2": ["batch", 1]}
IMAGES = {"obs_0": ["batch", 4, 21, 20], "obs_1": ["batch", 3], "obs_2": ["batch", 1, 20, 24]}
CONTINUOUS = {
    "continuous_actions": ["batch", 2],
    "continuous_action_output_shape": [1],
    "deterministic_continuous_actions": ["batch", 2],
}
CONSTANTS = {"version_number": [1], "memory_size": [1]}

CONTRACT: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # inputs, outputs, and of those the constants
    ("ddpg", "continuous"): (
        VECTORS,
        {**CONSTANTS, **CONTINUOUS},
        {"version_number": [3], "memory_size": [0], "continuous_action_output_shape": [2]},
    ),
    ("sac", "images"): (
        IMAGES,
        {**CONSTANTS, **CONTINUOUS},
        {"version_number": [3], "memory_size": [0], "continuous_action_output_shape": [2]},
    ),
    ("dqn", "choices"): (  # never saw a mask in training
        {**VECTORS, "action_masks": ["batch", 5]},
        {
            **CONSTANTS,
            "discrete_actions": ["batch", 1],
            "discrete_action_output_shape": [1, 1],
            "deterministic_discrete_actions": ["batch", 1],
        },
        {"version_number": [3], "memory_size": [0], "discrete_action_output_shape": [[5]]},
    ),
    ("ppo", "mixed"): (
        {**VECTORS, "action_masks": ["batch", 7]},
        {
            **CONSTANTS,
            **CONTINUOUS,
            "discrete_actions": ["batch", 2],
            "discrete_action_output_shape": [1, 2],
            "deterministic_discrete_actions": ["batch", 2],
        },
        {
            "version_number": [3],
            "memory_size": [0],
            "continuous_action_output_shape": [2],
            "discrete_action_output_shape": [[4, 3]],
        },
    ),
    ("r2d2", "images, choices"): (
        {**IMAGES, "action_masks": ["batch", 3], "recurrent_in": ["batch", 1, 128]},
        {
            **CONSTANTS,
            "discrete_actions": ["batch", 1],
            "discrete_action_output_shape": [1, 1],
            "deterministic_discrete_actions": ["batch", 1],
            "recurrent_out": ["batch", 1, 128],
        },
        {"version_number": [3], "memory_size": [128], "discrete_action_output_shape": [[3]]},
    ),
}
INTEGERS = ("discrete_actions", "deterministic_discrete_actions")


@pytest.mark.parametrize(("algorithm", "where"), CONTRACT)
def test_names_shapes_dtypes_and_constants_are_those_of_the_contract(algorithm: str, where: str) -> None:
    saved, parameters, _, _ = policy(algorithm, where)
    model = build(saved, parameters, unity=True)
    inputs, outputs, constants = CONTRACT[algorithm, where]
    assert shown(model, "input") == {name: ("float32", shape) for name, shape in inputs.items()}
    dtypes = {name: "int64" if name in INTEGERS else "float32" for name in outputs}
    assert shown(model, "output") == {name: (dtypes[name], shape) for name, shape in outputs.items()}
    assert list(shown(model, "output")) == list(outputs)
    assert model.opset_import[0].version == 9 and model.ir_version == 4

    zeros = {name: np.zeros((3, *shape[1:]), np.float32) for name, shape in inputs.items()}
    said = run(model, zeros)
    assert {name: values.tolist() for name, values in said.items() if name in constants} == constants
    for name, shape in outputs.items():
        assert said[name].shape == tuple(3 if each == "batch" else each for each in shape)
        assert said[name].dtype == dtypes[name]


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(
    ("algorithm", "last"), [("sac", False), ("ppo", True), ("rainbow", True), ("rainbow", False), ("r2d2", True)]
)
def test_what_a_sensor_shows_in_unity_leads_to_the_same_action_as_on_the_wire(
    algorithm: str, last: bool, n: int
) -> None:
    """The wire's images have their channels last or first, the model's first; kept as bytes, or not."""
    places = ["h", "w", "c"] if last else ["c", "h", "w"]
    kinds = {
        "h": DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
        "w": DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
        "c": DimensionProperty.NONE,
    }
    sizes = {"h": 21, "w": 24, "c": 3}
    image, none = tuple(sizes[each] for each in places), (DimensionProperty.NONE,)
    sensors = [
        ObservationSpec((4,), none, ObservationType.DEFAULT, "B"),
        ObservationSpec(image, tuple(kinds[each] for each in places), ObservationType.DEFAULT, "Camera"),
        ObservationSpec((2,), none, ObservationType.DEFAULT, "Velocity"),
    ]
    continuous = algorithm in ("sac", "ppo")
    actions = ActionSpec(2 if continuous else 0, () if algorithm == "sac" else (3, 2))
    fields = Fields(BehaviorSpec(sensors, actions), image_bytes=algorithm != "r2d2")
    saved, parameters, _, _ = policy(algorithm, fields.env_spec(n))
    model = build(saved, parameters, unity=True)
    acting = Policy(saved.policy_spec, saved.env_spec.action, n, parameters, 0)

    random = np.random.default_rng(0)
    memory: Any = np.zeros((n, 1, 2 * saved.policy_spec.net.lstm), np.float32)
    for _ in range(3):
        seen = [random.random((n, *sensor.shape), np.float32) for sensor in sensors]
        forbidden = [random.random((n, size)) < 0.5 for size in actions.discrete_branches] or None
        nobody = np.zeros(n, np.float32)
        steps = DecisionSteps(seen, nobody, np.arange(n, dtype=np.int32), forbidden, [0] * n, nobody)
        wanted = acting.to_env(acting.act(fields.see(steps), np.arange(n)))
        given = {"obs_0": seen[0], "obs_1": seen[1].transpose(0, 3, 1, 2) if last else seen[1], "obs_2": seen[2]}
        if forbidden:
            given["action_masks"] = 1 - np.concatenate(forbidden, axis=1).astype(np.float32)
        said = run(model, {**given, "recurrent_in": memory})
        memory = said.get("recurrent_out", memory)
        if continuous:
            np.testing.assert_allclose(said["deterministic_continuous_actions"], wanted.continuous, rtol=0, atol=1e-5)
        if forbidden:
            np.testing.assert_array_equal(said["deterministic_discrete_actions"], wanted.discrete)


@pytest.mark.parametrize(("algorithm", "where"), [("td3", "continuous"), ("rainbow", "masks")])
def test_where_nothing_is_drawn_both_outputs_are_the_same(algorithm: str, where: str) -> None:
    saved, parameters, _, _ = policy(algorithm, where)
    obs = random_obs(saved, parameters, N, np.random.default_rng(0))
    said = run(build(saved, parameters, unity=True), unity_inputs(saved, obs, np.zeros((N, 0), np.float32)))
    kind = "discrete" if saved.env_spec.action.branches else "continuous"
    np.testing.assert_array_equal(said[f"{kind}_actions"], said[f"deterministic_{kind}_actions"])


def test_actions_for_unity_stay_within_one_whatever_the_environment_had() -> None:
    saved, parameters, _, _ = policy("ddpg", "continuous")  # bounds of -2 to 2 and 0 to 5
    obs = random_obs(saved, parameters, N, np.random.default_rng(0))
    decision = Policy(saved.policy_spec, saved.env_spec.action, N, parameters, 0).act(obs, np.arange(N))
    said = run(build(saved, parameters, unity=True), unity_inputs(saved, obs, np.zeros((N, 0), np.float32)))
    np.testing.assert_allclose(said["continuous_actions"], decision.action, rtol=0, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["sac", "ppo"])
def test_continuous_actions_are_drawn_as_the_workers_draw_them(algorithm: str) -> None:
    n = 20_000
    more: dict[str, Any] = {"log_std": -1.0} if algorithm == "ppo" else {}
    saved, parameters, _, _ = policy(algorithm, "continuous", normalize=False, **more)
    one = random_obs(saved, parameters, 1, np.random.default_rng(0))
    obs = {name: np.repeat(values, n, axis=0) for name, values in one.items()}
    acting = Policy(saved.policy_spec, saved.env_spec.action, n, parameters, 0)
    wanted = acting.explore(obs, np.arange(n)).action.clip(-1, 1)
    said = run(build(saved, parameters, unity=True), unity_inputs(saved, obs, np.zeros((n, 0), np.float32)))
    drawn = said["continuous_actions"]
    assert wanted.std(axis=0).max() > 0.2 and np.abs(drawn).max() <= 1
    np.testing.assert_allclose(drawn.std(axis=0), wanted.std(axis=0), rtol=0.05)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):  # the same quantiles
        ours, theirs = np.quantile(drawn, share, axis=0), np.quantile(wanted, share, axis=0)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.06)
    assert np.unique(said["deterministic_continuous_actions"].round(5), axis=0).shape == (1, 2)


def test_choices_are_drawn_by_their_probability_and_never_what_is_masked() -> None:
    n = 20_000
    saved, parameters, _, _ = policy("sac_discrete", "branches")
    one = random_obs(saved, parameters, 1, np.random.default_rng(0))
    one[ACTION_MASK][:] = [[True, False, True, True, False, True, True]]  # of the second branch nothing is allowed
    obs = {name: np.repeat(values, n, axis=0) for name, values in one.items()}
    acting = Policy(saved.policy_spec, saved.env_spec.action, n, parameters, 0)
    wanted = acting.explore(obs, np.arange(n)).choice
    drawn = run(build(saved, parameters, unity=True), unity_inputs(saved, obs, np.zeros((n, 0), np.float32)))
    for place, size in enumerate(saved.env_spec.action.branches):
        ours, theirs = (np.bincount(each[:, place], minlength=size) / n for each in (drawn["discrete_actions"], wanted))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.04)
        assert (ours[theirs == 0] == 0).all()
    assert len(np.unique(drawn["discrete_actions"][:, 0])) == 3
