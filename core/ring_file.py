"""The ring in files: saved while writers go on, and read back into a new ring of the same kind.

Saving is one more reader, of everything. `published` is read before the rows are copied and `claimed` after, and both
are saved: what a writer began to overwrite meanwhile counts as overwritten in the ring that is read back, too, and its
rows from `published` on are written again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.atomic import fence_acquire
from core.ring import Ring, Word

WORDS = "words.npz"
"""what a directory with a ring in it holds"""
_WRITTEN_FIRST = (Word.CLAIMED, Word.FRAMES_CLAIMED)


def save(ring: Ring, directory: Path) -> None:
    """Write rows, frames and words to files below `directory`. Rows that were never written take no room there."""
    lanes = ring.lanes_used
    words = ring.words[:lanes].copy()
    fence_acquire()
    written = min(int(words[:, Word.PUBLISHED].max(initial=0)), ring.capacity)
    np.save(directory / "rows.npy", _opaque(ring)[:lanes, :written], allow_pickle=False)
    for number, frames in enumerate(ring.frames.values()):
        written = min(int(words[:, Word.FRAMES_CLAIMED].max(initial=0)), ring.num_frames)
        np.save(directory / f"frames-{number}.npy", frames[:lanes, :written], allow_pickle=False)
    fence_acquire()
    words[:, _WRITTEN_FIRST] = ring.words[:lanes, _WRITTEN_FIRST]
    np.savez(directory / WORDS, words=words, wanted=ring.wanted[:lanes], capacity=ring.capacity, kind=_kind(ring))


def load(ring: Ring, directory: Path) -> None:
    """Make a new ring, which nobody has attached to yet, go on where the saved one was.

    Raises ValueError if it was a ring of another kind, OSError if a file cannot be read.
    """
    with np.load(directory / WORDS, allow_pickle=False) as file:
        words, wanted, capacity, kind = file["words"], file["wanted"], int(file["capacity"]), str(file["kind"])
    rows, lanes = np.load(directory / "rows.npy", mmap_mode="r", allow_pickle=False), len(words)
    if (capacity, kind) != (ring.capacity, _kind(ring)) or lanes > ring.num_lanes:
        raise ValueError(
            f"the ring in {directory} has {lanes} lanes of {capacity} rows of {rows.dtype.itemsize} bytes, "
            f"this run's {ring.num_lanes} lanes of {ring.capacity} rows of {ring.layout.itemsize}; "
            "environment, algorithm, --workers, --algo.capacity, --algo.gamma and --algo.n-step must be those of before"
        )
    for lane in range(lanes):
        ring.add_lane(lane)
    _opaque(ring)[:lanes, : rows.shape[1]] = rows
    for number, its in enumerate(ring.frames.values()):
        frames = np.load(directory / f"frames-{number}.npy", mmap_mode="r", allow_pickle=False)
        its[:lanes, : frames.shape[1]] = frames
    words[:, Word.ALLOWED] = words[:, Word.STOP] = 0
    ring.words[:lanes] = words
    ring.wanted[:] = False
    ring.wanted[:lanes] = wanted
    ring.at_work[:] = ring.wanted


def _kind(ring: Ring) -> str:
    """What its rows hold, and what that means: they have gamma and n steps in them."""
    return repr((ring.layout, ring.recording))


def _opaque(ring: Ring) -> npt.NDArray[np.void]:
    """(lanes, capacity) whole rows: numpy would copy them field by field."""
    return ring.rows.view(f"V{ring.layout.itemsize}")
