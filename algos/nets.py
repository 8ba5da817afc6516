"""Networks in torch: what core.net describes, trainable."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from core.net import NORMALIZED_LIMIT, NetSpec

_SMALLEST_VARIANCE = 1e-8


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int, activation: str = "relu", last: float = 3e-3) -> nn.Module:
    """(n, inputs) -> (n, outputs). Weights uniform by fan-in, of the last layer within +-`last`, so that first outputs
    are near zero (Lillicrap et al. 2016, section 7)."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU() if activation == "relu" else nn.Tanh()]
    final = nn.Linear(sizes[-1], outputs)
    nn.init.uniform_(final.weight, -last, last)
    nn.init.uniform_(final.bias, -last, last)
    return nn.Sequential(*layers, final)


def flatten(module: nn.Module) -> nn.Parameter:
    """Move all parameters of `module`, and their gradients, into one vector (P,), in their order.

    The module works on as before; an optimizer, a target's step or a publication then is one operation instead of
    one for each array.
    """
    parameters = list(module.parameters())
    flat = nn.Parameter(torch.cat([each.detach().reshape(-1) for each in parameters]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for each in parameters:
        end = start + each.numel()
        shape = each.shape
        each.data = flat.data[start:end].view(shape)
        each.grad = flat.grad[start:end].view(shape)
        start = end
    return flat


def concatenate(obs: dict[str, Tensor], spec: NetSpec) -> Tensor:
    """(n, spec.width): the observation fields side by side, in the spec's order."""
    fields = [obs[name].reshape(len(obs[name]), -1) for name in spec.inputs]
    return fields[0].float() if len(fields) == 1 else torch.cat([field.float() for field in fields], dim=1)


class Normalizer(nn.Module):
    """Running mean and variance of what it was shown, by the parallel update of Chan et al. (1979)."""

    mean: Tensor
    scale: Tensor
    _m2: Tensor
    _count: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))  # 1 / standard deviation
        self.register_buffer("_m2", torch.zeros(width))  # sum of squared distances from the mean
        self.register_buffer("_count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * self.scale).clamp(-NORMALIZED_LIMIT, NORMALIZED_LIMIT)

    @torch.no_grad()
    def show(self, x: Tensor) -> None:
        """Count (n, width) more observations in."""
        n, total = len(x), self._count + len(x)
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        delta = mean - self.mean
        self._m2 += variance * n + delta.square() * (self._count * n / total)
        self.mean += delta * (n / total)
        self._count.copy_(total)
        self.scale.copy_((self._m2 / total).clamp(min=_SMALLEST_VARIANCE).rsqrt())
