"""What is exported is what acts: ONNX in onnxruntime, the workers' numpy and the learner's torch say the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos import ALGORITHMS
from algos.nets import prepare
from core.acting import Policy
from core.net import ACTING_QUANTILES, NetSpec, num_parameters
from core.onnx_check import compare, random_obs
from core.onnx_graph import build
from core.onnx_nodes import OPSETS
from core.types import ACTION_MASK, EnvSpec, FieldSpec, FloatArray, Obs
from tests.core.exported import IMAGES, VECTOR, Exported, policy, run, says_what_its_network_says, shown

N = 32

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("ddpg", "continuous", {}),
    ("ddpg", "images", {"hidden": ()}),
    ("td3", "continuous", {"normalize": False, "activation": "tanh"}),
    ("sac", "continuous", {"layer_norm": True}),
    ("sac", "images", {}),
    ("dqn", "one number", {}),
    ("dqn", "choices", {"atoms": 5}),
    ("dqn", "images, choices", {"conv": "impala"}),
    ("rainbow", "branches", {}),
    ("apex", "masks", {}),
    ("apex", "images, choices", {}),
    ("qrdqn", "branches", {}),
    ("qrdqn", "masks", {"dueling": True, "noisy": True}),
    ("iqn", "branches", {}),
    ("iqn", "images, choices", {"dueling": True, "noisy": True}),
    ("sac_discrete", "branches", {}),
    ("ppo", "continuous", {}),
    ("ppo", "mixed", {"share": True}),
    ("ppo", "images", {"share": True}),
    ("vtrace", "mixed", {}),
    ("vtrace", "branches", {}),
    ("r2d2", "branches", {}),
    ("r2d2", "images, choices", {"dueling": False}),
]

IMAGE = {"eye": FieldSpec((3, 36, 37), "uint8")}
NETS: dict[str, tuple[dict[str, FieldSpec], dict[str, Any]]] = {
    "no hidden layer": (VECTOR, {"hidden": ()}),
    "normalised layers": (VECTOR, {"layer_norm": True, "activation": "tanh"}),
    "dueling, with atoms, noisy": (VECTOR, {"dueling": (2, 1), "noisy": True}),
    "cosines": (VECTOR, {"cosines": 7}),
    "cosines, dueling, normalised layers": (VECTOR, {"cosines": 7, "dueling": (3,), "layer_norm": True}),
    "lstm": (VECTOR, {"lstm": 5}),
    "lstm, dueling, no hidden layer": (VECTOR, {"lstm": 5, "dueling": (2, 1), "hidden": ()}),
    "simple": (IMAGES, {"conv": "simple"}),
    "nature": (IMAGE, {"conv": "nature"}),
    "impala": (IMAGES, {"conv": "impala"}),
}


def torch_says(exported: Exported, obs: Obs, state: FloatArray) -> tuple[Tensor, Tensor]:
    """(n, outputs) of the learner's network, and the state after."""
    net, network = exported.saved.policy_spec.net, exported.network
    tensors = {name: torch.from_numpy(values) for name, values in obs.items()}
    prepared = prepare(tensors, net, exported.normalizer)
    with torch.no_grad():
        if net.lstm:
            said, after = network.unroll({name: each[:, None] for name, each in prepared.items()}, torch.tensor(state))
            return said[:, 0], after
        taus = (torch.arange(ACTING_QUANTILES) + 0.5).expand(N, -1) / ACTING_QUANTILES
        return (network(prepared, taus=taus).mean(1) if net.cosines else network(prepared)), torch.tensor(state)


def torch_decides(exported: Exported, output: Tensor) -> tuple[FloatArray, FloatArray]:
    """(n, num_continuous) actions in the environment's units, (n, sum of the branches) what choices are worth."""
    spec, action = exported.saved.policy_spec, exported.saved.env_spec.action
    num, low, high = action.num_continuous, np.array(action.low), np.array(action.high)
    said = output[:, :num]
    said = said.clamp(-1, 1) if spec.head == "stochastic" else said.tanh()
    worth = output[:, num : num + sum(action.branches)]
    if spec.head == "greedy":
        atoms = output.view(N, sum(action.branches), -1)
        worth = (atoms.softmax(2) * torch.tensor(spec.support)).sum(2) if spec.support else atoms.mean(2)
    return (low + (said.double().numpy() + 1) / 2 * (high - low)).astype(np.float32), worth.numpy()


