"""Means over the batch at hand: over those of all ranks, where several learners learn together (core/group.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from core.group import joined


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of (n,) `x`."""
    if (group := joined()) is None:
        return x.mean(), x.std(correction=0)
    wide = x.double()
    count, total, squares = group.sum(torch.stack([wide.new_tensor(len(x)), wide.sum(), wide.square().sum()]))
    mean = total / count
    return mean.to(x.dtype), (squares / count - mean.square()).clamp(min=0).sqrt().to(x.dtype)


def mean_of_ranks(x: Tensor) -> Tensor:
    """Of a number that each rank has; all decide alike by it."""
    if (group := joined()) is None:
        return x
    return group.sum(x.clone()) / group.size
