"""Proximal policy optimisation: Schulman et al. 2017, "Proximal policy optimization algorithms", with the generalised
advantages of Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation".

Deviations from the paper: advantages are normalised in each minibatch; observations and rewards are normalised by
running statistics; gradients are clipped; networks start orthogonal; the value's loss may be clipped; an update's
epochs may end early. docs/algos/ppo.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.actor_critic import ActorCritic
from algos.config import OnPolicy
from algos.joint import mean_of_ranks, moments
from algos.optimizer import Optimizer
from algos.returns import RewardScale, sum_backwards
from core.rollout import Rollout
from core.types import BoolArray, EnvSpec, FloatArray, Learned, Recording, changeable, require


@dataclass(frozen=True)
class Config(OnPolicy):
    """PPO. Rates are per gradient step; steps are agent steps."""

    epochs: int = changeable(10)
    """how often each row is learned from"""
    batch_size: int = changeable(64)
    """rows in one gradient step, about"""
    gae_lambda: float = changeable(0.95)
    """0: advantages from the next value alone, 1: from all rewards to come"""
    clip: float = changeable(0.2)
    """how far an action's probability may move, as a fraction of what it was, before its gradient stops"""
    clip_value: float = changeable(0.0)
    """how far a value may move from what it was before its gradient stops; 0: anywhere"""
    target_kl: float = changeable(0.0)
    """no further epoch once the policy has moved so far from the one that acted; 0: all epochs"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.epochs", self.epochs, self.epochs >= 1, "at least 1")
        require(
            "--algo.batch-size", self.batch_size, self.batch_size >= 2, "at least 2: advantages are normalised in it"
        )
        require("--algo.gae-lambda", self.gae_lambda, 0 <= self.gae_lambda <= 1, "from 0 to 1")
        require("--algo.clip", self.clip, 0 < self.clip < 1, "above 0, below 1")
        require("--algo.clip-value", self.clip_value, self.clip_value >= 0, "at least 0")
        require("--algo.target-kl", self.target_kl, self.target_kl >= 0, "at least 0")


class PPO:
    """A policy that moves a little from the one that acted, several times over the same rows."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        self.config, self._device = config, device
        self.recording = Recording(config.gamma, ordered=True)
        self.nets = ActorCritic(spec, config, device)
        self.policy_spec = self.nets.policy_spec
        self._optimizer = Optimizer(self.nets.flatten(), eps=1e-5)
        self.optimizers = (self._optimizer,)
        self._reward_scale = RewardScale(config.gamma)

    def update(self, rollout: Rollout) -> Learned:
        """Algorithm 1 of the paper, from "Compute advantage estimates" on."""
        config = self.config
        reward = self._reward_scale(rollout) if config.scale_reward else rollout.reward
        _, value, next_value = self.nets.look_over(rollout)
        advantages = gae(reward, rollout.discount, value, next_value, rollout.follows, config.gae_lambda)
        advantage, old_value = (torch.from_numpy(each).to(self._device) for each in (advantages, value))
        target = advantage + old_value

        random, updates = np.random.default_rng(int(torch.randint(2**62, ()))), 0
        for _ in range(config.epochs):
            kls = []
            for rows, batch in rollout.shuffled(config.batch_size, random):
                which = torch.from_numpy(rows)
                now = self.nets.judge(batch)

                # policy: climb the advantage, as long as the ratio is within the clip (eq. 7)
                assert batch.log_prob is not None
                log_ratio = now.log_prob - batch.log_prob
                ratio, a = log_ratio.exp(), advantage[which]
                mean, deviation = moments(a)
                a = (a - mean) / (deviation + 1e-8)
                policy_loss = -torch.minimum(ratio * a, ratio.clamp(1 - config.clip, 1 + config.clip) * a).mean()

                # value: towards the return (eq. 9)
                error = (now.value - target[which]).square()
                if config.clip_value:
                    old = old_value[which]
                    near = old + (now.value - old).clamp(-config.clip_value, config.clip_value)
                    error = torch.maximum(error, (near - target[which]).square())
                value_loss = 0.5 * error.mean()

                entropy = now.entropy.mean()
                loss = policy_loss + config.value_weight * value_loss - config.entropy * entropy
                self._optimizer.descend(loss, config, config.lr, rollout.agent_steps, len(rows))
                updates += 1
                with torch.no_grad():
                    kls.append((ratio - 1 - log_ratio).mean())
            kl = torch.stack(kls).mean()
            if config.target_kl and mean_of_ranks(kl).item() > config.target_kl:
                break
        self.nets.show(rollout)
        metrics = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "kl": kl,
            "clipped": ((ratio - 1).abs() > config.clip).float().mean(),
            "value": old_value.mean(),
        }
        return Learned(metrics, updates=updates)

    def policy_parameters(self) -> Tensor:
        return self.nets.policy_parameters()

    def state_dict(self) -> dict[str, Any]:
        return {
            "nets": self.nets.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "reward_scale": self._reward_scale.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nets.load_state_dict(state["nets"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._reward_scale.load_state_dict(state["reward_scale"])


def gae(
    reward: FloatArray,
    discount: FloatArray,
    value: FloatArray,
    next_value: FloatArray,
    follows: BoolArray,
    gae_lambda: float,
) -> FloatArray:
    """(n,) generalised advantages (Schulman et al. 2016, eq. 16): of TD errors, discounted by gamma lambda.

    What ends an episode early, or a rollout, ends the sum, but not what is expected to come: next_value stands for it.
    """
    td_error = reward + discount * next_value - value
    return sum_backwards(td_error, gae_lambda * discount * follows)