def assert_best(choice: Any, worth: FloatArray, obs: Obs, spec: EnvSpec) -> None:
    """Each branch's choice may be made, and is worth as much as the best that may, but for rounding."""
    for place, (start, stop) in enumerate(pairwise(accumulate(spec.action.branches, initial=0))):
        allowed = obs[ACTION_MASK][:, start:stop] if ACTION_MASK in obs else np.ones((N, stop - start), np.bool_)
        allowed = allowed | ~allowed.any(1, keepdims=True)
        chosen = choice[:, place, None]
        assert np.take_along_axis(allowed, chosen, 1).all()
        best = np.where(allowed, worth[:, start:stop], -np.inf).max(1)
        np.testing.assert_allclose(np.take_along_axis(worth[:, start:stop], chosen, 1)[:, 0], best, rtol=0, atol=1e-5)


def in_steps(exported: Exported, opset: int = OPSETS[0]) -> None:
    """Three decisions of the model, of the numpy policy and of torch, each from the state that it had come to."""
    saved, parameters, _, _ = exported
    net, action = saved.policy_spec.net, saved.env_spec.action
    model, random = build(saved, parameters, opset=opset), np.random.default_rng(1)
    acting = Policy(saved.policy_spec, action, N, parameters, seed=0)
    state = np.zeros((N, 2 * net.lstm), np.float32)
    state_in, torch_state = state, torch.tensor(state)
    for _ in range(3 if net.lstm else 1):
        obs = random_obs(saved, parameters, N, random)
        said = run(model, {**obs, "state_in": state_in})
        decision = acting.act(obs, np.arange(N))
        np.testing.assert_allclose(decision.state, state_in, rtol=0, atol=1e-5)
        ours = acting.to_env(decision)
        output, torch_state = torch_says(exported, obs, torch_state.numpy())
        theirs, worth = torch_decides(exported, output)
        if action.num_continuous:
            assert said["action"].dtype == np.float32
            np.testing.assert_allclose(said["action"], ours.continuous, rtol=0, atol=1e-5)
            np.testing.assert_allclose(said["action"], theirs, rtol=0, atol=1e-5)
        if action.branches:
            np.testing.assert_array_equal(said["choice"], ours.discrete)
            assert_best(said["choice"], worth, obs, saved.env_spec)
        if net.lstm:
            state_in = said["state_out"]
            np.testing.assert_allclose(state_in, torch_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("algorithm", "where", "options"), CASES, ids=lambda each: str(each))
def test_every_algorithms_policy_decides_alike_in_onnx_numpy_and_torch(
    algorithm: str, where: str, options: dict[str, Any]
) -> None:
    in_steps(policy(algorithm, where, **options))


def test_no_algorithm_is_left_out() -> None:
    assert {name for name, _, _ in CASES} == set(ALGORITHMS)


@pytest.mark.parametrize("kind", NETS)
def test_every_network_says_the_same_numbers_in_onnx_numpy_and_torch(kind: str) -> None:
    obs, options = NETS[kind]
    net = NetSpec({name: field.shape for name, field in obs.items()}, **{"hidden": (24, 16), "outputs": 6, **options})
    in_steps(says_what_its_network_says(net, obs))


@pytest.mark.parametrize("algorithm, where", [("sac", "continuous"), ("ppo", "mixed"), ("iqn", "branches")])
@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_says_the_same(algorithm: str, where: str, opset: int) -> None:
    exported = policy(algorithm, where, layer_norm=True)
    model = build(exported.saved, exported.parameters, opset=opset)
    assert [each.version for each in model.opset_import] == [opset]
    assert model.ir_version <= (4 if opset == 9 else 8 if opset < 19 else 10)
    in_steps(exported, opset)


