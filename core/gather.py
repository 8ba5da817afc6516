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
from core.types import Batch, BoolArray, FloatArray, IntArray, Rows

Where = slice | IntArray
"""which of a batch's places"""
ALL = slice(None)
CPU = torch.device("cpu")
_ZERO = np.array(0)


class Outbox:
    """Memory that is filled again and again, and sent to a device; where that is CUDA, nobody waits for the transfer
    but who fills it again."""

    def __init__(self, size: int, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self.memory = torch.zeros(size, dtype=torch.uint8, pin_memory=is_cuda)
        """(size,) bytes"""
        self._left = torch.cuda.Event() if is_cuda else None  # type: ignore[no-untyped-call]
        self._there: Tensor | None = None

    def make_ready(self) -> None:
        """Call it before the memory is filled: what was sent last has left it then."""
        if self._left is not None:
            self._left.synchronize()

    def send(self, device: torch.device, size: int | None = None) -> Tensor:
        """(size,) the first bytes there, in the same place at each call; on the CPU they are this memory itself."""
        here = self.memory[:size]
        if self._left is None:
            return here.to(device)
        if self._there is None:
            self._there = torch.empty_like(self.memory, device=device)
        there = self._there[:size].copy_(here, non_blocking=True)  # after all that was asked of the device before
        self._left.record(torch.cuda.current_stream(device))
        return there


class Gather:
    """Room for n rows and for the stacks of frames that they name; the same memory at each call."""

    def __init__(self, ring: Ring, n: int, device: torch.device = CPU) -> None:
        """`device`: where its batches will be sent."""
        self._ring = ring
        self._capacity = np.array(ring.capacity)  # as an array: numpy takes 0.2 us longer for a number of Python's
        # a writer may begin so many rows while a batch is being copied; drawing above it saves drawing again
        self._safe = np.array(ring.capacity - ring.capacity // 64)
        self._begin = -(-4 * n // 64) * 64  # of the rows, behind the weights
        self._outbox = Outbox(self._begin + n * ring.layout.itemsize, device)
        memory = self._outbox.memory.numpy()
        self.weight: FloatArray = memory[: 4 * n].view(np.float32)
        """(n,) that the batch will have; ones, unless somebody writes here"""
        self.weight[:] = 1.0
        self.rows: Rows = memory[self._begin :].view(ring.layout)
        """(n,)"""
        self._to = self.rows.view(f"V{ring.layout.itemsize}")  # whole rows, as opaque bytes
        self._from = ring.rows.reshape(-1).view(self._to.dtype)
        self._stacks = [_Stack(ring, self.rows, side, name, device) for side in _sides(ring) for name in ring.frames]
        self._index = self.rows["index"]
        self._here = self._parts(self._outbox.memory, n)
        self._batch: Batch | None = None

    def window(self) -> tuple[IntArray, IntArray]:
        """(lanes,) the oldest row that may be drawn, and the end of the newest."""
        ring = self._ring
        claimed, published = ring.load(Word.CLAIMED), ring.load(Word.PUBLISHED)  # so that no window can be negative
        return np.maximum(claimed - self._safe, _ZERO), published

    def copy(self, lane: IntArray, index: IntArray, where: Where = ALL) -> None:
        """Copy the rows `index` of these lanes to `where`, each intact or torn: ask `torn` afterwards."""
        slots = index % self._capacity + lane * self._capacity
        self._outbox.make_ready()
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
        torn: BoolArray = index < (ring.words[:, Word.CLAIMED] - self._capacity)[lane]
        if self._stacks:
            oldest = (ring.words[:, Word.FRAMES_CLAIMED] - ring.num_frames)[lane]
            for stack in self._stacks:
                torn |= stack.first(where) < oldest
        return torn

    def has(self, index: IntArray) -> bool:
        """Whether these are the rows that were copied."""
        return int(np.count_nonzero(self._index == index)) == len(index)

    def batch(self, device: torch.device, count: int | None = None) -> Batch:
        """The first `count` places as tensors: on the CPU views, to another device one transfer, and one a stack.

        All places are the same object at each call, with other numbers in it.
        """
        size = len(self.rows) if count is None else count
        raw, weight = self.send(device, size)
        stacks = {(each.side, each.name): each.send(device, size) for each in self._stacks}
        if count is not None:
            return as_batch(raw, self.rows.dtype, weight, stacks)
        if self._batch is None:
            self._batch = as_batch(raw, self.rows.dtype, weight, stacks)
        return self._batch

    def send(self, device: torch.device, count: int) -> tuple[Tensor, Tensor]:
        """(count, row bytes) the first rows there, and (count,) their weights."""
        if device.type == "cpu":
            raw, weight = self._here
            return raw[:count], weight[:count]
        return self._parts(self._outbox.send(device, self._begin + count * self.rows.itemsize), count)

    def _parts(self, memory: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return memory[self._begin :].view(count, self.rows.itemsize), memory[: 4 * count].view(torch.float32)


class _Stack:
    """One field of stacked frames, on one side of the rows."""

    def __init__(self, ring: Ring, rows: Rows, side: str, name: str, device: torch.device) -> None:
        self.side, self.name = side, name
        self._rows, self._num_frames = rows, ring.num_frames
        numbers = rows[side][name]  # (n, k) of transitions, (n, T + 1, k) of sequences
        self._shape, dtype = (*numbers.shape[1:-1], *ring.spec.obs[name].shape), ring.frames[name].dtype
        self._size = math.prod(self._shape) * dtype.itemsize  # of one row's stack, in bytes
        self._outbox = Outbox(len(rows) * self._size, device)
        self._dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        frames = ring.frames[name].reshape(ring.num_lanes * ring.num_frames, -1)
        self._from = frames.view(f"V{frames.shape[1] * frames.itemsize}")[:, 0]
        # (n, as many frames as numbers)
        self._to = self._outbox.memory.numpy().view(self._from.dtype).reshape(len(rows), -1)

    def numbers(self, where: Where) -> npt.NDArray[np.int64]:
        """(m, frames of a row)"""
        numbers: npt.NDArray[np.int64] = self._rows[self.side][self.name][where]
        return numbers.reshape(len(numbers), -1)

    def first(self, where: Where) -> IntArray:
        """(m,) the oldest frame of each row."""
        oldest: IntArray = self.numbers(where)[:, 0]
        return oldest

    def copy(self, lane: IntArray, where: Where) -> None:
        self._outbox.make_ready()
        slots = self.numbers(where) % self._num_frames + (lane * self._num_frames)[:, None]
        if isinstance(where, slice):
            self._from.take(slots, out=self._to[where], mode="clip")
        else:
            self._to[where] = self._from[slots]

    def send(self, device: torch.device, count: int) -> Tensor:
        """(count, ...) the first rows' stacks there."""
        return self._outbox.send(device, count * self._size).view(self._dtype).view(count, *self._shape)


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
        begin = flat.storage_offset() + (offset + place) // size
        return flat.as_strided((len(raw), *lead, *dtype.shape), strides, begin)

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
