"""Discrete soft actor-critic: Christodoulou 2019, "Soft actor-critic for discrete action settings".

A policy that says the probability of each choice, two critics that value all of them, and a temperature that is moved
until the policy's entropy is what was asked for. All expectations over choices are sums, nothing is drawn.

Several branches: each has probabilities and values of its own, over the same hidden layers; losses are their means,
and there is one temperature. Choices that an action mask excludes have probability 0 and no value, and the entropy
asked for is a fraction of the highest that the allowed ones could have, row by row.

Deviations from the paper: that fraction is an option, 0.89 instead of 0.98, with which a policy can hardly prefer
anything; the temperature begins at 0.2 and stays within bounds; Huber's loss for the critics; the actor learns from
what the critics said before their step; observations normalised by running statistics; sizes and rates for small vector
observations. docs/algos/sac_discrete.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from algos.config import OffPolicy, only_discrete
from algos.discrete import Branches, pick
from algos.graphs import Graphs
from algos.nets import Network, Normalizer, flatten, prepare
from algos.optimizer import Optimizer
from core.acting import PolicySpec
from core.types import Batch, EnvSpec, Learned, Recording, changeable, require

_LOG_TEMPERATURE = (-10.0, 3.0)
"""beyond these a policy is as good as greedy or uniform; it should find back"""


@dataclass(frozen=True)
class Config(OffPolicy):
    """Discrete SAC. Fractions and rates are per update; steps are agent steps."""

    hidden: tuple[int, ...] = (128, 128)
    """width of each hidden layer, of actor and critics alike"""
    batch_size: int = 128
    """rows in one update"""
    replay_ratio: float = changeable(64.0)
    """how often a decision is sampled on average; 0: collect only"""
    tau: float = changeable(0.005)
    """fraction by which the target critics follow at each update"""
    actor_lr: float = changeable(3e-4)
    """Adam's learning rate for the actor"""
    critic_lr: float = changeable(1e-3)
    """Adam's learning rate for the critics"""
    temperature_lr: float = changeable(3e-4)
    """Adam's learning rate for the logarithm of the temperature; 0: it stays"""
    temperature: float = 0.2
    """what entropy is worth, at first"""
    entropy: float = changeable(0.89)
    """entropy asked for, as a fraction of that of a uniform choice among the allowed ones; less is more decided"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.tau", self.tau, 0 < self.tau <= 1, "above 0, at most 1")
        require("--algo.actor-lr", self.actor_lr, 0 < self.actor_lr < 1, "above 0, below 1")
        require("--algo.critic-lr", self.critic_lr, 0 < self.critic_lr < 1, "above 0, below 1")
        require("--algo.temperature-lr", self.temperature_lr, 0 <= self.temperature_lr < 1, "at least 0, below 1")
        require("--algo.temperature", self.temperature, 1e-4 <= self.temperature <= 20, "from 0.0001 to 20")
        require("--algo.entropy", self.entropy, 0 <= self.entropy < 1, "at least 0, below 1, which has no policy")


class SACDiscrete:
    """An actor that follows the critics' values as far as its entropy allows, and a temperature that sees to that."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_discrete("discrete SAC", spec)
        self.config = config
        self.recording = Recording(config.gamma, config.n_step)
        net = config.net(spec, sum(spec.action.branches))
        self.policy_spec = PolicySpec(net, "stochastic")
        self._branches = Branches(spec.action.branches, device)
        self.normalizer = Normalizer(net.width).to(device)
        self.actor = Network(net).to(device)
        self.critics, self.target_critics = ([Network(net).to(device) for _ in range(2)] for _ in range(2))
        self.log_temperature = nn.Parameter(torch.tensor(config.temperature, device=device).log())
        self._actor, self._critics, self._target_critics = (
            flatten(self.actor),
            flatten(*self.critics),
            flatten(*self.target_critics),
        )
        self._target_critics.data.copy_(self._critics.data)
        self._temperature = flatten(self.log_temperature)
        self._actor_optimizer = Optimizer(self._actor)
        self._critic_optimizer = Optimizer(self._critics)
        self._temperature_optimizer = Optimizer(self._temperature)
        self.optimizers = (self._actor_optimizer, self._critic_optimizer, self._temperature_optimizer)
        self.graphs = Graphs(device)

    def update(self, batch: Batch) -> Learned:
        """One update of critics, actor, temperature and targets (algorithm 1 of the paper)."""
        return self.graphs.run(self._learn, self.config, batch)

    def _learn(self, config: Config, batch: Batch) -> Learned:
        self.normalizer.show(batch.obs, self.policy_spec.net)
        obs, next_obs = (prepare(each, self.policy_spec.net, self.normalizer) for each in (batch.obs, batch.next_obs))
        temperature = self.log_temperature.detach().exp()

        # critics: towards the reward plus what the targets and the policy's entropy are worth next (equation 10)
        with torch.no_grad():
            next_likely, next_log = self._policy(next_obs, batch.next_obs)
            next_q = torch.minimum(*(self._spread(critic, next_obs) for critic in self.target_critics))
            next_v = (next_likely * (next_q - temperature * next_log)).sum(2)
            target = batch.reward.unsqueeze(1) + batch.discount.unsqueeze(1) * next_v
        both = [self._spread(critic, obs) for critic in self.critics]
        said = [pick(each, batch.choice) for each in both]
        errors = [functional.huber_loss(each, target, reduction="none") for each in said]
        critic_loss = (batch.weight.unsqueeze(1) * (errors[0] + errors[1])).mean()
        self._critic_optimizer.descend(critic_loss, config, config.critic_lr, batch.agent_steps)

        # actor: follow the critics, softly (equation 12)
        likely, log_likely = self._policy(obs, batch.obs)
        with torch.no_grad():
            q = torch.minimum(*both)
        actor_loss = (likely * (temperature * log_likely - q)).sum(2).mean()
        self._actor_optimizer.descend(actor_loss, config, config.actor_lr, batch.agent_steps)

        # temperature: less where there is more entropy than asked for (equation 11, for the logarithm)
        with torch.no_grad():
            entropy = -(likely * log_likely).sum(2)
            asked = config.entropy * self._branches.allowed(batch.obs).sum(2).log()
            surplus = (entropy - asked).mean()
        if config.temperature_lr:
            self._temperature_optimizer.descend(
                self.log_temperature * surplus, config, config.temperature_lr, batch.agent_steps
            )
            self._temperature.data.clamp_(*_LOG_TEMPERATURE)

        # targets: follow slowly
        self._target_critics.data.lerp_(self._critics.data, config.tau)
        td_error = torch.stack([(target - each.detach()).abs() for each in said]).mean((0, 2))
        metrics = {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "q": said[0].detach().mean(),
            "entropy": entropy.mean(),
            "temperature": temperature,
        }
        return Learned(metrics, td_error)

    def _spread(self, network: Network, obs: dict[str, Tensor]) -> Tensor:
        """(n, branches, largest) what the network says of each choice."""
        return self._branches.spread(network(obs))

    def _policy(self, obs: dict[str, Tensor], seen: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(n, branches, largest) probability of each choice and its logarithm, both 0 where it is not allowed."""
        allowed = self._branches.allowed(seen)
        log_likely = self._spread(self.actor, obs).masked_fill(~allowed, -torch.inf).log_softmax(2)
        return log_likely.exp(), log_likely.masked_fill(~allowed, 0)

    def policy_parameters(self) -> Tensor:
        return torch.cat([*self.normalizer.shipped(self.policy_spec.net), self._actor.data])

    def state_dict(self) -> dict[str, Any]:
        return {
            "normalizer": self.normalizer.state_dict(),
            "actor": self._actor.data,
            "critics": self._critics.data,
            "target_critics": self._target_critics.data,
            "temperature": self._temperature.data,
            "actor_optimizer": self._actor_optimizer.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
            "temperature_optimizer": self._temperature_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.normalizer.load_state_dict(state["normalizer"])
        for name in ("actor", "critics", "target_critics", "temperature"):
            getattr(self, f"_{name}").data.copy_(state[name])
        for name in ("actor", "critic", "temperature"):
            getattr(self, f"_{name}_optimizer").load_state_dict(state[f"{name}_optimizer"])
