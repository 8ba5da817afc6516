"""What the algorithms that read in order learn: a stochastic policy and what an observation is worth to it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algos.config import OnPolicy
from algos.nets import Network, Normalizer, concatenate, flatten, prepare
from algos.stochastic import Stochastic
from core.acting import PolicySpec
from core.group import joined
from core.rollout import Rollout
from core.types import Batch, EnvSpec, FloatArray


class Judgement(NamedTuple):
    """What the networks say of n rows."""

    log_prob: Tensor
    """(n,) of what was done"""
    entropy: Tensor
    """(n,) of the policy"""
    value: Tensor
    """(n,) of obs"""


class Outlook(NamedTuple):
    """The same of a whole rollout, without gradients, and what comes after each row."""

    log_prob: FloatArray
    """(n,) of what was done"""
    value: FloatArray
    """(n,) of obs"""
    next_value: FloatArray
    """(n,) of next_obs"""


class ActorCritic(nn.Module):
    """Two networks, or one whose last output is the value; the log standard deviations of continuous actions."""

    def __init__(self, spec: EnvSpec, config: OnPolicy, device: str) -> None:
        super().__init__()
        self._stochastic = Stochastic(spec.action, device)
        num_continuous = spec.action.num_continuous
        extras = {"log_std": num_continuous} if num_continuous else {}
        self._net = config.net(spec, self._stochastic.outputs + config.share, extras=extras)
        self.policy_spec = PolicySpec(self._net, "stochastic")
        self.normalizer = Normalizer(self._net.width)
        self.log_std = nn.Parameter(torch.full((num_continuous,), config.log_std))
        self.actor = Network(self._net, "orthogonal", 0.01)  # nearly the same probability for everything
        if config.share:
            head = self.actor.groups["head"][-1]
            assert isinstance(head, nn.Linear)
            nn.init.orthogonal_(head.weight.detach()[-1:])  # but not the value
            self.critic = None
        else:
            self.critic = Network(replace(self._net, outputs=1, extras={}), "orthogonal", 1.0)
        self.to(device)

    def forward(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What `prepare` returned -> (n, outputs) of the policy, (n,) values."""
        outputs = self.actor(obs)
        return outputs, outputs[:, -1] if self.critic is None else self.critic(obs).squeeze(1)

    def judge(self, batch: Batch) -> Judgement:
        """Log-probability and entropy of the batch's actions, value of its observations."""
        outputs, value = self(prepare(batch.obs, self._net, self.normalizer))
        return Judgement(*self._stochastic.judge(outputs, self.log_std, batch), value)

    @torch.no_grad()
    def look_over(self, rollout: Rollout) -> Outlook:
        """Log-probabilities and values as they are now, of all rows."""
        log_prob, value, next_value = (np.empty(len(rollout), np.float32) for _ in range(3))
        for where, batch in rollout.in_pieces():
            judged = self.judge(batch)
            log_prob[where], value[where] = judged.log_prob.cpu(), judged.value.cpu()
        next_value[:-1] = value[1:]  # the next row begins where this one ends
        for where, batch in rollout.in_pieces(np.flatnonzero(~rollout.follows)):  # but not here
            next_value[where] = self(prepare(batch.next_obs, self._net, self.normalizer))[1].cpu()
        return Outlook(log_prob, value, next_value)

    def show(self, rollout: Rollout) -> None:
        """Count the rollout in for normalisation. After learning from it: the policy that made it had not seen it."""
        if joined() is None:
            for _, batch in rollout.in_pieces():
                self.normalizer.show(batch.obs, self._net)
        elif self._net.normalize and self._net.width:  # at once: others have not as many pieces
            seen = [concatenate(batch.obs, self._net).clone() for _, batch in rollout.in_pieces()]
            self.normalizer.count(torch.cat(seen))

    def flatten(self) -> nn.Parameter:
        """All parameters as one vector, to be trained."""
        return flatten(self)

    def policy_parameters(self) -> Tensor:
        """(P,) what policy_spec.net needs: normalisation, network, log standard deviations."""
        shipped = self.normalizer.shipped(self._net)
        return torch.cat(
            [*shipped, *(each.detach().flatten() for each in self.actor.parameters()), self.log_std.detach()]
        )
