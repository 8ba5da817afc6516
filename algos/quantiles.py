"""Quantile regression: what a distribution is learned by, if the network says its quantiles."""

from __future__ import annotations

import torch
from torch import Tensor


def quantile_huber(said: Tensor, target: Tensor, fractions: Tensor) -> Tensor:
    """(n, branches): sum_i mean_j |tau_i - 1{u_ij < 0}| L(u_ij), u_ij = target_j - said_i (Dabney et al. 2018, eq. 10).

    `said` (n, branches, N), at the fractions tau, (n or 1, 1, N), of all returns; `target` (n, branches, M). L is
    Huber's loss with kappa 1.
    """
    u = target.unsqueeze(2) - said.unsqueeze(3)
    within = u.detach().clamp(-1, 1)
    huber = within * (u - 0.5 * within)
    weight = (fractions.unsqueeze(3) - (within < 0).to(u.dtype)).abs_()
    return torch.mul(weight, huber).mean(3).sum(2)
