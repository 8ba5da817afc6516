"""The ring once more, on the learner's device: a row crosses the bus once, however often it is drawn.

Before each draw the rows that were published since the last one are copied there, by the ring's protocol
(core/ring.py): `published` is read, then the rows are copied, then `claimed` is read. What a writer had begun to
overwrite by then is not drawn. All else is nobody's but the learner's from then on, and never torn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.gather import ALL, Gather, Outbox, Where, as_batch
from core.ring import Ring, Word
from core.shm import free_memory, readable
from core.types import Batch, BoolArray, FloatArray, IntArray, Rows

_AT_ONCE = 4 * 2**20
"""bytes, the most that are copied at a time"""


class Mirror:
    """In place of a Gather: room for all rows of the ring, and for n of them that are drawn."""

    def __init__(self, ring: Ring, n: int, device: torch.device) -> None:
        """Raises MemoryError if the device's memory is too small, ValueError if the rows name frames."""
        if ring.frames:
            raise ValueError(f"--replay-device {device}; it must be left out where frames are stacked")
        self._ring, self._device = ring, device
        self._end = np.zeros(ring.num_lanes, np.int64)
        """(lanes,) the rows below were copied, or were too old"""
        at_once = max(_AT_ONCE // ring.layout.itemsize, 1)
        self._newest = Gather(ring, at_once, device)
        self._newest_slots, self._slots = _Numbers(at_once, device), _Numbers(n, device)
        words = ring.layout.itemsize // 8  # a row begins with one of so many bytes, and is aligned
        self._rows = torch.empty((0, words), dtype=torch.int64, device=device)
        self._drawn = torch.zeros((n, words), dtype=torch.int64, device=device)
        self._weights = Outbox(4 * n, device)
        self.weight: FloatArray = self._weights.memory.numpy().view(np.float32)
        """(n,) as of a Gather"""
        self.weight[:] = 1.0
        self._batch: Batch | None = None
        self.make_room(ring.lanes_used - 1)
        ring.mirrors.append(self.make_room)

    @property
    def rows(self) -> Rows:
        """(n,) what was drawn last, fetched from the device."""
        return self._drawn.cpu().numpy().view(self._ring.layout)[:, 0]

    def make_room(self, lane: int) -> None:
        """For this lane and those before it. Raises MemoryError if the device's memory is too small."""
        slots, words = (lane + 1) * self._ring.capacity, self._rows.shape[1]
        if slots <= len(self._rows):
            return
        size, free = slots * words * 8, _free(self._device)
        told = f"the ring's mirror on {self._device} needs {readable(size)} and {readable(free)} are free there; "
        told += "a smaller --algo.capacity needs less, or leave out --replay-device"
        if size > free:
            raise MemoryError(told)
        try:
            rows = self._rows.new_empty((slots, words))
        except torch.OutOfMemoryError as error:  # free, but not in one piece
            raise MemoryError(told) from error
        rows[: len(self._rows)] = self._rows
        self._rows = rows

    def window(self) -> tuple[IntArray, IntArray]:
        """(lanes,) the oldest row that may be drawn, and the end of the newest: all of these are here."""
        ring = self._ring
        while True:
            oldest, end = self._newest.window()
            # a writer may have gone round between the two words
            self._copy_from(np.maximum(np.maximum(oldest, self._end), end - ring.capacity), end)
            self._end = end
            oldest = np.minimum(np.maximum(oldest, ring.load(Word.CLAIMED) - ring.capacity), end)
            if (oldest < end).any() or not end.any():
                return oldest, end

    def copy(self, lane: IntArray, index: IntArray, where: Where = ALL) -> None:
        """Draw the rows `index` of these lanes, all of them in the last window."""
        assert isinstance(where, slice) and len(index) == len(self._drawn), "nothing is torn here, and drawn again"
        self._weights.make_ready()
        torch.index_select(self._rows, 0, self._slots.send(self._slots_of(lane, index)), out=self._drawn)

    def torn(self, lane: IntArray, index: IntArray, where: Where = ALL) -> BoolArray:
        """Which rows are: none."""
        return np.zeros(len(index), np.bool_)

    def has(self, index: IntArray) -> bool:
        """Whether these are the rows that were drawn: each was looked at when it was copied."""
        return True

    def batch(self, device: torch.device) -> Batch:
        """What was drawn last, on `device`, which is the mirror's; the same object at each call."""
        assert device == self._device
        weight = self._weights.send(device).view(torch.float32)
        if self._batch is None:
            self._batch = as_batch(self._drawn.view(torch.uint8), self._ring.layout, weight, {})
        return self._batch

    def _copy_from(self, first: IntArray, end: IntArray) -> None:
        """The rows from `first` to `end` of each lane."""
        count = np.maximum(end - first, 0)
        lane = np.repeat(np.arange(len(count)), count)
        index = np.arange(len(lane)) + np.repeat(first - (count.cumsum() - count), count)
        size = len(self._newest.rows)
        for start in range(0, len(lane), size):
            self._copy(lane[start : start + size], index[start : start + size])

    def _copy(self, lane: IntArray, index: IntArray) -> None:
        here = slice(len(index))
        self._newest.copy(lane, index, here)
        whole = self._newest.rows["index"][here] == index
        assert (whole | self._newest.torn(lane, index, here)).all(), "a row of the ring does not carry its own index"
        rows, _ = self._newest.send(self._device, len(index))
        self._rows.index_copy_(0, self._newest_slots.send(self._slots_of(lane, index)), rows.view(torch.int64))

    def _slots_of(self, lane: IntArray, index: IntArray) -> IntArray:
        slots: IntArray = index % self._ring.capacity + lane * self._ring.capacity
        return slots


class _Numbers:
    """Up to n numbers on their way to the device."""

    def __init__(self, n: int, device: torch.device) -> None:
        self._device = device
        self._outbox = Outbox(8 * n, device)
        self._here = self._outbox.memory.numpy().view(np.int64)

    def send(self, numbers: IntArray) -> Tensor:
        """(n,) there."""
        self._outbox.make_ready()
        self._here[: len(numbers)] = numbers
        return self._outbox.send(self._device, 8 * len(numbers)).view(torch.int64)


def _free(device: torch.device) -> int:
    """Bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
