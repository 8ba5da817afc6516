"""QR-DQN: Dabney, Rowland, Bellemare, Munos 2018, "Distributional reinforcement learning with quantile regression".

The network says N quantiles of the return of each choice, at the fixed fractions (2 i - 1) / 2 N of all returns; a
value is their mean.

Several branches: each has quantiles and targets of its own, over the same hidden layers; the loss is their mean.
Choices that an action mask excludes are neither made nor valued.

Deviations from the paper: the next choice is the network's, valued by the target (`double`; the paper has no such
variant); a row's priority, where replay is prioritised, is the difference of the means; sizes and rates for small
vector observations, 32 quantiles instead of 200. docs/algos/qrdqn.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algos.config import Greedy, only_discrete
from algos.discrete import Branches, pick
from algos.nets import Network, prepare
from algos.online_target import OnlineTarget
from algos.quantiles import quantile_huber
from core.acting import PolicySpec
from core.types import Batch, EnvSpec, Learned, Recording, require


@dataclass(frozen=True)
class Config(Greedy):
    """QR-DQN. Fractions and rates are per update; steps are agent steps."""

    quantiles: int = 32
    """of the return of each choice; the paper has 200"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.quantiles", self.quantiles, self.quantiles >= 1, "at least 1")


class QRDQN:
    """A network that says how the return of each choice is distributed, and a slower copy that says what to learn."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_discrete("QR-DQN", spec)
        self.config = config
        sizes, n = spec.action.branches, config.quantiles
        self.recording = Recording(config.gamma, config.n_step, priority=config.worker_priorities)
        net = config.net(
            spec, sum(sizes) * n, dueling=sizes if config.dueling else (), noisy=config.noisy, extras={"epsilon": 1}
        )
        self.policy_spec = PolicySpec(net, "greedy", ladder=config.ladder)
        self._branches = Branches(sizes, device)
        self._fractions = ((torch.arange(n, device=device) + 0.5) / n).view(1, 1, n)  # lemma 2
        self._networks = OnlineTarget(net, config, device)
        self.online, self.target = self._networks.online, self._networks.target
        self.normalizer = self._networks.normalizer
        self.optimizers, self.graphs = (self._networks.optimizer,), self._networks.graphs

    def update(self, batch: Batch) -> Learned:
        """One update of the network, and now and then of its target (algorithm 1 of the paper)."""
        return self._networks.update(self._learn, self.config, batch)

    def _learn(self, config: Config, batch: Batch) -> Learned:
        self.normalizer.show(batch.obs, self.policy_spec.net)
        obs, next_obs = (prepare(each, self.policy_spec.net, self.normalizer) for each in (batch.obs, batch.next_obs))

        # the target's quantiles of the best choice next, discounted, plus the reward
        with torch.no_grad():
            self.target.renoise()
            said = judge = self._says(self.target, next_obs)
            if config.double:
                self.online.renoise()
                judge = self._says(self.online, next_obs)
            later = pick(said, self._branches.best(judge.mean(3), batch.next_obs))
            target = batch.reward.view(-1, 1, 1) + batch.discount.view(-1, 1, 1) * later

        # quantile regression towards them
        self.online.renoise()
        quantiles = pick(self._says(self.online, obs), batch.choice)
        loss = (batch.weight * quantile_huber(quantiles, target, self._fractions).mean(1)).mean()
        self._networks.optimizer.descend(loss, config, config.lr, batch.agent_steps)
        value = quantiles.detach().mean(2)
        return Learned({"loss": loss.detach(), "q": value.mean()}, (target.mean(2) - value).abs().mean(1))

    def _says(self, network: Network, obs: dict[str, Tensor]) -> Tensor:
        """(n, branches, largest, quantiles)"""
        return self._branches.spread(network(obs).unflatten(1, (-1, self.config.quantiles)))

    def policy_parameters(self) -> Tensor:
        return self._networks.policy_parameters()

    def state_dict(self) -> dict[str, Any]:
        return self._networks.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._networks.load_state_dict(state)
