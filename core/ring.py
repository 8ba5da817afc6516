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

A lane whose rows are read in order has a third word, `done`, which the reader stores: the rows below it are used, and
nothing above it is overwritten (core/rollout.py).

Stacked frames lie apart from the rows, once each, in arrays of the same rule: frames of a lane are numbered like its
rows, a frame is written before a row names it, and `frames_claimed` tells which are intact.

The same block carries what else the two sides tell each other in words: how many decisions a lane may make (`allowed`),
whether to stop, and the writer's counters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from core.atomic import fence_acquire, fence_release, load_acquire, store_release
from core.shm import Layout, Segment, size_of
from core.types import BoolArray, EnvSpec, IntArray, Recording, Rows, frames_of, require, row_layout

FOREVER = 2**62
"""an `allowed` word that no writer ever reaches"""


class Word(IntEnum):
    """The words of one lane, 128 bytes apart. The writer stores the first group, the learner the second."""

    CLAIMED = 0
    PUBLISHED = 16
    DECISIONS = 24  # agent steps done; their rows, as far as they are complete, are published
    FRAMES_CLAIMED = 25
    LIVES = 26  # writers that it has had; the next one's epoch
    STEPS = 32  # environment steps done
    ALIVE = 33  # counts every turn of the worker's loop, waiting ones too: the heartbeat
    WAITED_NS = 34  # time spent waiting for `allowed`
    ACTING_UPDATE = 35  # the learner's update count when the weights in use were published
    REFUSED = 36  # agent steps that made no row because a number in them was bad
    FETCH_NS = 37  # time spent on orders, reports and newer weights, ...
    ACT_NS = 38  # ... on deciding, ...
    ENV_NS = 39  # ... in the environment, ...
    RECORD_NS = 40  # ... and on making rows and appending them
    EXCHANGE_NS = 41  # of ENV_NS, where the environment is another process: waiting for that, ...
    DECODE_NS = 42  # ... and reading and writing what the two say to each other
    ALLOWED = 48  # the writer may start a step while decisions < allowed
    DONE = 49  # rows below are used; FOREVER: they may be overwritten unused
    STOP = 64  # 1: end the step and leave
    WORDS = 80


WORKER_PHASES = {
    "wait": Word.WAITED_NS,
    "fetch": Word.FETCH_NS,
    "act": Word.ACT_NS,
    "env": Word.ENV_NS,
    "record": Word.RECORD_NS,
}
"""what a worker does, all the time"""
LINK_PHASES = {"exchange": Word.EXCHANGE_NS, "decode": Word.DECODE_NS}
"""what of `env` is the link to another process"""


@dataclass(frozen=True)
class RingAddress:
    """Where a ring is, and its size."""

    segment: str
    num_lanes: int
    capacity: int
    """rows of each lane"""
    recording: Recording
    """what they hold"""


class Ring:
    """All lanes of one run. The main process creates it, each worker attaches and writes one lane."""

    def __init__(self, segment: Segment, spec: EnvSpec, recording: Recording) -> None:
        self._segment = segment
        self.spec, self.recording = spec, recording
        self.words: npt.NDArray[np.int64] = segment["words"]
        """(lanes, Word.WORDS)"""
        self.rows: Rows = segment["rows"]
        """(lanes, capacity)"""
        self.layout = self.rows.dtype
        self.num_lanes, self.capacity = self.rows.shape
        """lanes, and rows of each"""
        self.frames = {name: segment[f"frames of {name}"] for name in frames_of(spec)}
        """field name -> (lanes, num_frames, ...) what stacks are made of"""
        self.num_frames = _num_frames(self.capacity, recording, spec.num_agents)
        """of each lane"""
        self.at_work: BoolArray = np.zeros(self.num_lanes, np.bool_)
        """(lanes,) which lanes have somebody who writes; the main process alone keeps it, ..."""
        self.wanted: BoolArray = self.at_work.copy()
        """(lanes,) ... and which shall have"""
        self._has_memory = self.at_work.copy()
        self.mirrors: list[Callable[[int], None]] = []
        """who else needs room for a lane that is added, and raises MemoryError if there is none"""

    @classmethod
    def create(cls, spec: EnvSpec, recording: Recording, num_lanes: int, capacity: int, spare: int = 0) -> Ring:
        """A new, empty ring for `capacity` agent steps in all; a row stands for as many as its recording's stride.

        `spare` more lanes, as large as the others, take no memory until `add_lane`.

        Raises ValueError if a lane could not hold a few steps of its agents, MemoryError if memory is too small.
        """
        at_once = recording.n_step + 1  # rows that an agent's end may complete; of sequences it is one
        least = max(8, 2 * at_once) * recording.stride * spec.num_agents * num_lanes
        wish = f"at least {least} agent steps for {num_lanes} lane(s) of {spec.num_agents} agents"
        wish += f" with --algo.n-step {recording.n_step}" if recording.n_step > 1 else ""
        wish += f" with --algo.stride {recording.stride}" if recording.stride > 1 else ""
        require("--algo.capacity", capacity, capacity >= least, wish)
        rows = capacity // (recording.stride * num_lanes)
        segment = Segment.create("ring", _block(spec, recording, num_lanes + spare, rows), first=num_lanes)
        segment["words"][:, Word.DONE] = 0 if recording.ordered else FOREVER
        ring = cls(segment, spec, recording)
        ring._has_memory[:num_lanes] = ring.wanted[:num_lanes] = ring.at_work[:num_lanes] = True
        return ring

    @classmethod
    def attach(cls, address: RingAddress, spec: EnvSpec) -> Ring:
        """The ring at `address`, to write a lane of it. Raises as Segment.attach does."""
        block = _block(spec, address.recording, address.num_lanes, address.capacity)
        return cls(Segment.attach(address.segment, block, writable=True), spec, address.recording)

    @property
    def address(self) -> RingAddress:
        """What another process attaches by; it travels as JSON."""
        return RingAddress(self._segment.address, self.num_lanes, self.capacity, self.recording)

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._segment.close()

    def add_lane(self, lane: int) -> None:
        """Make room for a writer of this lane. Raises MemoryError if memory is too small."""
        if not self._has_memory[lane]:
            for make_room in self.mirrors:
                make_room(lane)
            self._segment.populate("ring's next lane", lane)
            self._has_memory[lane] = True
        self.words[lane, Word.STOP] = 0

    def writer(self, lane: int, epoch: int) -> Writer:
        """The one writer of `lane`, in its `epoch`-th life, from 0."""
        return Writer(self, lane, epoch)

    def load(self, word: Word) -> IntArray:
        """(lanes,) this word of every lane; what was written before each is visible."""
        values: IntArray = self.words[:, word].copy()
        fence_acquire()
        return values

    @property
    def agent_steps(self) -> int:
        """Decisions made so far, over all lanes."""
        return sum(self.load(Word.DECISIONS).tolist())

    @property
    def lanes_used(self) -> int:
        """Lanes from here on have never been anybody's."""
        return int(np.flatnonzero(self.wanted | (self.load(Word.LIVES) > 0)).max(initial=-1)) + 1

    def allow(self, decisions: IntArray | int) -> None:
        """How far each lane may go: (lanes,) decisions since its beginning, or one for all."""
        fence_release()
        self.words[:, Word.ALLOWED] = decisions

    def stop(self, lane: int | None = None) -> None:
        """Tell this lane's worker to leave, or all; works when the control channel does not."""
        self.words[slice(None) if lane is None else lane, Word.STOP] = 1


