"""Twin delayed DDPG: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods".

Deviations from the paper: observations normalised by running statistics; last layers start near zero; networks of 256
and 256 units and batches of 256 instead of 400, 300 and 100; targets follow twice as fast; fewer updates for each
decision; the ring holds fewer steps. docs/algos/td3.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from algos.config import OffPolicy, only_continuous, require_sigma
from algos.graphs import Graphs
from algos.nets import Network, Normalizer, flatten, prepare
from algos.optimizer import Optimizer
from algos.said import say
from algos.twins import Twins
from core.acting import PolicySpec
from core.types import Batch, EnvSpec, Learned, Recording, changeable, require


@dataclass(frozen=True)
class Config(OffPolicy):
    """TD3. Fractions and rates are per update; steps are agent steps."""

    warmup: int = 10_000
    """agent steps with uniformly random actions before the first update"""
    replay_ratio: float = changeable(64.0)
    """how often a decision is sampled on average; 0: collect only"""
    tau: float = changeable(0.01)
    """fraction by which the target networks follow whenever the actor learns"""
    actor_lr: float = changeable(1e-3)
    """Adam's learning rate for the actor"""
    critic_lr: float = changeable(1e-3)
    """Adam's learning rate for both critics"""
    sigma: float = changeable(0.1)
    """standard deviation of the noise on actions in [-1, 1] while training"""
    target_sigma: float = changeable(0.2)
    """standard deviation of the noise on the target actor's actions"""
    target_clip: float = changeable(0.5)
    """most that this noise may change an action"""
    policy_delay: int = changeable(2)
    """updates of the critics for each one of the actor and the targets"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.tau", self.tau, 0 < self.tau <= 1, "above 0, at most 1")
        require("--algo.actor-lr", self.actor_lr, 0 < self.actor_lr < 1, "above 0, below 1")
        require("--algo.critic-lr", self.critic_lr, 0 < self.critic_lr < 1, "above 0, below 1")
        require("--algo.target-sigma", self.target_sigma, 0 <= self.target_sigma <= 10, "from 0 to 10")
        require("--algo.target-clip", self.target_clip, 0 <= self.target_clip <= 2, "from 0 to 2")
        require("--algo.policy-delay", self.policy_delay, self.policy_delay >= 1, "at least 1")
        require_sigma(self.sigma)


class TD3:
    """DDPG with two critics, of which the lower counts, around smoothed actions; the actor learns less often."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_continuous("TD3", spec)
        self.config = config
        self.recording = Recording(config.gamma, config.n_step)
        net = config.net(spec, spec.action.num_continuous, extras={"sigma": 1})
        critic = replace(net, extra=net.outputs, outputs=1, extras={})
        self.policy_spec = PolicySpec(net, "tanh")
        self.normalizer = Normalizer(net.width).to(device)
        self.actor, self.critics = Network(net).to(device), Twins(critic).to(device)
        self.target_actor, self.target_critics = Network(net).to(device), Twins(critic).to(device)
        self._actor, self._critics = flatten(self.actor), flatten(self.critics)
        self._target_actor, self._target_critics = flatten(self.target_actor), flatten(self.target_critics)
        self._target_actor.data.copy_(self._actor.data)
        self._target_critics.data.copy_(self._critics.data)
        self._actor_optimizer = Optimizer(self._actor)
        self._critic_optimizer = Optimizer(self._critics)
        self.optimizers = (self._actor_optimizer, self._critic_optimizer)
        self.graphs = Graphs(device)
        self._updates = 0
        self._actor_loss = torch.full((), torch.nan, device=device)  # of the last time that the actor learned

    def update(self, batch: Batch) -> Learned:
        """One update of the critics, and every few of actor and targets (algorithm 1 of the paper)."""
        config = self.config
        obs, metrics, td_error = self.graphs.run(self._learn_critics, config, batch)
        self._updates += 1
        if self._updates % config.policy_delay == 0:  # when the critics are less wrong
            self._actor_loss = self.graphs.run(self._learn_actor, config, batch, obs)
        return Learned({**metrics, "actor_loss": self._actor_loss}, td_error)

    @torch.inference_mode()
    def _learn_critics(self, config: Config, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Towards the reward plus the lower of what the targets say around the target actor's action.

        Returns the observations for the actor, metrics, and (n,) absolute TD errors.
        """
        self.normalizer.show(batch.obs, self.policy_spec.net)
        obs, next_obs = (prepare(each, self.policy_spec.net, self.normalizer) for each in (batch.obs, batch.next_obs))
        next_action = self.target_actor(next_obs).tanh()
        noise = config.target_sigma * torch.randn_like(next_action)
        next_action += noise.clamp(-config.target_clip, config.target_clip)
        next_q = self.target_critics(next_obs, next_action.clamp(-1, 1)).amin(dim=0)
        target = batch.reward + batch.discount * next_q
        critics = self.critics.follow(obs, batch.action, target, batch.weight)
        self._critic_optimizer.step(critics.loss, config, config.critic_lr, batch.agent_steps)
        return obs, {"critic_loss": critics.loss, "q": critics.q}, critics.td_error

    @torch.inference_mode()
    def _learn_actor(self, config: Config, batch: Batch, obs: dict[str, Tensor]) -> Tensor:
        """Climb the first critic, by the chain rule; the targets follow slowly. Returns the loss."""
        actor = say(self.actor, obs)
        action = actor.value.tanh()
        critic = say(self.critics.one, obs, action)
        by_action = critic.by_extra(torch.full_like(critic.value, -1 / len(action)))
        actor.learn(by_action * (1 - action.square()))
        loss = -critic.value.mean()
        self._actor_optimizer.step(loss, config, config.actor_lr, batch.agent_steps)
        self._target_critics.data.lerp_(self._critics.data, config.tau)
        self._target_actor.data.lerp_(self._actor.data, config.tau)
        return loss

    def policy_parameters(self) -> Tensor:
        sigma = self._actor.new_tensor([self.config.sigma])
        return torch.cat([*self.normalizer.shipped(self.policy_spec.net), self._actor.data, sigma])

    def state_dict(self) -> dict[str, Any]:
        return {
            "normalizer": self.normalizer.state_dict(),
            "actor": self._actor.data,
            "critics": self._critics.data,
            "target_actor": self._target_actor.data,
            "target_critics": self._target_critics.data,
            "actor_optimizer": self._actor_optimizer.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
            "updates": self._updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.normalizer.load_state_dict(state["normalizer"])
        for name in ("actor", "critics", "target_actor", "target_critics"):
            getattr(self, f"_{name}").data.copy_(state[name])
        self._actor_optimizer.load_state_dict(state["actor_optimizer"])
        self._critic_optimizer.load_state_dict(state["critic_optimizer"])
        self._updates = state["updates"]