@pytest.mark.parametrize(
    ("where", "opset"), [*(("branches", each) for each in OPSETS), ("images, choices", 9), ("images, choices", 21)]
)
def test_every_opset_remembers_and_draws(where: str, opset: int) -> None:
    for exported in (policy("r2d2", where), policy("ppo", where)):
        model = build(exported.saved, exported.parameters, unity=True, opset=opset)
        assert compare(model, exported.saved, exported.parameters, steps=2) == (0, 0, 128)


INPUTS_AND_OUTPUTS = {
    ("dqn", "choices"): (
        {"ball": ("float32", ["batch", 8]), "goal": ("float64", ["batch", 2, 3]), "count": ("int64", ["batch", 1])},
        {"choice": ("int64", ["batch", 1])},
    ),
    ("ppo", "mixed"): (
        {
            "ball": ("float32", ["batch", 8]),
            "goal": ("float64", ["batch", 2, 3]),
            "count": ("int64", ["batch", 1]),
            "action_mask": ("bool", ["batch", 7]),
        },
        {"action": ("float32", ["batch", 2]), "choice": ("int64", ["batch", 2])},
    ),
    ("r2d2", "images, choices"): (
        {
            "eye": ("uint8", ["batch", 4, 21, 20]),
            "speed": ("float32", ["batch", 3]),
            "map": ("float32", ["batch", 1, 20, 24]),
            "action_mask": ("bool", ["batch", 3]),
            "state_in": ("float32", ["batch", 128]),
        },
        {"choice": ("int64", ["batch", 1]), "state_out": ("float32", ["batch", 128])},
    ),
}


@pytest.mark.parametrize(("algorithm", "where"), INPUTS_AND_OUTPUTS)
def test_a_plain_model_takes_what_the_environment_shows_and_draws_nothing(algorithm: str, where: str) -> None:
    exported = policy(algorithm, where)
    model = build(exported.saved, exported.parameters)
    assert (shown(model, "input"), shown(model, "output")) == INPUTS_AND_OUTPUTS[algorithm, where]
    assert not {node.op_type for node in model.graph.node} & {"RandomNormalLike", "Multinomial"}


def test_fields_that_the_network_does_not_see_are_no_inputs() -> None:
    saved, parameters, _, _ = policy("ddpg", "continuous")
    blind = replace(saved, env_spec=replace(saved.env_spec, obs={"time": FieldSpec((1,)), **saved.env_spec.obs}))
    assert list(shown(build(blind, parameters), "input")) == ["ball", "goal", "count"]
    assert list(shown(build(blind, parameters, unity=True), "input")) == ["obs_1", "obs_2", "obs_3"]


def test_what_cannot_be_exported_is_refused_with_the_way_out() -> None:
    saved, parameters, _, _ = policy("dqn", "one number")
    with pytest.raises(ValueError, match=r"'count' has the shape \(\).*export without --unity"):
        build(saved, parameters, unity=True)
    for opset in (8, 22):
        with pytest.raises(ValueError, match=f"opset {opset}; it must be from 9 to 21"):
            build(saved, parameters, opset=opset)
    with pytest.raises(ValueError, match=f"{num_parameters(saved.policy_spec.net) + 1} parameters for a network of"):
        build(saved, np.append(parameters, np.float32(0)))
    named = replace(saved, env_spec=replace(saved.env_spec, obs={"action": FieldSpec((1,))}))
    with pytest.raises(ValueError, match=r"'action' has the name of an input or output.*--unity"):
        build(named, parameters)


def test_a_model_of_other_parameters_is_found_out() -> None:
    saved, parameters, _, _ = policy("ppo", "mixed")
    same, other = build(saved, parameters), build(saved, parameters + np.float32(0.1))
    assert compare(same, saved, parameters).action < 1e-5
    assert compare(other, saved, parameters).action > 0.01
    assert compare(other, saved, parameters).choices > 10
    broken = build(saved, np.where(np.arange(len(parameters)) == 100, np.float32(np.nan), parameters))
    assert np.isnan(compare(broken, saved, parameters).action)
