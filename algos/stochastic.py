"""Stochastic policies in torch: what the head "stochastic" of core/acting.py acts with, for learners.

A normal distribution for each continuous action, with standard deviations that do not depend on the observation, and a
categorical one for each branch of discrete ones; all independent of each other, so that log-probabilities and entropies
add up. Continuous actions are clipped by the environment's side, not here: the density is that of what was said.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from algos.discrete import Branches, pick
from core.types import ACTION_MASK, ActionSpec, Batch

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Stochastic:
    """Log-probability and entropy of a batch's actions under a network's outputs."""

    def __init__(self, action: ActionSpec, device: str = "cpu") -> None:
        self.num_continuous = action.num_continuous
        self.outputs = action.num_continuous + sum(action.branches)
        """numbers that the network says: means first, then logits"""
        self._branches = Branches(action.branches, device) if action.branches else None
        self._ragged = len(set(action.branches)) > 1

    def judge(self, outputs: Tensor, log_std: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n,) log-probability of what the batch's agents did, and (n,) the policy's entropy."""
        if self._branches is None:
            return self._normal(outputs, log_std, batch)
        if not self.num_continuous:
            return self._categorical(outputs, self._branches, batch)
        normal, categorical = self._normal(outputs, log_std, batch), self._categorical(outputs, self._branches, batch)
        return normal[0] + categorical[0], normal[1] + categorical[1]

    def _normal(self, outputs: Tensor, log_std: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        distance = (batch.action - outputs[:, : self.num_continuous]) * (-log_std).exp()
        log_prob = -(0.5 * distance.square() + log_std + _HALF_LOG_2PI).sum(dim=1)
        return log_prob, (log_std + 0.5 + _HALF_LOG_2PI).sum().expand(len(outputs))

    def _categorical(self, outputs: Tensor, branches: Branches, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = branches.spread(outputs[:, self.num_continuous : self.outputs])
        if not self._ragged and ACTION_MASK not in batch.obs:
            log_likely = finite = logits.log_softmax(dim=2)
        else:
            log_likely = logits.masked_fill(~branches.allowed(batch.obs), -torch.inf).log_softmax(dim=2)
            # what cannot be chosen adds nothing to the entropy, where 0 times -inf would be no number
            finite = log_likely.masked_fill(log_likely == -torch.inf, 0)
        return pick(log_likely, batch.choice).sum(dim=1), -(log_likely.exp() * finite).sum(dim=(1, 2))
