"""Rows whose every field is a function of their index: of any copy one can tell whether it is whole.

Also a writer's death in the middle of a step, by way of the real Writer, and one that writes while a sampler copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from core.replay import Sampler
from core.ring import Ring, Word, Writer
from core.types import ActionSpec, BoolArray, EnvSpec, FieldSpec, IntArray, Rows

PERIOD = 9973
"""fields repeat after so many rows; a prime, so that a ring's slot never holds the same value in two laps running"""

_HEADER = 16  # bytes of index, epoch and agent


def spec(width: int = 8, num_agents: int = 1) -> EnvSpec:
    """Rows of 32 + 8 * width bytes, without padding."""
    return EnvSpec({"x": FieldSpec((width,))}, ActionSpec((-1.0,) * 2, (1.0,) * 2), num_agents)


def known(layout: np.dtype[np.void], count: int, first: int = 0) -> Rows:
    """Rows first .. first + count - 1, as append() takes them."""
    rows: Rows = np.zeros(count, layout)
    value = np.arange(first, first + count) % PERIOD
    rows["agent"] = value
    _fields(rows)[:] = value[:, None]
    return rows


def torn(rows: Rows) -> BoolArray:
    """Which rows do not carry, in every field, what their index says."""
    value = rows["index"] % PERIOD
    wrong: BoolArray = (_fields(rows) != value[:, None]).any(axis=1) | (rows["agent"] != value)
    return wrong


def _fields(rows: Rows) -> npt.NDArray[np.float32]:
    """(n, numbers of a row): what follows the header of index, epoch and agent."""
    return rows.view(np.float32).reshape(-1, rows.itemsize // 4)[:, _HEADER // 4 :]


class Busy:
    """In place of the rows that a sampler copies from: a writer does something before each copy."""

    def __init__(self, sampler: Sampler, before: Callable[[], object]) -> None:
        gather: Any = sampler.gather
        self._rows, self._before = gather._from, before
        gather._from = self

    def take(self, *args: Any, **kwargs: Any) -> Any:
        self._before()
        return self._rows.take(*args, **kwargs)

    def __getitem__(self, slots: IntArray) -> Any:
        self._before()
        return self._rows[slots]


class Killed(Exception):
    """The writer is no more."""


def die_in_mid_step(ring: Ring, lane: int, epoch: int, k: int, written: int) -> None:
    """The lane's writer claims `k` rows, spoils the first `written` of their places, and dies."""
    writer = ring.writer(lane, epoch)
    writer._lane = _Deathbed(ring, lane, written)
    try:
        writer.append(np.zeros(k, ring.layout))
    except Killed:
        return
    raise AssertionError("a writer outlived its death")


class _Deathbed:
    """A lane in which writing gets stuck. Stores may come in any order: bodies are spoiled, headers not yet."""

    def __init__(self, ring: Ring, lane: int, written: int) -> None:
        self._lane = ring.rows[lane].view(np.uint8).reshape(ring.capacity, -1)
        self.dtype = np.dtype(f"V{ring.layout.itemsize}")
        self._slots = (int(ring.words[lane, Word.PUBLISHED]) + np.arange(written)) % ring.capacity

    def __len__(self) -> int:
        return len(self._lane)

    def __setitem__(self, where: slice, data: npt.NDArray[Any]) -> None:
        self._lane[self._slots, _HEADER:] = 0xEE
        raise Killed


class ForgetfulWriter(Writer):
    """A broken twin: at each step it claims just what it is about to write, whatever was claimed before."""

    def append(self, rows: Rows) -> None:
        self.words[Word.CLAIMED] = self.published
        super().append(rows)
