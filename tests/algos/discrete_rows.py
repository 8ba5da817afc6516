"""Batches of discrete choices for the tests of who learns from them, and what those tests have in common."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algos.nets import Network, prepare
from core.gather import as_batch
from core.types import ACTION_MASK, ActionSpec, Batch, EnvSpec, FieldSpec, Recording, Rows, row_layout

SIZES = (3, 2)
SPEC = EnvSpec(
    {"a": FieldSpec((3,)), "b": FieldSpec((2, 2)), ACTION_MASK: FieldSpec((sum(SIZES),), "bool")},
    ActionSpec(branches=SIZES),
    4,
)


def rows(count: int, seed: int, recording: Recording | None = None) -> Rows:
    """As they would lie in a batch: everything random, the choices allowed, after some ends no choice at all."""
    random = np.random.default_rng(seed)
    result: Rows = np.zeros(count, row_layout(SPEC, recording or Recording()))
    result["reward"] = random.normal(size=count)
    result["discount"] = random.choice([0.0, 0.99], count)
    for side in ("obs", "next_obs"):
        for name in ("a", "b"):
            result[side][name] = random.normal(0.5, 1, result[side][name].shape)
        mask = random.random((count, sum(SIZES))) < 0.6
        for branch in range(len(SIZES)):
            always = sum(SIZES[:branch]) + random.integers(SIZES[branch], size=count)
            mask[np.arange(count), always] = True
            if side == "obs":
                result["choice"][:, branch] = always - sum(SIZES[:branch])
        if side == "next_obs":
            mask[(result["discount"] == 0) & (np.arange(count) % 2 == 0)] = False
        result[side][ACTION_MASK] = mask
    return result


def batch(rows: Rows, weight: Tensor | None = None, agent_steps: int = 0) -> Batch:
    raw = torch.from_numpy(rows.view("u1").reshape(len(rows), -1))
    result = as_batch(raw, rows.dtype, torch.ones(len(rows)) if weight is None else weight, {})
    result.agent_steps = agent_steps
    return result


def allowed(rows: Rows, side: str, i: int, branch: int) -> list[int]:
    """The choices that row i's mask allows; all where it allows none."""
    start = sum(SIZES[:branch])
    choices = [choice for choice in range(SIZES[branch]) if rows[side][ACTION_MASK][i, start + choice]]
    return choices or list(range(SIZES[branch]))


def move(*networks: Network) -> None:
    """Away from where they began: outputs not near zero, targets apart."""
    for network in networks:
        for parameter in network.parameters():
            parameter.data.add_(torch.randn(parameter.shape) * 0.2)


def exact(network: Network) -> Network:
    """The same network with parameters of its own, in double precision."""
    return copy.deepcopy(network).double()


def says(network: Network, rows: Rows, side: str, i: int, taus: Tensor | None = None) -> list[Tensor]:
    """For each branch, what the network says of row i's choices: (choices, numbers each), or (choices, fractions)."""
    obs = {name: torch.from_numpy(rows[side][name][i : i + 1].astype(np.float64)) for name in ("a", "b")}
    x = {name: field.double() for name, field in prepare(obs, network.spec, None).items()}
    output = network(x)[0].view(sum(SIZES), -1) if taus is None else network(x, taus=taus.double()[None])[0].T
    return list(output.split(SIZES))


def gradient(network: nn.Module, loss: Tensor) -> Tensor:
    """(P,) of all parameters in their order."""
    parameters = list(network.parameters())
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, parameters)])


def stepped_by(network: nn.Module) -> Tensor:
    """(P,) the gradient of the last step."""
    grads = [each.grad for each in network.parameters()]
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def flat(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach().clone()


def huber(u: Tensor) -> Tensor:
    """Equation 9 of Dabney et al. 2018 with kappa 1: the squared error, clipped."""
    return 0.5 * u * u if abs(float(u.detach())) <= 1 else u.abs() - 0.5


def assert_equal(one: Any, other: Any) -> None:
    """Two nests of dicts and lists, tensors and numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def assert_goes_on_as_if_nothing_had_happened(one: Any, other: Any) -> None:
    """`one` learns, is saved and loaded as `other`, and both learn on."""
    recording = one.recording
    for number in range(3):
        one.update(batch(rows(32, number, recording), agent_steps=1000 * number))
    saved = copy.deepcopy(one.state_dict())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.policy_parameters(), other.policy_parameters())
    for learner in (one, other):
        torch.manual_seed(7)
        for number in range(3, 6):
            learner.update(batch(rows(32, number, recording), agent_steps=number))
        if learner is one:  # whose state was loaded as a copy
            assert_equal(other.state_dict(), saved)
    assert_equal(one.state_dict(), other.state_dict())
    assert torch.equal(one.policy_parameters(), other.policy_parameters())
