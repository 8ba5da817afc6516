"""Networks in torch: what core.net describes, trainable. Both forward passes take the same steps in the same order."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from algos.dense import Chain, Dense
from core import layers as described
from core.group import joined
from core.layers import encode
from core.net import NORMALIZED_LIMIT, NetSpec, layers

VECTOR = ""
"""the vector's key among what `prepare` returns; images have their field's name"""
_SMALLEST_VARIANCE = 1e-8
FAR = 1e12
"""as which a number that is larger counts: sums of squares must stay within float32"""


def prepare(obs: dict[str, Tensor], spec: NetSpec, normalizer: Normalizer | None) -> dict[str, Tensor]:
    """What networks of `spec` take: the vector, by `normalizer` if the spec says so, and images, bytes as 0 to 1.

    Fields are (n, ...) or (n, T, ...), and so are the results; what the spec does not name is left out.
    """
    result: dict[str, Tensor] = {}
    if spec.vector:
        x = concatenate(obs, spec)
        result[VECTOR] = normalizer(x) if spec.normalize and normalizer else x
    for name in spec.images:
        image = obs[name]
        if image.is_cpu and image.dim() == 4:  # convolutions on a CPU take a tenth less time with channels last
            image = image.contiguous(memory_format=torch.channels_last)
        result[name] = image / 255 if image.dtype == torch.uint8 else image.float()
    return result


def concatenate(obs: dict[str, Tensor], spec: NetSpec) -> Tensor:
    """(..., spec.width): the vector, as it was observed."""
    fields = []
    for name, size in spec.vector.items():
        field, own = obs[name], len(spec.inputs[name])
        if own != 1:
            field = field.reshape(*field.shape[: field.dim() - own], size)
        fields.append(field.float())
    return fields[0] if len(fields) == 1 else torch.cat(fields, dim=-1)


class Network(nn.Module):
    """The network of a spec, without normalisation and extras. Its parameters have core.net.shapes' names and order."""

    def __init__(
        self, spec: NetSpec, init: Literal["fan-in", "orthogonal"] = "fan-in", last: float | None = 3e-3
    ) -> None:
        """fan-in: torch's own, the last layers within +-`last` unless None, so that first outputs are near zero
        (Lillicrap et al. 2016, section 7). orthogonal: by sqrt(2), the last layers by `last` (or 1), biases 0."""
        super().__init__()
        self.spec = spec
        self.groups: dict[str, tuple[nn.Module, ...]] = {}
        for group, members in layers(spec).items():
            self.groups[group] = tuple(_module(each) for each in members)
            self.add_module(group, nn.ModuleList(self.groups[group]))
        self._chain = self._as_chain()
        self._noisy = [each for each in self.modules() if isinstance(each, Dense) and each.layer.noisy]
        if init == "orthogonal":
            self._orthogonal(1.0 if last is None else last)
        elif last is not None:
            for final in self._finals():
                nn.init.uniform_(final.weight, -last, last)
                nn.init.uniform_(final.bias, -last, last)

    def forward(self, obs: dict[str, Tensor], extra: Tensor | None = None, taus: Tensor | None = None) -> Tensor:
        """What `prepare` returned, (n, ...) each, and (n, spec.extra) -> (n, outputs); with `taus` (n, K) of a network
        with cosines (n, K, outputs)."""
        if not torch.is_grad_enabled() and (chain := self.by_hand()):
            return chain.forget(chain.forward(self.encode(obs, extra)))
        x = self._body(obs, extra)
        for layer in self.groups["cosine"]:
            assert taus is not None
            multiples = torch.arange(self.spec.cosines, dtype=x.dtype, device=x.device) * math.pi
            x = x.unsqueeze(1) * layer(torch.cos(taus.unsqueeze(2) * multiples))
        return self._head(x)

    def unroll(self, obs: dict[str, Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        """What `prepare` returned, (n, T, ...) each, and (n, 2 * lstm) -> (n, T, outputs) and the state after T."""
        n, steps = next(iter(obs.values())).shape[:2]
        x = self._body({name: field.flatten(0, 1) for name, field in obs.items()})
        h, c = state.unsqueeze(0).chunk(2, dim=2)
        x, (h, c) = self.groups["lstm"][0](x.view(n, steps, x.shape[1]), (h.contiguous(), c.contiguous()))
        return self._head(x), torch.cat([h[0], c[0]], dim=1)

    def renoise(self, generator: torch.Generator | None = None) -> None:
        """Draw the noise of every noisy layer anew."""
        for layer in self._noisy:
            for noise in (layer.noise_in, layer.noise_out):
                noise.normal_(generator=generator)
                noise.copy_(noise.sign() * noise.abs().sqrt())

    def quiet(self) -> None:
        """No noise, as at the start."""
        for layer in self._noisy:
            layer.noise_in.zero_()
            layer.noise_out.zero_()

    def encode(self, obs: dict[str, Tensor], extra: Tensor | None = None) -> Tensor:
        """(n, inputs of the first dense layer)"""
        encoded = [obs[VECTOR]] if VECTOR in obs else []
        for number, name in enumerate(self.spec.images):
            convs = self.groups[f"image{number}"]
            encoded.append(encode(convs, self.spec.conv == "impala", obs[name], torch.relu, _pool).flatten(1))
        if extra is not None:
            encoded.append(extra)
        return encoded[0] if len(encoded) == 1 else torch.cat(encoded, dim=1)

    def _body(self, obs: dict[str, Tensor], extra: Tensor | None = None) -> Tensor:
        x = self.encode(obs, extra)
        for layer in self.groups["body"]:
            x = layer(x)
        return x

    def by_hand(self) -> Chain | None:
        """The whole of it, where that is plain dense layers, and torch is not to do anything else with them."""
        return None if self._compiled_call_impl is not None else self._chain

    def _as_chain(self) -> Chain | None:
        if self.spec.images or any(self.groups[each] for each in ("lstm", "cosine", "value")):
            return None
        return Chain.of([*self.groups["body"], *self.groups["head"]])

    def _head(self, x: Tensor) -> Tensor:
        value = x
        for layer in self.groups["head"]:
            x = layer(x)
        if not self.spec.dueling:
            return x
        for layer in self.groups["value"]:
            value = layer(value)
        sizes = list(self.spec.dueling)
        branches = torch.split(x.view(*value.shape[:-1], sum(sizes), value.shape[-1]), sizes, dim=-2)
        centred = [branch - branch.mean(dim=-2, keepdim=True) for branch in branches]
        return (value.unsqueeze(-2) + torch.cat(centred, dim=-2)).flatten(-2)

    def _finals(self) -> list[Dense]:
        """The layers whose numbers are the output."""
        lasts = [members[-1] for members in (self.groups["value"], self.groups["head"]) if len(members)]
        return [each for each in lasts if isinstance(each, Dense)]

    def _orthogonal(self, last: float) -> None:
        finals = self._finals()
        for module in self.modules():
            if isinstance(module, nn.LSTM):
                for parameter in module.parameters():
                    _ = nn.init.orthogonal_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
            elif isinstance(module, Dense | nn.Conv2d):
                nn.init.orthogonal_(module.weight, last if module in finals else math.sqrt(2))
                assert module.bias is not None
                nn.init.zeros_(module.bias)


def _module(layer: described.Layer) -> nn.Module:
    if isinstance(layer, described.Dense):
        return Dense(layer)
    if isinstance(layer, described.Lstm):
        return nn.LSTM(layer.inputs, layer.units, batch_first=True)
    return nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding)


def _pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, 2, 1)


