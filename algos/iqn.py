"""IQN: Dabney, Ostrovski, Silver, Munos 2018, "Implicit quantile networks for distributional reinforcement learning".

The network is asked for the return of each choice at any fractions of all returns, drawn anew for each row of each
update. Workers act by the mean at 32 evenly spaced ones (core/net.py).

Several branches: each has returns and targets of its own, over the same hidden layers; the loss is their mean.
Choices that an action mask excludes are neither made nor valued.

Deviations from the paper: the best choice next is that of the network (`double`), and by its mean at evenly spaced
fractions instead of random ones, fewer of them; a row's priority, where replay is prioritised, is the difference of the
means; risk-averse policies are left out; sizes and rates for small vector observations. docs/algos/iqn.md says why.
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
    """IQN. Fractions and rates are per update; steps are agent steps."""

    samples: int = 8
    """fractions at which the network is asked for the batch's own choices (the paper's N)"""
    target_samples: int = 8
    """fractions at which the target network is asked for the best choices next (the paper's N')"""
    choice_samples: int = 8
    """evenly spaced fractions by whose mean the best choices next are found; the paper has 32 random ones"""
    cosines: int = 64
    """cosines that a fraction is told to the network by"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "target_samples", "choice_samples", "cosines"):
            value = getattr(self, name)
            require(f"--algo.{name.replace('_', '-')}", value, value >= 1, "at least 1")


class IQN:
    """A network that says the return of each choice at any fraction of all, and a slower copy to learn from."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_discrete("IQN", spec)
        self.config = config
        sizes = spec.action.branches
        self.recording = Recording(config.gamma, config.n_step, priority=config.worker_priorities)
        net = config.net(
            spec,
            sum(sizes),
            dueling=sizes if config.dueling else (),
            noisy=config.noisy,
            cosines=config.cosines,
            extras={"epsilon": 1},
        )
        self.policy_spec = PolicySpec(net, "greedy", ladder=config.ladder)
        self._branches = Branches(sizes, device)
        k = config.choice_samples
        self._evenly = ((torch.arange(k, device=device) + 0.5) / k).unsqueeze(0)
        self._networks = OnlineTarget(net, config, device)
        self.online, self.target = self._networks.online, self._networks.target
        self.normalizer = self._networks.normalizer
        self.optimizers, self.graphs = (self._networks.optimizer,), self._networks.graphs

    def update(self, batch: Batch) -> Learned:
        """One update of the network, and now and then of its target (section 3.1 of the paper)."""
        return self._networks.update(self._learn, self.config, batch)

    def _learn(self, config: Config, batch: Batch) -> Learned:
        n = len(batch.reward)
        self.normalizer.show(batch.obs, self.policy_spec.net)
        obs, next_obs = (prepare(each, self.policy_spec.net, self.normalizer) for each in (batch.obs, batch.next_obs))

        # the target's returns of the best choice next, discounted, plus the reward
        with torch.no_grad():
            self.target.renoise()
            chooser = self.target
            if config.double:
                self.online.renoise()
                chooser = self.online
            best = self._branches.best(self._says(chooser, next_obs, self._evenly).mean(3), batch.next_obs)
            fractions = torch.rand(n, config.target_samples, device=batch.reward.device)
            later = pick(self._says(self.target, next_obs, fractions), best)
            target = batch.reward.view(-1, 1, 1) + batch.discount.view(-1, 1, 1) * later

        # equation 3: quantile regression towards them, at fractions of its own
        self.online.renoise()
        fractions = torch.rand(n, config.samples, device=batch.reward.device)
        returns = pick(self._says(self.online, obs, fractions), batch.choice)
        loss = (batch.weight * quantile_huber(returns, target, fractions.unsqueeze(1)).mean(1)).mean()
        self._networks.optimizer.descend(loss, config, config.lr, batch.agent_steps)
        value = returns.detach().mean(2)
        return Learned({"loss": loss.detach(), "q": value.mean()}, (target.mean(2) - value).abs().mean(1))

    def _says(self, network: Network, obs: dict[str, Tensor], fractions: Tensor) -> Tensor:
        """(n, branches, largest, K) at (n or 1, K) `fractions`."""
        return self._branches.spread(network(obs, taus=fractions).transpose(1, 2))

    def policy_parameters(self) -> Tensor:
        return self._networks.policy_parameters()

    def state_dict(self) -> dict[str, Any]:
        return self._networks.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._networks.load_state_dict(state)
