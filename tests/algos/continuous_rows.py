"""Batches of continuous actions for the tests of who learns from them, and what those tests have in common."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algos.nets import VECTOR, Network
from core.gather import as_batch
from core.types import ActionSpec, Batch, EnvSpec, FieldSpec, Recording, Rows, row_layout

SPEC = EnvSpec({"a": FieldSpec((3,)), "b": FieldSpec((2, 2))}, ActionSpec((-1.0,) * 2, (1.0,) * 2), 4)
IMAGES = EnvSpec({"a": FieldSpec((3,)), "eye": FieldSpec((1, 36, 36), "uint8")}, SPEC.action, 4)


def rows(count: int, seed: int, spec: EnvSpec = SPEC) -> Rows:
    """As they would lie in a batch: everything random."""
    random = np.random.default_rng(seed)
    result: Rows = np.zeros(count, row_layout(spec, Recording()))
    for side in ("obs", "next_obs"):
        for name, each in spec.obs.items():
            result[side][name] = random.normal(1, 2, (count, *each.shape)).clip(0 if each.dtype == "uint8" else -9)
    result["action"] = random.uniform(-1, 1, result["action"].shape)
    result["reward"] = random.normal(size=count)
    result["discount"] = random.choice([0.0, 0.99], count)
    return result


def weights(count: int, seed: int) -> Tensor:
    """As prioritised replay gives them."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def batch(rows: Rows, weight: Tensor | None = None) -> Batch:
    raw = torch.from_numpy(rows.view("u1").reshape(len(rows), -1))
    return as_batch(raw, rows.dtype, torch.ones(len(rows)) if weight is None else weight, {})


def move(*networks: nn.Module) -> None:
    """Away from where they began: outputs not near zero, targets apart."""
    for network in networks:
        for parameter in network.parameters():
            parameter.data.add_(torch.randn(parameter.shape) * 0.2)


def exact(network: Network) -> Network:
    """The same network with parameters of its own, in double precision."""
    return copy.deepcopy(network).double()


def says(network: Network, s: Tensor, a: Tensor | None = None) -> Tensor:
    """(outputs,) of one state, and one action."""
    output: Tensor = network({VECTOR: s[None]}, None if a is None else a[None])
    return output[0]


def states(rows: Rows, side: str) -> Tensor:
    """(n, 7) in double precision."""
    fields = [rows[side][name].reshape(len(rows), -1) for name in SPEC.obs]
    return torch.from_numpy(np.concatenate(fields, axis=1).astype(np.float64))


def normalized(s: Tensor, shown: Tensor) -> Tensor:
    """By mean and deviation of everything shown so far, within 5 deviations."""
    deviation = torch.sqrt(((shown - shown.mean(0)) ** 2).mean(0))
    return torch.clamp((s - shown.mean(0)) / deviation, -5, 5)


class Adam:
    """As Kingma and Ba 2015 wrote it."""

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self._parameters, self._rate, self._steps = parameters, rate, 0
        self._moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in parameters]

    def descend(self, loss: Tensor) -> None:
        self._steps += 1
        gradients = torch.autograd.grad(loss, self._parameters)
        for i, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            m, v = self._moments[i]
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            self._moments[i] = m, v
            unbiased_m, unbiased_v = m / (1 - 0.9**self._steps), v / (1 - 0.999**self._steps)
            parameter.data = parameter.data - self._rate * unbiased_m / (torch.sqrt(unbiased_v) + 1e-8)


def follow(target: nn.Module, network: nn.Module, tau: float) -> None:
    """theta' = tau theta + (1 - tau) theta'"""
    for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
        slow.data = tau * fast.data + (1 - tau) * slow.data


def flat(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach().double()


def assert_moved_alike(start: Tensor, one: Tensor, other: Tensor) -> None:
    """Both away from `start`, to the same place."""
    assert (other - start).abs().max() > 1e-4
    np.testing.assert_allclose(one - start, other - start, rtol=0, atol=1e-5)


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
    """`one` learns, is saved to a file and loaded as `other`, and both learn on."""
    for number in range(3):
        one.update(batch(rows(32, number)))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    metrics = []
    for learner in (one, other):
        torch.manual_seed(7)
        metrics.append([learner.update(batch(rows(32, number))).metrics for number in range(3, 6)])
    for number in range(3):
        assert_equal(metrics[0][number], metrics[1][number])
    assert_equal(one.state_dict(), other.state_dict())
    assert torch.equal(one.policy_parameters(), other.policy_parameters())


def assert_a_loaded_state_is_a_copy(one: Any, other: Any) -> None:
    """What `one` learns after `other` has loaded its state does not reach `other`."""
    one.update(batch(rows(32, seed=0)))
    other.load_state_dict(one.state_dict())
    kept = copy.deepcopy(other.state_dict())
    one.update(batch(rows(32, seed=1)))
    assert_equal(other.state_dict(), kept)
