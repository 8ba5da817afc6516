"""Intake: rows from elsewhere on their way into one lane of the run's ring. What comes is looked at in every respect
before any of it is written, for who sends it is another machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from core.link import Batch, Post
from core.outlet import COUNTERS, at_once
from core.ring import Ring, Word
from core.types import Rows, frames_of

_NUMBERS = 2**62
_ONLY_GROW = [place for place, word in enumerate(COUNTERS) if word != Word.ACTING_UPDATE]
_DECISIONS = COUNTERS.index(Word.DECISIONS)


def post_of(ring: Ring, lane: int) -> Post:
    """Where the next writer of this lane begins."""
    words = ring.words[lane, : Word.ALLOWED].tolist()
    return Post(lane, words[Word.LIVES], words)


class Intake:
    """The one writer of a lane, which writes what another machine's worker did."""

    def __init__(self, ring: Ring, lane: int, epoch: int) -> None:
        self._ring, self._epoch = ring, epoch
        self._writer = ring.writer(lane, epoch)
        self._most_rows, self._most_frames = at_once(ring)
        self._allowed = 0
        """the most that was ever allowed"""

    @property
    def published(self) -> int:
        """Rows below this index have arrived."""
        return self._writer.published

    def allowed(self) -> int:
        """How far the worker may go now."""
        allowed = self._writer.words.item(Word.ALLOWED)
        self._allowed = max(self._allowed, allowed)
        return allowed

    def take(self, batch: Batch, data: list[Any]) -> None:
        """Write what has come. Raises ValueError, and writes nothing, if that cannot be what a worker did."""
        *frame_data, row_data = data or [b""]
        rows = self._rows(batch, row_data)
        frames = self._frames(batch, frame_data)
        self._check_rows(batch, rows)
        if batch.words:
            self._check_words(batch.words)
        if batch.frames:
            self._writer.append_frames(frames)
        most = self._ring.capacity // 2  # a lane may be smaller than a batch
        for start in range(0, batch.rows, most):
            self._writer.append(rows[start : start + most])
        if batch.words:
            words = self._writer.words
            for word, value in zip(COUNTERS, batch.words, strict=True):
                if word != Word.DECISIONS:
                    words[word] = value
            self._writer.decided(batch.words[_DECISIONS] - words.item(Word.DECISIONS))

    def _rows(self, batch: Batch, data: Any) -> Rows:
        layout = self._ring.layout
        _refuse_unless(0 <= batch.rows <= self._most_rows, f"{batch.rows} rows at once")
        _refuse_unless(len(data) == batch.rows * layout.itemsize, f"{len(data)} bytes for {batch.rows} rows")
        _refuse_unless(batch.first == self.published, f"row {batch.first} where {self.published} is the next")
        end = self.published + batch.rows
        full = self._writer.words.item(Word.DONE) + self._ring.capacity
        _refuse_unless(end <= full, f"rows up to {end}, and nobody has used those from {full - self._ring.capacity}")
        return np.frombuffer(bytearray(data), layout)  # its own memory: the header is written once more

    def _frames(self, batch: Batch, data: list[Any]) -> dict[str, npt.NDArray[Any]]:
        specs = frames_of(self._ring.spec)
        _refuse_unless(0 <= batch.frames <= self._most_frames, f"{batch.frames} frames at once")
        next_frame = self._writer.words.item(Word.FRAMES_CLAIMED)
        _refuse_unless(batch.first_frame == next_frame, f"frame {batch.first_frame} where {next_frame} is the next")
        _refuse_unless(len(data) == len(specs), f"{len(data)} fields of frames, there are {len(specs)}")
        frames = {}
        for (name, spec), each in zip(specs.items(), data, strict=True):
            shape, dtype = (batch.frames, *spec.shape), np.dtype(spec.dtype)
            size = int(np.prod(shape)) * dtype.itemsize
            _refuse_unless(len(each) == size, f"{len(each)} bytes for {batch.frames} frames of {name}")
            frames[name] = np.frombuffer(each, dtype).reshape(shape)
            _refuse_bad_numbers(f"frames of {name}", frames[name])
        return frames

    def _check_rows(self, batch: Batch, rows: Rows) -> None:
        spec = self._ring.spec
        index = np.arange(batch.first, batch.first + batch.rows)
        _refuse_unless(bool((rows["index"] == index).all()), "rows that do not carry their own numbers")
        _refuse_unless(bool((rows["epoch"] == self._epoch).all()), f"rows of another epoch than {self._epoch}")
        _refuse_unless_within("agent", rows["agent"], 0, spec.num_agents - 1)
        for name, values in _fields(rows):
            _refuse_bad_numbers(name, values)
        names = rows.dtype.names or ()
        if "choice" in names:
            for branch, size in enumerate(spec.action.branches):
                _refuse_unless_within("choice", rows["choice"][..., branch], 0, size - 1)
        for name in ("discount", "valid"):
            if name in names:
                _refuse_unless_within(name, rows[name], 0, 1)
        if "priority" in names:
            _refuse_unless_within("priority", rows["priority"], 0, math.inf)
        end = self._writer.words.item(Word.FRAMES_CLAIMED)
        for side in ("obs", "next_obs"):
            for name in self._ring.frames if side in names else ():
                _refuse_unless_within(f"{side} {name}", rows[side][name], max(end - self._ring.num_frames, 0), end - 1)

    def _check_words(self, words: list[int]) -> None:
        _refuse_unless(len(words) == len(COUNTERS), f"{len(words)} counters, there are {len(COUNTERS)}")
        before = [self._writer.words.item(word) for word in COUNTERS]
        _refuse_unless(all(0 <= word < _NUMBERS for word in words), f"counters of {words}")
        _refuse_unless(all(words[place] >= before[place] for place in _ONLY_GROW), "counters that went back")
        most = max(before[_DECISIONS], self._allowed - 1 + self._ring.spec.num_agents)
        _refuse_unless(words[_DECISIONS] <= most, f"{words[_DECISIONS]} decisions where {self._allowed} were allowed")


def _fields(rows: Rows) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Each field that is an array of numbers, also those within others."""
    for name in rows.dtype.names or ():
        values = rows[name]
        if values.dtype.names:
            yield from _fields(values)
        else:
            yield name, values


def _refuse_bad_numbers(name: str, values: npt.NDArray[Any]) -> None:
    if values.dtype.kind == "f":
        _refuse_unless(bool(np.isfinite(values).all()), f"a number of {name} that is not finite")
    elif values.dtype.kind == "b":
        _refuse_unless(bool((values.view(np.uint8) <= 1).all()), f"what is neither true nor false in {name}")


def _refuse_unless_within(name: str, values: npt.NDArray[Any], low: float, high: float) -> None:
    good = (values >= low) & (values <= high)
    _refuse_unless(bool(good.all()), f"{name} {values[~good][:1].tolist()}, which is not from {low} to {high}")


def _refuse_unless(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
