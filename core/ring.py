"""The ring: where workers write transitions and the learner samples them in place.

One lane per worker, one writer per lane: no lock, no compare-and-swap, nothing a dead process can hold. A row's index
only ever grows, over all lives of a lane's writers; its slot is index % capacity. Each lane has two words, `claimed`
and `published`, which the writer alone stores:

    writer, k rows at n = published                   reader, one batch
      claimed = max(claimed, n + k)                     p = load-acquire published
      fence release                                     draw rows in [max(0, claimed - capacity) + guard, p)
      write rows n .. n+k-1                             copy them
      store-release published = n + k                   fence acquire; c = claimed
                                                        row n is intact iff n >= c - capacity; draw the others again

Each of the four orderings is needed, and `claimed` never goes down: a writer that takes over a dead one's lane must
not vouch for rows that the dead one had begun to overwrite. Rows below `published` are read without asking anybody;
that the reader was lapped while it copied is told by `claimed` afterwards, never by `published`.

The same block carries what else the two sides tell each other in words: how far a lane may go (`allowed`), whether to
stop, and the writer's counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from core.atomic import fence_acquire, fence_release, load_acquire, store_release
from core.shm import Layout, Segment
from core.types import EnvSpec, IntArray, Rows, require, row_layout

FOREVER = 2**62
"""an `allowed` word that no writer ever reaches"""


class Word(IntEnum):
    """The words of one lane, 128 bytes apart. The writer stores the first group, the learner the second."""

    CLAIMED = 0
    PUBLISHED = 16
    STEPS = 32  # environment steps done
    ALIVE = 33  # counts every turn of the worker's loop, waiting ones too: the heartbeat
    WAITED_NS = 34  # time spent waiting for `allowed`
    ACTING_UPDATE = 35  # the learner's update count when the weights in use were published
    ALLOWED = 48  # the writer may start a step while published < allowed
    STOP = 64  # 1: end the step and leave
    WORDS = 80


@dataclass(frozen=True)
class RingAddress:
    """Where a ring is, and its size."""

    segment: str
    num_lanes: int
    capacity: int
    """rows of each lane"""


class Ring:
    """All lanes of one run. The main process creates it, each worker attaches and writes one lane."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.words: npt.NDArray[np.int64] = segment["words"]
        """(lanes, Word.WORDS)"""
        rows: Rows = segment["rows"]
        self.num_lanes, self.capacity = rows.shape
        """lanes, and rows of each"""
        self.layout = rows.dtype
        # whole rows are moved as opaque bytes: numpy would copy a structured row field by field
        self._bytes = rows.view(f"V{rows.itemsize}")

    @classmethod
    def create(cls, spec: EnvSpec, num_lanes: int, capacity: int, n_step: int = 1) -> Ring:
        """A new, empty ring of `capacity` rows in all; at the end of its episode an agent completes `n_step` at once.

        Raises ValueError if a lane could not hold a few steps of its agents, MemoryError if memory is too small.
        """
        least = max(8, 2 * (n_step + 1)) * spec.num_agents * num_lanes
        wish = f"at least {least} for {num_lanes} lane(s) of {spec.num_agents} agents with --algo.n-step {n_step}"
        require("--capacity", capacity, capacity >= least, wish)
        return cls(Segment.create("ring", _block(spec, num_lanes, capacity // num_lanes)))

    @classmethod
    def attach(cls, address: RingAddress, spec: EnvSpec) -> Ring:
        """The ring at `address`, to write a lane of it. Raises as Segment.attach does."""
        block = _block(spec, address.num_lanes, address.capacity)
        return cls(Segment.attach(address.segment, block, writable=True))

    @property
    def address(self) -> RingAddress:
        """What another process attaches by; it travels as JSON."""
        return RingAddress(self._segment.address, self.num_lanes, self.capacity)

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._segment.close()

    def writer(self, lane: int, epoch: int) -> Writer:
        """The one writer of `lane`, in its `epoch`-th life."""
        return Writer(self.words[lane], self._bytes[lane], self.layout, epoch)

    def load(self, word: Word) -> IntArray:
        """(lanes,) this word of every lane; what was written before each is visible."""
        values: IntArray = self.words[:, word].copy()
        fence_acquire()
        return values

    def allow(self, rows: IntArray | int) -> None:
        """How far each lane may go: (lanes,) indices, or one for all."""
        fence_release()
        self.words[:, Word.ALLOWED] = rows

    def stop(self) -> None:
        """Tell every worker to leave; works when the control channel does not."""
        self.words[:, Word.STOP] = 1


class Writer:
    """One lane's only writer. It goes on where the lane's last writer had published."""

    def __init__(self, words: IntArray, lane: npt.NDArray[np.void], layout: np.dtype[np.void], epoch: int) -> None:
        self.words = words
        self._lane = lane
        self._layout = layout
        self._epoch = epoch
        self.published = load_acquire(words, Word.PUBLISHED)

    def append(self, rows: Rows) -> None:
        """Publish k rows at once. Their headers (index, epoch) are filled in here; `agent` is the caller's."""
        words, capacity, start, k = self.words, len(self._lane), self.published, len(rows)
        assert k <= capacity // 2, f"{k} rows in one step do not fit a lane of {capacity}"
        rows["index"] = np.arange(start, start + k)
        rows["epoch"] = self._epoch
        data = rows.view(self._lane.dtype)
        store_release(words, Word.CLAIMED, max(words.item(Word.CLAIMED), start + k))
        fence_release()
        slot = start % capacity
        room = min(k, capacity - slot)
        self._lane[slot : slot + room] = data[:room]
        if room < k:
            self._lane[: k - room] = data[room:]
        self.published = start + k
        store_release(words, Word.PUBLISHED, self.published)

    def may_go_on(self) -> bool:
        """Whether the learner allows another step."""
        return self.published < load_acquire(self.words, Word.ALLOWED)

    def count(self, word: Word, amount: int = 1) -> None:
        """Add to one of the writer's own counters."""
        self.words[word] += amount


class Sampler:
    """Draws rows uniformly from all lanes, into one batch that it owns and fills again at each call."""

    def __init__(self, ring: Ring, batch_size: int, seed: int) -> None:
        self._ring = ring
        self._random = np.random.Generator(np.random.SFC64(seed))
        # a writer may begin so many rows while a batch is being copied; drawing above it saves drawing again
        self._guard = ring.capacity // 64
        self._flat = ring._bytes.reshape(-1)
        self.rows: Rows = np.zeros(batch_size, ring.layout)
        """(batch_size,) the batch"""
        self._copy = self.rows.view(self._flat.dtype)
        self._index = self.rows["index"]
        self._drawn: tuple[IntArray, IntArray] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self.num_lapped = 0
        """rows that were overwritten while they were copied, and drawn again"""

    def sample(self) -> Rows:
        """(batch_size,) rows, each intact. Valid until the next call.

        Raises ValueError if the ring is empty.
        """
        lane, index = self._gather(slice(None), len(self.rows))
        torn = np.flatnonzero(self._torn(lane, index))
        while len(torn):
            self.num_lapped += len(torn)
            lane[torn], index[torn] = self._gather(torn, len(torn))
            torn = torn[self._torn(lane[torn], index[torn])]  # what was found whole stays, whatever happens meanwhile
        assert np.array_equal(self._index, index), "a row of the ring does not carry its own index"
        self._drawn = lane, index
        return self.rows

    def age(self) -> float:
        """Mean age of the last batch's rows: how many newer rows their lanes hold."""
        lane, index = self._drawn
        return float((self._ring.load(Word.PUBLISHED)[lane] - index).mean())

    def _gather(self, where: slice | IntArray, count: int) -> tuple[IntArray, IntArray]:
        """Draw `count` rows and copy them to `where` in the batch; returns their lanes and indices."""
        ring = self._ring
        claimed, published = ring.load(Word.CLAIMED), ring.load(Word.PUBLISHED)  # so that no window can be negative
        oldest = np.maximum(claimed - (ring.capacity - self._guard), 0)
        end = (published - oldest).cumsum()
        if end[-1] == 0:
            raise ValueError("the ring is empty")
        draw = (self._random.random(count) * end[-1]).astype(np.int64)
        lane = end.searchsorted(draw, side="right")
        index = draw + (published - end)[lane]
        slots = index % ring.capacity + lane * ring.capacity
        if isinstance(where, slice):
            self._flat.take(slots, out=self._copy, mode="clip")
        else:
            self._copy[where] = self._flat[slots]
        fence_acquire()
        return lane, index

    def _torn(self, lane: IntArray, index: IntArray) -> npt.NDArray[np.bool_]:
        """Which copied rows a writer may have begun to overwrite."""
        claimed = self._ring.words[:, Word.CLAIMED]
        torn: npt.NDArray[np.bool_] = index < (claimed - self._ring.capacity)[lane]
        return torn


def _block(spec: EnvSpec, num_lanes: int, capacity: int) -> Layout:
    return {"words": (np.int64, (num_lanes, Word.WORDS)), "rows": (row_layout(spec), (num_lanes, capacity))}
