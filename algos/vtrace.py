"""V-trace actor-critic: Espeholt et al. 2018, "IMPALA: scalable distributed deep-RL with importance weighted
actor-learner architectures".

Deviations from the paper: Adam instead of RMSProp; no LSTM; two networks instead of a shared one by default;
observations and rewards are normalised by running statistics; networks start orthogonal; the rows of a rollout are
shuffled into minibatches, whose targets are those of the rollout's beginning. docs/algos/vtrace.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.actor_critic import ActorCritic
from algos.config import OnPolicy
from algos.optimizer import Optimizer
from algos.returns import RewardScale, sum_backwards
from core.rollout import Rollout
from core.types import BoolArray, EnvSpec, FloatArray, Learned, Recording, changeable, require


@dataclass(frozen=True)
class Config(OnPolicy):
    """V-trace. Rates are per gradient step; steps are agent steps."""

    horizon: int = 16
    """decisions of each agent in one rollout, on average"""
    ahead: int = 1
    """rollouts that the workers may be ahead of the learner; 0: they wait while it learns"""
    lr: float = changeable(1e-3)
    """Adam's learning rate"""
    entropy: float = changeable(0.01)
    """weight of the policy's entropy, which is to be high"""
    batch_size: int = changeable(128)
    """rows in one gradient step, about"""
    rho_bar: float = changeable(1.0)
    """the most that an importance weight counts in a TD error and in the policy's gradient"""
    c_bar: float = changeable(1.0)
    """the most that an importance weight lets through of what comes later"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.batch-size", self.batch_size, self.batch_size >= 1, "at least 1")
        require("--algo.rho-bar", self.rho_bar, self.rho_bar > 0, "above 0")
        wish = f"above 0, at most --algo.rho-bar {self.rho_bar}"
        require("--algo.c-bar", self.c_bar, 0 < self.c_bar <= self.rho_bar, wish)


class VTrace:
    """A policy gradient and values that are right although the policy that acted is a little older."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        self.config, self._device = config, device
        self.recording = Recording(config.gamma, ordered=True)
        self.nets = ActorCritic(spec, config, device)
        self.policy_spec = self.nets.policy_spec
        self._optimizer = Optimizer(self.nets.flatten(), eps=1e-5)
        self.optimizers = (self._optimizer,)
        self._reward_scale = RewardScale(config.gamma)

    def update(self, rollout: Rollout) -> Learned:
        """Targets for the whole rollout, then a gradient step for each of its parts (section 4.2)."""
        config = self.config
        reward = self._reward_scale(rollout) if config.scale_reward else rollout.reward
        log_prob, value, next_value = self.nets.look_over(rollout)
        ratio = np.exp(log_prob - rollout.log_prob)
        traced = v_trace(
            reward, rollout.discount, value, next_value, ratio, rollout.follows, config.rho_bar, config.c_bar
        )
        target, advantage = (torch.from_numpy(each).to(self._device) for each in traced)

        random, updates = np.random.default_rng(int(torch.randint(2**62, ()))), 0
        for rows, batch in rollout.shuffled(config.batch_size, random):
            which = torch.from_numpy(rows)
            now = self.nets.judge(batch)
            policy_loss = -(advantage[which] * now.log_prob).mean()
            value_loss = 0.5 * (now.value - target[which]).square().mean()
            entropy = now.entropy.mean()
            loss = policy_loss + config.value_weight * value_loss - config.entropy * entropy
            self._optimizer.descend(loss, config, config.lr, rollout.agent_steps, len(rows))
            updates += 1
        self.nets.show(rollout)
        metrics = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "value": target.mean(),
            "ratio": torch.tensor(ratio.mean()),
            "truncated": torch.tensor((ratio > config.rho_bar).mean()),
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


def v_trace(
    reward: FloatArray,
    discount: FloatArray,
    value: FloatArray,
    next_value: FloatArray,
    ratio: FloatArray,
    follows: BoolArray,
    rho_bar: float,
    c_bar: float,
) -> tuple[FloatArray, FloatArray]:
    """(n,) targets v_s (eq. 1, by its recursion in remark 1) and (n,) rho_s (r_s + gamma v_{s+1} - V(x_s)), the policy
    gradient's weights (section 4.2).

    `ratio`: pi(a|x) / mu(a|x), of the policy as it is and of the one that acted. Where no row follows, v_{s+1} is V.
    """
    rho, c = np.minimum(ratio, rho_bar), np.minimum(ratio, c_bar)
    td_error = rho * (reward + discount * next_value - value)
    correction = sum_backwards(td_error, discount * c * follows)  # v_s - V(x_s)
    next_target = next_value + np.append(correction[1:], np.float32(0)) * follows
    return value + correction, rho * (reward + discount * next_target - value)
