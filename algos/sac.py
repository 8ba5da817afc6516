"""Soft actor-critic: Haarnoja et al. 2018, "Soft actor-critic algorithms and applications" (arXiv 1812.05905).

Deviations from the paper: observations normalised by running statistics; last layers start near zero; log standard
deviations within core.acting's limits; higher learning rates; the temperature starts at 0.1 instead of 1; targets
follow twice as fast; fewer updates for each decision; the ring holds fewer steps. docs/algos/sac.md says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from algos.config import OffPolicy, only_continuous
from algos.graphs import Graphs
from algos.nets import Network, Normalizer, flatten, prepare
from algos.optimizer import Optimizer
from algos.said import say
from algos.twins import Twins
from core.acting import LOG_STD, PolicySpec
from core.types import Batch, EnvSpec, Learned, Recording, changeable, require

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_FIRST_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Config(OffPolicy):
    """SAC. Fractions and rates are per update; steps are agent steps."""

    warmup: int = 10_000
    """agent steps with uniformly random actions before the first update"""
    replay_ratio: float = changeable(64.0)
    """how often a decision is sampled on average; 0: collect only"""
    tau: float = changeable(0.01)
    """fraction by which the target networks follow at each update"""
    actor_lr: float = changeable(1e-3)
    """Adam's learning rate for the actor"""
    critic_lr: float = changeable(1e-3)
    """Adam's learning rate for both critics"""
    temperature: float = 0.0
    """what a nat of the policy's entropy is worth, in rewards; 0: whatever keeps the entropy at minus the number of
    actions"""
    temperature_lr: float = changeable(1e-3)
    """Adam's learning rate for the logarithm of a temperature that adapts"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.tau", self.tau, 0 < self.tau <= 1, "above 0, at most 1")
        require("--algo.actor-lr", self.actor_lr, 0 < self.actor_lr < 1, "above 0, below 1")
        require("--algo.critic-lr", self.critic_lr, 0 < self.critic_lr < 1, "above 0, below 1")
        require("--algo.temperature", self.temperature, 0 <= self.temperature < math.inf, "at least 0 and finite")
        require("--algo.temperature-lr", self.temperature_lr, 0 < self.temperature_lr < 1, "above 0, below 1")


class SAC:
    """A stochastic actor that climbs the lower of two critics and its own entropy; both count in what they learn."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_continuous("SAC", spec)
        self.config = config
        self.recording = Recording(config.gamma, config.n_step)
        net = config.net(spec, 2 * spec.action.num_continuous)  # a mean and a log standard deviation each
        critic = replace(net, extra=spec.action.num_continuous, outputs=1)
        self.policy_spec = PolicySpec(net, "squashed")
        self.normalizer = Normalizer(net.width).to(device)
        self.actor = Network(net).to(device)
        self.critics, self.target_critics = Twins(critic).to(device), Twins(critic).to(device)
        self._actor, self._critics = flatten(self.actor), flatten(self.critics)
        self._target_critics = flatten(self.target_critics)
        self._target_critics.data.copy_(self._critics.data)
        first = torch.tensor([math.log(config.temperature or _FIRST_TEMPERATURE)], device=device)
        self._log_temperature = flatten(nn.Parameter(first))
        self._target_entropy = -float(spec.action.num_continuous)
        self._actor_optimizer = Optimizer(self._actor)
        self._critic_optimizer = Optimizer(self._critics)
        self._temperature_optimizer = Optimizer(self._log_temperature)
        self.optimizers = (self._actor_optimizer, self._critic_optimizer, self._temperature_optimizer)
        self.graphs = Graphs(device)

    def update(self, batch: Batch) -> Learned:
        """One update of critics, actor, temperature and targets (algorithm 1 of the paper, its gradient step)."""
        return self.graphs.run(self._learn, self.config, batch)

    @torch.inference_mode()
    def _learn(self, config: Config, batch: Batch) -> Learned:
        self.normalizer.show(batch.obs, self.policy_spec.net)
        obs, next_obs = (prepare(each, self.policy_spec.net, self.normalizer) for each in (batch.obs, batch.next_obs))
        temperature = self._log_temperature.exp()

        # critics: towards the reward plus the lower of what the targets say, and the entropy, of a next action
        next = _Drawn(self.actor(next_obs))
        next_value = self.target_critics(next_obs, next.action).amin(dim=0) - temperature * next.log_prob
        target = batch.reward + batch.discount * next_value
        followed = self.critics.follow(obs, batch.action, target, batch.weight, factor=0.5)
        self._critic_optimizer.step(followed.loss, config, config.critic_lr, batch.agent_steps)

        # actor: climb the lower critic and the entropy
        actor = say(self.actor, obs)
        now = _Drawn(actor.value)
        critics = self.critics.say(obs, now.action)
        lower = critics.value.amin(dim=0)
        actor_loss = (temperature * now.log_prob - lower).mean()
        by_action = critics.by_action((critics.value == lower) * (-1 / len(target)))
        actor.learn(now.by_output(by_action, temperature / len(target)))
        self._actor_optimizer.step(actor_loss, config, config.actor_lr, batch.agent_steps)

        # temperature: down while the entropy is above its target, else up
        entropy = -now.log_prob.mean()
        if not config.temperature:
            assert self._log_temperature.grad is not None
            temperature_loss = (temperature * (entropy - self._target_entropy)).sum()  # of one
            self._log_temperature.grad.copy_(temperature_loss)  # the derivative of an exponential is itself
            self._temperature_optimizer.step(temperature_loss, config, config.temperature_lr, batch.agent_steps)

        # targets: follow slowly
        self._target_critics.data.lerp_(self._critics.data, config.tau)
        metrics = {
            "critic_loss": followed.loss,
            "actor_loss": actor_loss,
            "q": followed.q,
            "entropy": entropy,
            "temperature": temperature.squeeze(0),
        }
        return Learned(metrics, followed.td_error)

    def policy_parameters(self) -> Tensor:
        return torch.cat([*self.normalizer.shipped(self.policy_spec.net), self._actor.data])

    def state_dict(self) -> dict[str, Any]:
        return {
            "normalizer": self.normalizer.state_dict(),
            "actor": self._actor.data,
            "critics": self._critics.data,
            "target_critics": self._target_critics.data,
            "log_temperature": self._log_temperature.data,
            "actor_optimizer": self._actor_optimizer.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
            "temperature_optimizer": self._temperature_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.normalizer.load_state_dict(state["normalizer"])
        for name in ("actor", "critics", "target_critics", "log_temperature"):
            getattr(self, f"_{name}").data.copy_(state[name])
        for name in ("actor", "critic", "temperature"):
            getattr(self, f"_{name}_optimizer").load_state_dict(state[f"{name}_optimizer"])


class _Drawn:
    """Actions drawn from what the actor says, a mean and a log standard deviation each, and squashed into [-1, 1]."""

    def __init__(self, output: Tensor) -> None:
        mean, log_std = output.chunk(2, dim=1)
        self._log_std = log_std.clamp(*LOG_STD)
        self._is_free = self._log_std == log_std
        drawn = torch.randn_like(mean)
        self._moved = self._log_std.exp() * drawn
        before = mean + self._moved
        self.action = before.tanh()
        """(n, num_continuous)"""
        # log(1 - tanh(u)^2) in a form that does not overflow
        slope = 2 * (math.log(2) - before - functional.softplus(-2 * before))
        self.log_prob = -(0.5 * drawn.square() + self._log_std + _HALF_LOG_2PI + slope).sum(dim=1)
        """(n,) of the action (equation 26)"""

    def by_output(self, by_action: Tensor, by_log_prob: Tensor) -> Tensor:
        """(n, 2 num_continuous) the gradient of a loss by what the actor said; `by_log_prob`: the same for all rows.

        With a = tanh(u), u = mean + std * drawn: da/du is 1 - a^2, and d log_prob/du is 2 a, by the slope's.
        """
        by_before = by_action * (1 - self.action.square()) + 2 * by_log_prob * self.action
        by_log_std = (by_before * self._moved - by_log_prob) * self._is_free
        return torch.cat([by_before, by_log_std], dim=1)
