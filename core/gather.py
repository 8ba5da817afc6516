"""Gather: rows of the ring, copied to one place and seen as the tensors of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.atomic import fence_acquire
from core.ring import Ring, Word
from core.types import Batch, BoolArray, IntArray, Rows

Where = slice | IntArray
"""which of a batch's places"""
ALL = slice(None)


class Gather:
    """Room for n rows and for the stacks of frames that they name; the same memory at each call."""

    def __init__(self, ring: Ring, n: int) -> None:
        self._ring = ring
        self.rows: Rows = np.zeros(n, ring.layout)
        """(n,)"""
        self._to = self.rows.view(f"V{ring.layout.itemsize}")  # whole rows, as opaque bytes
        self._from = ring.rows.reshape(-1).view(self._to.dtype)
        self._stacks = [_Stack(ring, self.rows, side, name) for side in _sides(ring) for name in ring.frames]
        self._raw = torch.from_numpy(self.rows.view("u1").reshape(n, -1))
        self._ones = torch.ones(n)

    def copy(self, lane: IntArray, index: IntArray, where: Where = ALL) -> None:
        """Copy the rows `index` of these lanes to `where`, each intact or torn: ask `torn` afterwards."""
        slots = index % self._ring.capacity + lane * self._ring.capacity
        if isinstance(where, slice):
            self._from.take(slots, out=self._to[where], mode="clip")
        else:
            self._to[where] = self._from[slots]
        for stack in self._stacks:
            stack.copy(lane, where)
        fence_acquire()

    def torn(self, lane: IntArray, index: IntArray, where: Where = ALL) -> BoolArray:
        """Which copied rows, or frames of theirs, a writer may have begun to overwrite."""
        ring = self._ring
        torn: BoolArray = index < (ring.words[:, Word.CLAIMED] - ring.capacity)[lane]
        if self._stacks:
            oldest = (ring.words[:, Word.FRAMES_CLAIMED] - ring.num_frames)[lane]
            for stack in self._stacks:
                torn |= stack.first(where) < oldest
        return torn

    def batch(self, device: torch.device, count: int | None = None, weight: Tensor | None = None) -> Batch:
        """The first `count` places as tensors: on the CPU views, to another device one transfer."""
        here = slice(count)
        raw, stacks = self._raw[here], {(each.side, each.name): each.tensor[here] for each in self._stacks}
        weight = self._ones[here] if weight is None else weight
        if device.type != "cpu":
            raw, weight = raw.to(device), weight.to(device)
            stacks = {key: stack.to(device) for key, stack in stacks.items()}
        return as_batch(raw, self.rows.dtype, weight, stacks)


class _Stack:
    """One field of stacked frames, on one side of the rows."""

    def __init__(self, ring: Ring, rows: Rows, side: str, name: str) -> None:
        self.side, self.name = side, name
        self._rows, self._num_frames = rows, ring.num_frames
        numbers = rows[side][name]  # (n, k) of transitions, (n, T + 1, k) of sequences
        stack = np.zeros((*numbers.shape[:-1], *ring.spec.obs[name].shape), ring.frames[name].dtype)
        frames = ring.frames[name].reshape(ring.num_lanes * ring.num_frames, -1)
        self._from = frames.view(f"V{frames.shape[1] * frames.itemsize}")[:, 0]
        self._to = stack.reshape(len(rows), -1).view(self._from.dtype)  # (n, as many frames as numbers)
        self.tensor = torch.from_numpy(stack)

    def numbers(self, where: Where) -> npt.NDArray[np.int64]:
        """(m, frames of a row)"""
        numbers: npt.NDArray[np.int64] = self._rows[self.side][self.name][where]
        return numbers.reshape(len(numbers), -1)

    def first(self, where: Where) -> IntArray:
        """(m,) the oldest frame of each row."""
        oldest: IntArray = self.numbers(where)[:, 0]
        return oldest

    def copy(self, lane: IntArray, where: Where) -> None:
        slots = self.numbers(where) % self._num_frames + (lane * self._num_frames)[:, None]
        if isinstance(where, slice):
            self._from.take(slots, out=self._to[where], mode="clip")
        else:
            self._to[where] = self._from[slots]


def _sides(ring: Ring) -> list[str]:
    return [side for side in ("obs", "next_obs") if side in (ring.layout.names or ())]


def as_batch(raw: Tensor, layout: np.dtype[np.void], weight: Tensor, stacks: Mapping[tuple[str, str], Tensor]) -> Batch:
    """The fields of (n, row bytes) `raw`, without copying; (side, field) of stacked frames from `stacks`."""

    def take(fields: np.dtype[np.void], name: str, offset: int = 0, lead: tuple[int, ...] = ()) -> Tensor:
        """One field of the row, or (lead) of each of the structures in an array at `offset` in it."""
        assert fields.fields is not None
        dtype, place = fields.fields[name][:2]
        size = dtype.base.itemsize
        flat = raw.view(torch.from_numpy(np.empty(0, dtype.base)).dtype)
        strides = [flat.stride(0), *([fields.itemsize // size] if lead else [])]
        strides += [math.prod(dtype.shape[axis + 1 :]) for axis in range(len(dtype.shape))]
        return flat.as_strided((len(raw), *lead, *dtype.shape), strides, (offset + place) // size)

    def take_obs(side: str) -> dict[str, Tensor]:
        assert layout.fields is not None
        if side not in layout.fields:
            return {}
        dtype, place = layout.fields[side][:2]
        return {
            name: stacks[side, name] if (side, name) in stacks else take(dtype.base, name, place, dtype.shape)
            for name in dtype.base.names or ()
        }

    def maybe(name: str) -> Tensor | None:
        return take(layout, name) if name in (layout.names or ()) else None

    nothing = torch.zeros((len(raw), 0), device=raw.device)
    action, choice = maybe("action"), maybe("choice")
    return Batch(
        obs=take_obs("obs"),
        action=nothing if action is None else action,
        choice=nothing.int() if choice is None else choice,
        reward=take(layout, "reward"),
        discount=take(layout, "discount"),
        next_obs=take_obs("next_obs"),
        weight=weight,
        log_prob=maybe("log_prob"),
        valid=maybe("valid"),
        state=maybe("state"),
    )
