"""Outlet: the rows of one lane on their way elsewhere, in order, while a worker goes on writing them.

The lane is a small one, on the collector's machine; it goes on where the lane of the same number in the run's ring was
left, with the same numbers of rows and frames. A row is sent after the frames that it names. The worker is allowed no
more than the lane can hold until what was sent has arrived, so nothing is overwritten before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from core.atomic import fence_acquire, load_acquire
from core.link import BATCH_BYTES, WINDOW_BYTES, Batch, Post
from core.ring import Ring, Word
from core.types import EnvSpec, IntArray, Recording, Rows, frames_of, row_layout

COUNTERS = [
    Word.DECISIONS, Word.STEPS, Word.ALIVE, Word.WAITED_NS, Word.ACTING_UPDATE, Word.REFUSED, Word.FETCH_NS,
    Word.ACT_NS, Word.ENV_NS, Word.RECORD_NS, Word.EXCHANGE_NS, Word.DECODE_NS,
]  # fmt: skip
"""what a worker counts, all but its rows"""


def local_ring(spec: EnvSpec, recording: Recording, posts: list[Post]) -> Ring:
    """A ring with these lanes, under the numbers that they have in the run: seeds and exploration go by them."""
    lanes = [post.lane for post in posts]
    # a lane has room for what a worker may be ahead, for a step and the ends in it, and as much again for frames
    capacity = 4 * window(spec, recording) * recording.stride
    ring = Ring.create(spec, recording, 1, capacity, spare=max(lanes))
    for post in posts:
        ring.add_lane(post.lane)
        ring.words[post.lane, : len(post.words)] = post.words
        ring.words[post.lane, Word.DONE] = ring.words[post.lane, Word.PUBLISHED]
    return ring


def window(spec: EnvSpec, recording: Recording) -> int:
    """Rows that a worker may be ahead of what has arrived."""
    of_a_row = row_layout(spec, recording).itemsize + bytes_of_frame(spec) * recording.stride
    return max(WINDOW_BYTES // of_a_row, 2 * (recording.n_step + 1) * spec.num_agents)


def bytes_of_frame(spec: EnvSpec) -> int:
    """Of all fields of stacked frames, one frame each."""
    return sum(np.dtype(each.dtype).itemsize * math.prod(each.shape) for each in frames_of(spec).values())


def at_once(ring: Ring) -> tuple[int, int]:
    """The most rows, and the most frames, of one batch."""
    return max(BATCH_BYTES // ring.layout.itemsize, 1), max(BATCH_BYTES // max(bytes_of_frame(ring.spec), 1), 1)


class Outlet:
    """Of one lane."""

    def __init__(self, ring: Ring, lane: int) -> None:
        self._ring, self._lane = ring, lane
        self._words: IntArray = ring.words[lane]
        # whole rows: field by field would take longer, and what lies between fields would come from anywhere
        self._rows = ring.rows[lane].view(f"V{ring.layout.itemsize}")
        self._window = window(ring.spec, ring.recording)
        self._most_rows, self._most_frames = at_once(ring)
        self._sent: int = self._words.item(Word.PUBLISHED)
        self._frames_sent: int = self._words.item(Word.FRAMES_CLAIMED)
        self._decisions_sent: int = self._words.item(Word.DECISIONS)

    @property
    def is_full(self) -> bool:
        """There are enough rows for a whole batch."""
        return bool(load_acquire(self._words, Word.PUBLISHED) - self._sent >= self._most_rows)

    @property
    def has_news(self) -> bool:
        """The worker has decided since the last batch."""
        return bool(self._words.item(Word.DECISIONS) != self._decisions_sent)

    @property
    def is_at_rest(self) -> bool:
        """The worker may not go on."""
        return bool(self._words.item(Word.DECISIONS) >= self._words.item(Word.ALLOWED))

    def allow(self, allowed: int, taken: int) -> None:
        """How far the worker may go: as the run says, and while there is room. Raises ValueError for rows that were
        never sent."""
        if not self._words.item(Word.DONE) <= taken <= self._sent:
            raise ValueError(f"rows below {taken} are said to have arrived, and {self._sent} were sent")
        decisions = self._words.item(Word.DECISIONS)  # before what they completed
        fence_acquire()
        room = max(self._window - (load_acquire(self._words, Word.PUBLISHED) - taken), 0)
        self._words[Word.DONE] = taken
        self._words[Word.ALLOWED] = min(allowed, decisions + room)

    def batches(self) -> Iterator[tuple[Batch, list[Any]]]:
        """All rows that were not sent yet, the frames that they name before them, and the counters at the end."""
        self._decisions_sent = self._words.item(Word.DECISIONS)
        counters = [self._words.item(word) for word in COUNTERS]
        fence_acquire()
        end = load_acquire(self._words, Word.PUBLISHED)
        while True:
            first, last = self._sent, min(self._sent + self._most_rows, end)
            rows = self._rows[np.arange(first, last) % self._ring.capacity].view(self._ring.layout)
            yield from self._frames_until(self._end_of_frames(rows))
            self._sent = last
            is_all = last == end
            yield self._batch(first, last - first, counters if is_all else []), [*self._no_frames(), rows.tobytes()]
            if is_all:
                return

    def _batch(self, first: int, rows: int, words: list[int], frames: int = 0) -> Batch:
        return Batch(self._lane, first, rows, self._frames_sent, frames, words)

    def _end_of_frames(self, rows: Rows) -> int:
        """The newest frame that these rows name, and one: all below were written before the rows."""
        sides = [side for side in ("obs", "next_obs") if side in (rows.dtype.names or ())]
        named = [rows[side][name] for side in sides for name in self._ring.frames if len(rows)]
        return max([self._frames_sent, *(int(each.max()) + 1 for each in named)])

    def _frames_until(self, end: int) -> Iterator[tuple[Batch, list[Any]]]:
        while self._frames_sent < end:
            first, last = self._frames_sent, min(self._frames_sent + self._most_frames, end)
            slots = np.arange(first, last) % self._ring.num_frames
            data = [frames[self._lane][slots].tobytes() for frames in self._ring.frames.values()]
            batch = self._batch(self._sent, 0, [], last - first)
            assert self._words.item(Word.FRAMES_CLAIMED) - first <= self._ring.num_frames, "a frame was overwritten"
            self._frames_sent = last
            yield batch, [*data, b""]

    def _no_frames(self) -> list[bytes]:
        return [b""] * len(self._ring.frames)