class Writer:
    """One lane's only writer. It goes on where the lane's last writer had published."""

    def __init__(self, ring: Ring, lane: int, epoch: int) -> None:
        self.words: IntArray = ring.words[lane]
        self._layout = ring.layout
        # whole rows are moved as opaque bytes: numpy would copy a structured row field by field
        self._lane = ring.rows[lane].view(f"V{ring.layout.itemsize}")
        self._frames = {name: frames[lane] for name, frames in ring.frames.items()}
        self._num_frames = ring.num_frames
        self._epoch = epoch
        self.words[Word.LIVES] = epoch + 1
        self.published = load_acquire(self.words, Word.PUBLISHED)

    def append(self, rows: Rows) -> None:
        """Publish k rows at once. Their headers (index, epoch) are filled in here; `agent` is the caller's."""
        words, capacity, start, k = self.words, len(self._lane), self.published, len(rows)
        assert k <= capacity // 2, f"{k} rows in one step do not fit a lane of {capacity}"
        assert start + k <= words.item(Word.DONE) + capacity, "the lane is full of rows that nobody has used yet"
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

    def append_frames(self, frames: Mapping[str, npt.NDArray[Any]]) -> int:
        """Write k frames of each stacked field, (k, ...). Returns the number of the first; the others follow."""
        k = len(next(iter(frames.values())))
        start = self.words.item(Word.FRAMES_CLAIMED)
        store_release(self.words, Word.FRAMES_CLAIMED, start + k)
        fence_release()
        slots = np.arange(start, start + k) % self._num_frames
        for name, values in frames.items():
            self._frames[name][slots] = values
        return start

    def may_go_on(self) -> bool:
        """Whether the learner allows another step."""
        words = self.words
        return words.item(Word.DECISIONS) < load_acquire(words, Word.ALLOWED)

    def decided(self, count: int) -> None:
        """So many agents have decided, and all rows that this completed are published."""
        store_release(self.words, Word.DECISIONS, self.words.item(Word.DECISIONS) + count)

    def count(self, word: Word, amount: int = 1) -> None:
        """Add to one of the writer's own counters."""
        self.words[word] += amount


def ring_size(spec: EnvSpec, recording: Recording, num_lanes: int, capacity: int) -> int:
    """Bytes that Ring.create() would take for this."""
    return size_of(_block(spec, recording, num_lanes, capacity // (recording.stride * num_lanes)))


def _num_frames(capacity: int, recording: Recording, num_agents: int) -> int:
    """Enough for the frames of a lane's rows: one of each decision, and one more at the end of each episode.

    Of sequences that overlap, an episode's first one has more decisions than it stands for. Where rows are replayed and
    episodes are shorter than four decisions, the oldest rows lose their frames and are drawn no more; of rows that are
    read in order none may.
    """
    decisions = capacity * recording.stride + num_agents * recording.length
    return decisions + (decisions if recording.ordered else decisions // 4) + 64


def _block(spec: EnvSpec, recording: Recording, num_lanes: int, capacity: int) -> Layout:
    frames = frames_of(spec).items()
    num_frames = _num_frames(capacity, recording, spec.num_agents)
    return {
        "words": (np.int64, (num_lanes, Word.WORDS)),
        "rows": (row_layout(spec, recording), (num_lanes, capacity)),
        **{f"frames of {name}": (each.dtype, (num_lanes, num_frames, *each.shape)) for name, each in frames},
    }
