"""Deep deterministic policy gradient: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning".

Deviations from the paper: Gaussian noise by default (Ornstein-Uhlenbeck, the paper's, is an option); observations
normalised by running statistics instead of batch normalisation inside the networks; the action enters the critic at
its first layer; no weight decay; sizes and rates for small vector observations. docs/algos/ddpg.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from algos.config import OffPolicy, only_continuous, require_sigma
from algos.graphs import Graphs
from algos.nets import Network, Normalizer, flatten, prepare
from algos.optimizer import Optimizer
from algos.said import say
from core.acting import Noise, PolicySpec
from core.types import Batch, EnvSpec, Learned, Recording, changeable, require


@dataclass(frozen=True)
class Config(OffPolicy):
    """DDPG. Fractions and rates are per update; steps are agent steps."""

    hidden: tuple[int, ...] = (64, 64)
    """width of each hidden layer, of actor and critic alike"""
    batch_size: int = 128
    """rows in one update"""
    tau: float = changeable(0.01)
    """fraction by which the target networks follow at each update"""
    actor_lr: float = changeable(1e-3)
    """Adam's learning rate for the actor"""
    critic_lr: float = changeable(1e-3)
    """Adam's learning rate for the critic"""
    noise: Literal["gaussian", "ornstein-uhlenbeck"] = "gaussian"
    """what is added to the actions while training"""
    sigma: float = changeable(0.1)
    """standard deviation of the noise, for actions in [-1, 1]"""
    theta: float = 0.15
    """Ornstein-Uhlenbeck noise: how fast it returns to zero"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.tau", self.tau, 0 < self.tau <= 1, "above 0, at most 1")
        require("--algo.actor-lr", self.actor_lr, 0 < self.actor_lr < 1, "above 0, below 1")
        require("--algo.critic-lr", self.critic_lr, 0 < self.critic_lr < 1, "above 0, below 1")
        require_sigma(self.sigma)
        Noise(self.noise, self.theta)  # refuses what cannot be meant


class DDPG:
    """An actor that climbs the critic's estimate, a critic that learns from the targets' own, one step ahead."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_continuous("DDPG", spec)
        self.config = config
        self.recording = Recording(config.gamma, config.n_step)
        net = config.net(spec, spec.action.num_continuous, extras={"sigma": 1})
        critic = replace(net, extra=net.outputs, outputs=1, extras={})
        self.policy_spec = PolicySpec(net, "tanh", Noise(config.noise, config.theta))
        self.normalizer = Normalizer(net.width).to(device)
        self.actor, self.critic = Network(net).to(device), Network(critic).to(device)
        self.target_actor, self.target_critic = Network(net).to(device), Network(critic).to(device)
        self._actor, self._critic = flatten(self.actor), flatten(self.critic)
        self._target_actor, self._target_critic = flatten(self.target_actor), flatten(self.target_critic)
        self._target_actor.data.copy_(self._actor.data)
        self._target_critic.data.copy_(self._critic.data)
        self._actor_optimizer = Optimizer(self._actor)
        self._critic_optimizer = Optimizer(self._critic)
        self.optimizers = (self._actor_optimizer, self._critic_optimizer)
        self.graphs = Graphs(device)

    def update(self, batch: Batch) -> Learned:
        """One update of critic, actor and targets (algorithm 1 of the paper, from "Sample a random minibatch" on)."""
        return self.graphs.run(self._learn, self.config, batch)

    @torch.inference_mode()
    def _learn(self, config: Config, batch: Batch) -> Learned:
        self.normalizer.show(batch.obs, self.policy_spec.net)
        obs, next_obs = (prepare(each, self.policy_spec.net, self.normalizer) for each in (batch.obs, batch.next_obs))

        # critic: towards the reward plus what the targets say of the next state
        next_action = self.target_actor(next_obs).tanh()
        next_q = self.target_critic(next_obs, next_action).squeeze(1)
        target = batch.reward + batch.discount * next_q
        critic = say(self.critic, obs, batch.action)
        q = critic.value.squeeze(1)
        td_error = target - q
        weighted = batch.weight * td_error
        critic_loss = weighted.dot(td_error) / len(q)
        critic.learn((weighted * (-2 / len(q))).unsqueeze(1))
        self._critic_optimizer.step(critic_loss, config, config.critic_lr, batch.agent_steps)

        # actor: climb Q along the action it would take now, by the chain rule (equation 6)
        actor = say(self.actor, obs)
        action = actor.value.tanh()
        critic = say(self.critic, obs, action)
        actor_loss = -critic.value.mean()
        by_action = critic.by_extra(torch.full_like(critic.value, -1 / len(q)))
        actor.learn(by_action * (1 - action.square()))
        self._actor_optimizer.step(actor_loss, config, config.actor_lr, batch.agent_steps)

        # targets: follow slowly
        self._target_critic.data.lerp_(self._critic.data, config.tau)
        self._target_actor.data.lerp_(self._actor.data, config.tau)
        return Learned({"critic_loss": critic_loss, "actor_loss": actor_loss, "q": q.mean()}, td_error.abs())

    def policy_parameters(self) -> Tensor:
        sigma = self._actor.new_tensor([self.config.sigma])
        return torch.cat([*self.normalizer.shipped(self.policy_spec.net), self._actor.data, sigma])

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
        self._actor_optimizer.load_state_dict(state["actor_optimizer"])
        self._critic_optimizer.load_state_dict(state["critic_optimizer"])
