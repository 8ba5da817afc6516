"""Dense layers in torch, and chains of them whose backward pass stands here instead of in autograd.

Of an update of two layers of 64 autograd is a third, of two of 256 an eighth: for each product it makes a node, a new
array and a further pass over memory. Without it the same few arrays serve again and again, and stay in the caches.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core import layers as described
from core.layers import LAYER_NORM_EPSILON

_FIRST_SIGMA = 0.5
_NARROW = 32
"""columns below which a product is found as its transpose"""
_WIDE = 128
"""rows and columns from which on a product is worth casting what is multiplied, where torch.autocast asks for that"""


class Dense(nn.Linear):
    """core.layers.Dense; sigma starts as in Fortunato et al. 2018, section 3.2."""

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, layer: described.Dense) -> None:
        super().__init__(layer.inputs, layer.outputs)
        self.layer = layer
        if layer.noisy:
            sigma = _FIRST_SIGMA / math.sqrt(layer.inputs)
            self.weight_sigma = nn.Parameter(torch.full_like(self.weight, sigma))
            self.bias_sigma = nn.Parameter(torch.full_like(self.bias, sigma))
            self.register_buffer("noise_in", torch.zeros(layer.inputs), persistent=False)
            self.register_buffer("noise_out", torch.zeros(layer.outputs), persistent=False)
        if layer.norm:
            self.norm_weight = nn.Parameter(torch.ones(layer.outputs))
            self.norm_bias = nn.Parameter(torch.zeros(layer.outputs))

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        y = functional.linear(x, self.weight, self.bias)
        if layer.noisy:
            y = y + functional.linear(x * self.noise_in, self.weight_sigma, self.bias_sigma) * self.noise_out
        if layer.norm:
            y = functional.layer_norm(y, (layer.outputs,), self.norm_weight, self.norm_bias, LAYER_NORM_EPSILON)
        if layer.activation == "none":
            return y
        return torch.relu(y) if layer.activation == "relu" else torch.tanh(y)


class Chain:
    """Plain dense layers, each on what the one before it says. The last has no activation."""

    def __init__(self, layers: Sequence[Dense]) -> None:
        self._links = tuple((each.weight, each.bias, each.layer.activation) for each in layers)

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> Chain | None:
        """None where something stands between weights and activation of one of the layers."""
        dense = [each for each in layers if isinstance(each, Dense) and not each.layer.noisy and not each.layer.norm]
        return cls(dense) if len(dense) == len(layers) else None

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, inputs of the first) -> (n, width) what each layer says, for one of the ways back."""
        said: list[Tensor] = []
        for weight, bias, activation in self._links:
            is_last = len(said) == len(self._links) - 1
            out = x.new_empty(len(x), len(bias)) if is_last else _SPARE.take(len(x), len(bias), x)
            if _is_cast(x, weight):
                x = _activate(_product(x, weight.t(), out).add_(bias), activation)
            elif activation == "relu":
                x = torch._addmm_activation(bias, x, weight.t(), out=out)  # one kernel on a GPU
            else:
                x = _activate(torch.addmm(bias, x, weight.t(), out=out), activation)
            said.append(x)
        return said

    def backward(self, x: Tensor, said: list[Tensor], grad: Tensor) -> None:
        """Set the gradients of all parameters: `grad` (n, outputs of the last) is of what was said of `x`."""
        for number, each in self._downwards(said, grad):
            weight, bias, _ = self._links[number]
            below = said[number - 1] if number else x
            assert weight.grad is not None and bias.grad is not None  # algos.nets.flatten makes them
            if below.shape[1] < _NARROW:
                weight.grad.copy_(_narrow(each.t(), below))
            else:
                _product(each.t(), below, weight.grad)
            torch.sum(each, 0, out=bias.grad)

    def backward_to(self, first: int, said: list[Tensor], grad: Tensor) -> Tensor:
        """(n, inputs - first) the gradient of the inputs from number `first` on; those of the parameters stay."""
        weight = self._links[0][0][:, first:]
        by_inputs = [_narrow(each, weight) for number, each in self._downwards(said, grad) if not number]
        return by_inputs[0]

    def forget(self, said: list[Tensor]) -> Tensor:
        """(n, outputs of the last) what the last layer said, from where no way goes back."""
        *hidden, last = said
        _SPARE.give(*hidden)
        return last

    def _downwards(self, said: list[Tensor], grad: Tensor) -> Iterator[tuple[int, Tensor]]:
        """From the last layer to the first: its number, and (n, outputs) the gradient before its activation. What it
        needed is spare again when the next is asked for."""
        for number in range(len(said) - 1, -1, -1):
            weight, _, activation = self._links[number]
            if activation == "relu":
                torch.ops.aten.threshold_backward.grad_input(grad, said[number], 0, grad_input=grad)
            elif activation == "tanh":
                torch.ops.aten.tanh_backward.grad_input(grad, said[number], grad_input=grad)
            is_hidden = number < len(said) - 1  # what belongs to the last one is the caller's
            if is_hidden:
                _SPARE.give(said[number])
            yield number, grad
            below = _product(grad, weight, _SPARE.take(len(grad), weight.shape[1], grad)) if number else grad
            if is_hidden:
                _SPARE.give(grad)
            grad = below


def _activate(x: Tensor, activation: str) -> Tensor:
    """In place."""
    return x.relu_() if activation == "relu" else x.tanh_() if activation == "tanh" else x


def _narrow(a: Tensor, b: Tensor) -> Tensor:
    """a @ b with few columns. BLAS goes along the rows of a result, and short ones take it up to five times as long."""
    return torch.mm(b.t(), a.t(), out=a.new_empty(b.shape[1], len(a))).t()


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """a @ b, into float32 in any case."""
    if _is_cast(a, b):
        dtype = torch.get_autocast_dtype(a.device.type)
        return out.copy_(torch.mm(a.to(dtype), b.to(dtype)))
    return torch.mm(a, b, out=out)  # which autocast leaves alone, because of `out`


def _is_cast(a: Tensor, b: Tensor) -> bool:
    return torch.is_autocast_enabled(a.device.type) and min(*a.shape, *b.shape) >= _WIDE


class _Spare:
    """Arrays between two uses."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, int, torch.device, torch.dtype], list[Tensor]] = {}

    def take(self, n: int, width: int, like: Tensor) -> Tensor:
        """(n, width), with whatever stood in it."""
        if arrays := self._arrays.get((n, width, like.device, like.dtype)):
            return arrays.pop()
        with torch.inference_mode(False):  # for whoever comes, in that mode or not
            return torch.empty(n, width, device=like.device, dtype=like.dtype)

    def give(self, *arrays: Tensor) -> None:
        for each in arrays:
            self._arrays.setdefault((len(each), each.shape[1], each.device, each.dtype), []).append(each)


_SPARE = _Spare()


@contextlib.contextmanager
def own_spare_arrays() -> Iterator[None]:
    """In it, spare arrays are others than outside: for what will go on using those that it was given."""
    global _SPARE
    before, _SPARE = _SPARE, _Spare()
    try:
        yield
    finally:
        _SPARE = before
