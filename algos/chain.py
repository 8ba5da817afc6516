"""A chain of plain dense layers as one step of autograd: what most updates of small networks spend their time on.

The mathematics is that of torch.nn.Linear and its activation, layer after layer; left out is what autograd does around
each operation, which takes longer than the operations themselves where layers have 64 units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Link:
    """One layer of a chain: where its numbers and their gradients are, and its activation."""

    def __init__(self, layer: nn.Linear, activation: str) -> None:
        self.weight, self.bias, self.activation = layer.weight, layer.bias, activation


class Chain(torch.autograd.Function):
    """x (n, inputs) -> (n, outputs) through `links`; the gradient of parameters is added to their `.grad` at once.

    `anchor`: a parameter of the chain that asks for gradients, so that autograd comes by, also where x asks for none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor | None, links: Sequence[Link]) -> Tensor:
        ctx.links, ctx.trains = links, anchor is not None
        seen = [x]
        for link in links:
            y = torch.addmm(link.bias, seen[-1], link.weight.t())
            if link.activation == "relu":
                y.relu_()
            elif link.activation == "tanh":
                y.tanh_()
            seen.append(y)
        ctx.save_for_backward(*seen)
        return seen[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        seen = ctx.saved_tensors
        for place in reversed(range(len(ctx.links))):
            link, x, y = ctx.links[place], seen[place], seen[place + 1]
            if link.activation == "relu":
                grad = torch.ops.aten.threshold_backward(grad, y, 0)
            elif link.activation == "tanh":
                grad = torch.ops.aten.tanh_backward(grad, y)
            if ctx.trains:
                link.weight.grad.addmm_(grad.t(), x)
                link.bias.grad.add_(grad.sum(0))
            if place or ctx.needs_input_grad[0]:
                grad = grad @ link.weight
        return (grad if ctx.needs_input_grad[0] else None), None, None
