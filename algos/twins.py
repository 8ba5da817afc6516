"""Twin critics: clipped double Q-learning (Fujimoto et al. 2018, "Addressing function approximation error in
actor-critic methods", section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algos.nets import Network
from algos.said import Said, say_each
from core.net import NetSpec


class Twins(nn.Module):
    """Two critics of one spec that start apart; for images, each has an encoder of its own."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.one, self.other = Network(spec), Network(spec)

    def forward(self, obs: dict[str, Tensor], action: Tensor) -> Tensor:
        """What `prepare` returned, (n, ...) each, and (n, num_continuous) -> (2, n)"""
        return torch.cat([self.one(obs, action), self.other(obs, action)], dim=1).T

    def say(self, obs: dict[str, Tensor], action: Tensor) -> SaidTwice:
        """The same, with the way back (algos/said.py)."""
        return SaidTwice(*say_each((self.one, self.other), obs, action))


class SaidTwice:
    """`value` (2, n), and gradients by it."""

    def __init__(self, one: Said, other: Said) -> None:
        self._both = one, other
        self.value = torch.cat([one.value, other.value], dim=1).T

    def learn(self, grad: Tensor) -> None:
        for said, each in zip(self._both, grad, strict=True):
            said.learn(each.unsqueeze(1))

    def by_action(self, grad: Tensor) -> Tensor:
        """(n, num_continuous)"""
        one, other = (said.by_extra(each.unsqueeze(1)) for said, each in zip(self._both, grad, strict=True))
        return one + other