def flatten(*parts: nn.Module | nn.Parameter) -> nn.Parameter:
    """Move all parameters of the parts, and their gradients, into one vector (P,), in their order.

    The parts work on as before; an optimizer, a target's step or a publication then is one operation instead of
    one for each array. Move modules to their device before.
    """
    parameters = [each for part in parts for each in ([part] if isinstance(part, nn.Parameter) else part.parameters())]
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


class Normalizer(nn.Module):
    """Running mean and variance of what it was shown, by Welford's update (1962), a batch at a time."""

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

    def shipped(self, spec: NetSpec) -> list[Tensor]:
        """What stands before a network's own parameters, if its spec says so."""
        return [self.mean, self.scale] if spec.normalize and spec.width else []

    def show(self, obs: dict[str, Tensor], spec: NetSpec) -> None:
        """Count in what is observed here, fields of (n, ...), if networks of `spec` want it normalised."""
        if spec.normalize and spec.width:
            self.count(concatenate(obs, spec))

    @torch.no_grad()
    def count(self, x: Tensor) -> None:
        """Count in (n, width) numbers, and those of all who learn together."""
        x = x.clamp(-FAR, FAR)
        before = x - self.mean
        if (group := joined()) is None:
            self._count += len(x)
            self.mean.addcmul_(before.mean(0), len(x) / self._count)
            self._m2 += before.mul_(x - self.mean).sum(0)
        else:
            wide = before.double()
            sums = torch.cat([wide.new_full((1,), len(x)), wide.sum(0), wide.square().sum(0)])
            group.sum(sums)
            total, squares = sums[1:].chunk(2)
            self._count += sums[0]
            moved = total / self._count
            self.mean += moved
            self._m2 += squares - moved * total  # the sum of (x - mean before) (x - mean after)
        self.scale.copy_((self._m2 / self._count).clamp_(min=_SMALLEST_VARIANCE).rsqrt_())
