"""Discrete actions in torch: one or several branches, of which some choices may be masked."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from core.types import ACTION_MASK


class Branches:
    """Puts what a network says of each choice, branch after branch in one row, into (n, branches, largest branch).

    Several branches are decided independently of each other (Tavakoli et al. 2018): each has a best choice of its own.
    """

    def __init__(self, sizes: tuple[int, ...], device: str = "cpu") -> None:
        self.sizes = sizes
        first, largest = list(accumulate(sizes, initial=0))[:-1], max(sizes)
        place = torch.arange(largest)
        self._is_there = torch.stack([place < size for size in sizes]).to(device)
        self._where = torch.stack([start + place.clamp(max=size - 1) for start, size in zip(first, sizes, strict=True)])
        self._where = self._where.to(device)
        self._first = torch.tensor(first, device=device)

    def spread(self, flat: Tensor) -> Tensor:
        """(n, sum of the sizes, ...) -> (n, branches, largest, ...); what is too much in a branch repeats its last."""
        return flat.unsqueeze(1) if len(self.sizes) == 1 else flat[:, self._where]

    def put(self, values: Tensor, choice: Tensor) -> Tensor:
        """(n, sum of the sizes, ...): the (n, branches, ...) `values` at each branch's (n, branches) choice, else 0."""
        index = (choice + self._first).view(*choice.shape, *[1] * (values.dim() - 2)).expand_as(values)
        flat = values.new_zeros(len(values), sum(self.sizes), *values.shape[2:])
        return flat.scatter_(1, index, values)

    def allowed(self, obs: dict[str, Tensor]) -> Tensor:
        """(n or 1, branches, largest) bool: which choices there are, and may be made now.

        In a branch where none may, as after an end, all may: what is thought of them there counts for nothing.
        """
        mask = obs.get(ACTION_MASK)
        if mask is None:
            return self._is_there.unsqueeze(0)
        allowed = self.spread(mask) & self._is_there
        return allowed | (self._is_there & ~allowed.any(dim=2, keepdim=True))

    def best(self, values: Tensor, obs: dict[str, Tensor]) -> Tensor:
        """(n, branches) the allowed choice with the highest of (n, branches, largest) `values`."""
        return values.masked_fill(~self.allowed(obs), -torch.inf).argmax(dim=2)


def pick(values: Tensor, choice: Tensor) -> Tensor:
    """(n, branches, ...) of (n, branches, largest, ...): what stands at each branch's (n, branches) choice."""
    index = choice.long().view(*choice.shape, 1, *[1] * (values.dim() - 3))
    return values.gather(2, index.expand(*choice.shape, 1, *values.shape[3:])).squeeze(2)
