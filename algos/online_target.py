"""A network that is trained and a slower copy of it that says what to learn: what the greedy algorithms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from algos.config import Greedy
from algos.graphs import Graphs
from algos.nets import Network, Normalizer, flatten
from algos.optimizer import Optimizer
from core.net import NetSpec
from core.types import Batch, Learned

Config = TypeVar("Config", bound=Greedy)


class OnlineTarget:
    """The two networks of one spec, what trains the one and moves the other, and what they are normalised by."""

    def __init__(self, net: NetSpec, config: Greedy, device: str) -> None:
        self._net = net
        self.normalizer = Normalizer(net.width).to(device)
        self.online, self.target = Network(net).to(device), Network(net).to(device)
        self._online, self._target = flatten(self.online), flatten(self.target)
        self._target.data.copy_(self._online.data)
        self.optimizer = Optimizer(self._online)
        self.graphs = Graphs(device)
        self._updates = 0
        self._epsilon = config.epsilon(0)

    def update(self, learn: Callable[[Config, Batch], Learned], config: Config, batch: Batch) -> Learned:
        """What `learn` does with the batch, a step of the online network; now and then one of the target after it."""
        learned = self.graphs.run(learn, config, batch)
        self._updates, self._epsilon = self._updates + 1, config.epsilon(batch.agent_steps)
        if self._updates % config.target_every == 0:
            self._target.data.lerp_(self._online.data, config.tau)
        return learned

    def policy_parameters(self) -> Tensor:
        """(P,) what the spec needs to act: normalisation, the online network, epsilon as it is by now."""
        epsilon = self._online.new_tensor([self._epsilon])
        return torch.cat([*self.normalizer.shipped(self._net), self._online.data, epsilon])

    def state_dict(self) -> dict[str, Any]:
        return {
            "normalizer": self.normalizer.state_dict(),
            "online": self._online.data,
            "target": self._target.data,
            "optimizer": self.optimizer.state_dict(),
            "updates": self._updates,
            "epsilon": self._epsilon,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.normalizer.load_state_dict(state["normalizer"])
        self._online.data.copy_(state["online"])
        self._target.data.copy_(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._updates, self._epsilon = state["updates"], state["epsilon"]
