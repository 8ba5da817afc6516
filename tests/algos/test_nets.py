"""What networks start as, and that one flat vector is all that an optimizer needs to know of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from algos.nets import VECTOR, Network, flatten
from core.net import NetSpec

X = {VECTOR: torch.linspace(-1, 1, 12).view(4, 3)}
SEQUENCES = {VECTOR: torch.linspace(-1, 1, 60).view(4, 5, 3)}


def said(network: Network) -> Tensor:
    lstm = network.spec.lstm
    output: Tensor = network.unroll(SEQUENCES, torch.zeros(4, 2 * lstm))[0] if lstm else network(X)
    return output.detach()


@pytest.mark.parametrize("lstm", [0, 6])
def test_a_flat_vector_moves_every_parameter_of_its_parts(lstm: int) -> None:
    parts = [Network(NetSpec({"x": (3,)}, (8,), 2, lstm=lstm, dueling=(2,))) for _ in range(2)]
    log_std, before = nn.Parameter(torch.full((2,), -0.5)), [said(part) for part in parts]
    flat = flatten(*parts, log_std)
    assert flat.numel() == 2 * sum(each.numel() for each in parts[0].parameters()) + 2
    for part, wanted in zip(parts, before, strict=True):
        assert torch.equal(said(part), wanted)
    start = 0
    for each in (parameter for part in (*parts, nn.ParameterList([log_std])) for parameter in part.parameters()):
        kept = flat.data.clone()
        each.data.add_(1)  # shows where it lies
        assert (flat.data != kept).nonzero().flatten().tolist() == list(range(start, start + each.numel()))
        flat.data.copy_(kept)
        start += each.numel()
    flat.data.mul_(1.5)
    assert log_std.tolist() == [-0.75, -0.75]
    for part, wanted in zip(parts, before, strict=True):
        assert not torch.equal(said(part), wanted)
        copied = copy.deepcopy(part)
        assert torch.equal(said(copied), said(part))
        for parameter in copied.parameters():
            parameter.data.zero_()
        assert not said(copied).any() and said(part).any()


@pytest.mark.parametrize("lstm", [0, 6])
def test_gradients_arrive_in_the_flat_vector_after_each_zeroing(lstm: int) -> None:
    torch.manual_seed(0)
    network = Network(NetSpec({"x": (3,)}, (8,), 2, lstm=lstm))
    reference = copy.deepcopy(network)
    flat = flatten(network)
    optimizer = torch.optim.Adam([flat], 1e-2, fused=True)
    slow = torch.optim.Adam(reference.parameters(), 1e-2)
    for _ in range(3):
        for each, its in ((network, optimizer), (reference, slow)):
            output = each.unroll(SEQUENCES, torch.zeros(4, 12))[0] if lstm else each(X)
            its.zero_grad(set_to_none=False)
            torch.autograd.backward((output - 1).square().mean())
            its.step()
    assert flat.grad is not None and flat.grad.any()
    torch.testing.assert_close(flat.data, nn.utils.parameters_to_vector(reference.parameters()).data)


def test_the_last_layers_start_small_or_as_torch_has_them() -> None:
    spec = NetSpec({"x": (100,)}, (100,), 40, dueling=(4,))
    for last, least, most in ((3e-3, 0.0029, 0.003), (None, 0.09, 0.1)):
        network = Network(spec, last=last)
        for group in ("value", "head"):
            hidden, final = network.groups[group]
            assert least < largest(final) <= most
            assert 0.09 < largest(hidden) <= 0.1  # 1 / sqrt(100)


def largest(module: nn.Module) -> float:
    return max(float(parameter.detach().abs().max()) for parameter in module.parameters())


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_orthogonal_start_has_a_gain_of_sqrt_2_and_its_own_in_the_last_layer(
    activation: Literal["relu", "tanh"],
) -> None:
    network = Network(NetSpec({"x": (20,), "eye": (3, 20, 20)}, (10,), 4, activation, conv="simple", lstm=6),
                      "orthogonal", last=0.01)  # fmt: skip
    gains = {"image0.0": math.sqrt(2), "image0.1": math.sqrt(2), "body.0": math.sqrt(2), "lstm.0": 1.0, "head.0": 0.01}
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:
            assert not parameter.any()
            continue
        values = torch.linalg.svdvals(parameter.detach().flatten(1))
        torch.testing.assert_close(values, torch.full_like(values, gains[".".join(name.split(".")[:2])]))


def nature(x: Tensor, w: list[Tensor]) -> Tensor:
    """Mnih et al. 2015, methods, "Model architecture"."""
    x = conv2d(x, w[0], w[1], stride=4).relu()
    x = conv2d(x, w[2], w[3], stride=2).relu()
    return conv2d(x, w[4], w[5], stride=1).relu()


def simple(x: Tensor, w: list[Tensor]) -> Tensor:
    """SimpleVisualEncoder of ML-Agents, with relu."""
    return conv2d(conv2d(x, w[0], w[1], stride=4).relu(), w[2], w[3], stride=2).relu()


def impala(x: Tensor, w: list[Tensor]) -> Tensor:
    """Espeholt et al. 2018, figure 3, the large network."""
    for i in range(0, 30, 10):
        x = max_pool2d(conv2d(x, w[i], w[i + 1], padding=1), 3, stride=2, padding=1)
        for j in (i + 2, i + 6):
            block = conv2d(x.relu(), w[j], w[j + 1], padding=1)
            x = x + conv2d(block.relu(), w[j + 2], w[j + 3], padding=1)
    return x.relu()


@pytest.mark.parametrize(
    ("conv", "paper", "filters"),
    [
        ("simple", simple, [(16, 8), (32, 4)]),
        ("nature", nature, [(32, 8), (64, 4), (64, 3)]),
        ("impala", impala, [(16, 3)] * 5 + [(32, 3)] * 10),
    ],
)
def test_the_encoders_are_those_of_their_papers(
    conv: Literal["simple", "nature", "impala"],
    paper: Callable[[Tensor, list[Tensor]], Tensor],
    filters: list[tuple[int, int]],
) -> None:
    network = Network(NetSpec({"eye": (3, 44, 61)}, (), 2, conv=conv), last=0.1)
    *weights, head, bias = network.parameters()
    assert [(each.shape[0], each.shape[2]) for each in weights[::2]] == filters
    eye = torch.rand(2, 3, 44, 61)
    wanted = paper(eye, [each.data for each in weights]).flatten(1) @ head.T + bias
    torch.testing.assert_close(network({"eye": eye}), wanted)


def test_an_lstm_unrolled_in_two_parts_is_one_unrolled_at_once() -> None:
    network = Network(NetSpec({"x": (3,)}, (8,), 2, lstm=6), last=None)
    outputs, state = network.unroll(SEQUENCES, torch.zeros(4, 12))
    first, halfway = network.unroll({VECTOR: SEQUENCES[VECTOR][:, :2]}, torch.zeros(4, 12))
    second, end = network.unroll({VECTOR: SEQUENCES[VECTOR][:, 2:]}, halfway)
    torch.testing.assert_close(torch.cat([first, second], dim=1), outputs)
    torch.testing.assert_close(end, state)


def test_a_quantile_multiplies_its_cosines_embedding_into_the_encoding() -> None:
    """psi(x) * relu(sum_i cos(pi i tau) w_ij + b_j), i from 0: Dabney et al. 2018, eq. 4."""
    network = Network(NetSpec({"x": (3,)}, (5,), 2, cosines=4), last=None)
    taus = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.0, 1.0], [0.3, 0.7]])
    got = network(X, taus=taus)
    (embedding,), (hidden, final) = network.groups["cosine"], network.groups["head"]
    assert isinstance(embedding, nn.Linear) and got.shape == (4, 2, 2)
    for n in range(4):
        for k in range(2):
            cosines = torch.tensor([math.cos(math.pi * i * float(taus[n, k])) for i in range(4)])
            phi = torch.relu(embedding.weight @ cosines + embedding.bias)
            torch.testing.assert_close(got[n, k], final(hidden(X[VECTOR][n] * phi)))
