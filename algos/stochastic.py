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
from core.types import ActionSpec, Batch

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Stochastic:
    """Log-probability and entropy of a batch's actions under a network's outputs."""

    def __init__(self, action: ActionSpec, device: str = "cpu") -> None:
        self.num_continuous = action.num_continuous
        self.outputs = action.num_continuous + sum(action.branches)
        """numbers that the network says: means first, then logits"""
        self._branches = Branches(action.branches, device) if action.branches else None

    def judge(self, outputs: Tensor, log_std: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n,) log-probability of what the batch's agents did, and (n,) the policy's entropy."""
        mean = outputs[:, : self.num_continuous]
        distance = (batch.action - mean) * (-log_std).exp()
        log_prob = -(0.5 * distance.square() + log_std + _HALF_LOG_2PI).sum(dim=1)
        entropy = (log_std + 0.5 + _HALF_LOG_2PI).sum().expand(len(outputs))
        if self._branches is not None:
            logits = self._branches.spread(outputs[:, self.num_continuous : self.outputs])
            logits = logits.masked_fill(~self._branches.allowed(batch.obs), -torch.inf)
            log_likely = logits.log_softmax(dim=2)
            log_prob = log_prob + pick(log_likely, batch.choice).sum(dim=1)
            # what cannot be chosen adds nothing, where 0 times -inf would be no number
            surprise = log_likely.exp() * log_likely.masked_fill(log_likely == -torch.inf, 0)
            entropy = entropy - surprise.sum(dim=(1, 2))
        return log_prob, entropy
