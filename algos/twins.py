"""Twin critics: clipped double Q-learning (Fujimoto et al. 2018, "Addressing function approximation error in
actor-critic methods", section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algos.nets import Network
from core.net import NetSpec


class Twins(nn.Module):
    """Two critics of one spec that start apart; for images, each has an encoder of its own."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.one, self.other = Network(spec), Network(spec)

    def forward(self, obs: dict[str, Tensor], action: Tensor) -> Tensor:
        """What `prepare` returned, (n, ...) each, and (n, num_continuous) -> (2, n)"""
        return torch.cat([self.one(obs, action), self.other(obs, action)], dim=1).T
