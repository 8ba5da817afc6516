"""Twin critics: clipped double Q-learning (Fujimoto et al. 2018, "Addressing function approximation error in
actor-critic methods", section 4.2)."""

from __future__ import annotations

from typing import NamedTuple

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
        """The same, with the way back to the action (algos/said.py)."""
        return SaidTwice(*say_each((self.one, self.other), obs, action))

    def follow(
        self, obs: dict[str, Tensor], action: Tensor, target: Tensor, weight: Tensor, factor: float = 1.0
    ) -> Followed:
        """Set the parameters' gradients to those of the loss: of both critics, `factor` times the mean of
        weight * (target - Q)^2; `target` and `weight` (n,)."""
        told = []
        # the second begins when the first has learned: the caches hold what one of them needs, but not both
        for critic in say_each((self.one, self.other), obs, action):
            q = critic.value.squeeze(1)
            td_error = target - q
            weighted = weight * td_error
            critic.learn((weighted * (-2 * factor / len(q))).unsqueeze(1))
            told.append((weighted.dot(td_error), q.mean(), td_error.abs()))
        loss, q, td_error = (one + other for one, other in zip(*told, strict=True))
        return Followed(loss * (factor / len(target)), q / 2, td_error / 2)


class Followed(NamedTuple):
    """How both critics stand to their target."""

    loss: Tensor
    """()"""
    q: Tensor
    """() mean of what they said"""
    td_error: Tensor
    """(n,) mean of the absolute errors"""


class SaidTwice:
    """`value` (2, n), and the gradient by what was done."""

    def __init__(self, one: Said, other: Said) -> None:
        self._both = one, other
        self.value = torch.cat([one.value, other.value], dim=1).T

    def by_action(self, grad: Tensor) -> Tensor:
        """(n, num_continuous)"""
        one, other = (said.by_extra(each.unsqueeze(1)) for said, each in zip(self._both, grad, strict=True))
        return one + other
