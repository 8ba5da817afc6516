"""What a network says, with the way back: for algorithms whose loss has a gradient that is a line of its paper.

    said = say(critic, obs, action)
    said.learn(d(loss) / d(said.value))                  # the parameters' gradients, set
    said.by_extra(d(loss) / d(said.value))               # d(loss) / d(action); the parameters' are left alone

Where a network is dense layers and nothing else it goes through algos.dense.Chain, else through autograd. One of the
two ways back is taken, once, in torch.inference_mode or in no_grad; in the former each operation is a little faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from algos.dense import Chain
from algos.nets import Network


class Said(Protocol):
    """One pass through a network."""

    @property
    def value(self) -> Tensor:
        """(n, outputs), without a graph"""

    def learn(self, grad: Tensor) -> None:
        """Set the gradients of all parameters; `grad` (n, outputs) is that of the loss by `value`."""

    def by_extra(self, grad: Tensor) -> Tensor:
        """(n, spec.extra) the gradient of the loss by the extra input."""


def say(network: Network, obs: dict[str, Tensor], extra: Tensor | None = None) -> Said:
    """What `prepare` returned, (n, ...) each, and (n, spec.extra)."""
    return next(say_each((network,), obs, extra))


def say_each(networks: Sequence[Network], obs: dict[str, Tensor], extra: Tensor | None = None) -> Iterator[Said]:
    """The same of several networks of one spec, each when it is asked for."""
    x: Tensor | None = None
    for network in networks:
        chain = network.by_hand()
        if chain is None:
            yield _ByAutograd(network, obs, extra)
        else:
            x = network.encode(obs, extra) if x is None else x  # no part of plain layers: the same for all
            yield _ByHand(chain, x, network.spec.width)


class _ByHand:
    def __init__(self, chain: Chain, x: Tensor, width: int) -> None:
        self._chain, self._x, self._width = chain, x, width
        self._said = chain.forward(x)
        self.value = self._said[-1]

    def learn(self, grad: Tensor) -> None:
        self._chain.backward(self._x, self._said, grad)

    def by_extra(self, grad: Tensor) -> Tensor:
        return self._chain.backward_to(self._width, self._said, grad)


class _ByAutograd:
    def __init__(self, network: Network, obs: dict[str, Tensor], extra: Tensor | None) -> None:
        self._parameters = list(network.parameters())
        with torch.inference_mode(False), torch.enable_grad():
            self._extra = None if extra is None else _ordinary(extra).detach().requires_grad_()
            self._output = network({name: _ordinary(field) for name, field in obs.items()}, self._extra)
            self.value = self._output.detach().float()

    def learn(self, grad: Tensor) -> None:
        for each in self._parameters:
            assert each.grad is not None  # algos.nets.flatten makes them
            each.grad.zero_()
        with torch.inference_mode(False):
            grad = _ordinary(grad).to(self._output.dtype)
            torch.autograd.backward(self._output, grad, inputs=self._parameters)

    def by_extra(self, grad: Tensor) -> Tensor:
        assert self._extra is not None
        with torch.inference_mode(False):
            grad = _ordinary(grad).to(self._output.dtype)
            return torch.autograd.grad(self._output, self._extra, grad)[0]


def _ordinary(tensor: Tensor) -> Tensor:
    """What was made in inference mode cannot become part of a graph; a copy can."""
    return tensor.clone() if tensor.is_inference() else tensor
