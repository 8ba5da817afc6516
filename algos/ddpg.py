"""Deep deterministic policy gradient: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning".

Deviations from the paper: Gaussian noise by default (Ornstein-Uhlenbeck, the paper's, is an option); observations
normalised by running statistics instead of batch normalisation inside the networks; the action enters the critic at
its first layer; no weight decay; sizes and rates for small vector observations. docs/algos/ddpg.md says why.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from algos.nets import Normalizer, concatenate, flatten, mlp
from core.acting import Noise, PolicySpec
from core.net import NetSpec
from core.types import Batch, EnvSpec, require


@dataclass(frozen=True)
class Config:
    """DDPG. Fractions and rates are per update; steps are agent steps."""

    gamma: float = 0.99
    """discount of the next step's value"""
    n_step: int = 1
    """rewards counted before the target network's estimate takes over"""
    tau: float = 0.01
    """fraction by which the target networks follow at each update"""
    actor_lr: float = 1e-3
    """Adam's learning rate for the actor"""
    critic_lr: float = 1e-3
    """Adam's learning rate for the critic"""
    batch_size: int = 128
    """rows in one update"""
    hidden: tuple[int, ...] = (64, 64)
    """width of each hidden layer, of actor and critic alike"""
    normalize: bool = True
    """normalise observations by their running mean and standard deviation"""
    warmup: int = 1000
    """agent steps with uniformly random actions before the first update"""
    noise: Literal["gaussian", "ornstein-uhlenbeck"] = "gaussian"
    """what is added to the actions while training"""
    sigma: float = 0.1
    """standard deviation of the noise, for actions in [-1, 1]"""
    theta: float = 0.15
    """Ornstein-Uhlenbeck noise: how fast it returns to zero"""

    def __post_init__(self) -> None:
        require("--algo.gamma", self.gamma, 0 <= self.gamma <= 1, "from 0 to 1")
        require("--algo.n-step", self.n_step, self.n_step >= 1, "at least 1")
        require("--algo.tau", self.tau, 0 < self.tau <= 1, "above 0, at most 1")
        require("--algo.actor-lr", self.actor_lr, 0 < self.actor_lr < 1, "above 0, below 1")
        require("--algo.critic-lr", self.critic_lr, 0 < self.critic_lr < 1, "above 0, below 1")
        require("--algo.batch-size", self.batch_size, self.batch_size >= 1, "at least 1")
        require("--algo.hidden", self.hidden, all(width >= 1 for width in self.hidden), "widths of at least 1")
        require("--algo.warmup", self.warmup, self.warmup >= 0, "at least 0")
        Noise(self.noise, self.sigma, self.theta)  # refuses what cannot be meant


class DDPG:
    """An actor that climbs the critic's estimate, a critic that learns from the targets' own, one step ahead."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        if not spec.action.num_continuous or spec.action.branches:
            raise ValueError(
                f"DDPG takes continuous actions; this environment has {spec.action.num_continuous} "
                f"and {len(spec.action.branches)} discrete branch(es) of sizes {list(spec.action.branches)}"
            )
        self.config = config
        inputs = {name: field.shape for name, field in spec.obs.items()}
        net = NetSpec(inputs, config.hidden, spec.action.num_continuous, normalize=config.normalize)
        self.policy_spec = PolicySpec(net, "tanh", Noise(config.noise, config.sigma, config.theta))
        self.normalizer = Normalizer(net.width).to(device)
        self.actor = mlp(net.width, net.hidden, net.outputs).to(device)
        self.critic = mlp(net.width + net.outputs, net.hidden, 1).to(device)
        self.target_actor = mlp(net.width, net.hidden, net.outputs).to(device)
        self.target_critic = mlp(net.width + net.outputs, net.hidden, 1).to(device)
        self._actor, self._critic = flatten(self.actor), flatten(self.critic)
        self._target_actor, self._target_critic = flatten(self.target_actor), flatten(self.target_critic)
        self._target_actor.data.copy_(self._actor.data)
        self._target_critic.data.copy_(self._critic.data)
        self._actor_optimizer = torch.optim.Adam([self._actor], config.actor_lr, fused=True)
        self._critic_optimizer = torch.optim.Adam([self._critic], config.critic_lr, fused=True)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update of critic, actor and targets (algorithm 1 of the paper, from "Sample a random minibatch" on)."""
        spec = self.policy_spec.net
        obs, next_obs = concatenate(batch.obs, spec), concatenate(batch.next_obs, spec)
        if spec.normalize:
            self.normalizer.show(obs)
            obs, next_obs = self.normalizer(obs), self.normalizer(next_obs)

        # critic: towards the reward plus what the targets say of the next state
        with torch.no_grad():
            next_action = self.target_actor(next_obs).tanh()
            next_q = self.target_critic(torch.cat([next_obs, next_action], dim=1)).squeeze(1)
            target = batch.reward + batch.discount * next_q
        q = self.critic(torch.cat([obs, batch.action], dim=1)).squeeze(1)
        critic_loss = mse_loss(q, target)
        self._critic_optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(critic_loss)
        self._critic_optimizer.step()

        # actor: climb Q along the action it would take now; the critic's own weights need no gradient here
        actor_loss = -self.critic(torch.cat([obs, self.actor(obs).tanh()], dim=1)).mean()
        self._actor_optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(actor_loss, inputs=list(self.actor.parameters()))
        self._actor_optimizer.step()

        # targets: follow slowly
        self._target_critic.data.lerp_(self._critic.data, self.config.tau)
        self._target_actor.data.lerp_(self._actor.data, self.config.tau)
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(), "q": q.detach().mean()}

    def policy_parameters(self) -> Tensor:
        if not self.config.normalize:
            return self._actor.data
        return torch.cat([self.normalizer.mean, self.normalizer.scale, self._actor.data])

    def state_dict(self) -> dict[str, Any]:
        return {
            "normalizer": self.normalizer.state_dict(),
            "actor": self._actor.data,
            "critic": self._critic.data,
            "target_actor": self._target_actor.data,
            "target_critic": self._target_critic.data,
            "actor_optimizer": self._actor_optimizer.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.normalizer.load_state_dict(state["normalizer"])
        for name in ("actor", "critic", "target_actor", "target_critic"):
            getattr(self, f"_{name}").data.copy_(state[name])
        self._actor_optimizer.load_state_dict(deepcopy(state["actor_optimizer"]))  # torch would share the tensors
        self._critic_optimizer.load_state_dict(deepcopy(state["critic_optimizer"]))
