"""The plainest thing that moves the same bytes as the ring does: no words, no headers, nothing that is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.profile.shapes import Steps

Array = npt.NDArray[Any]


def whole(array: Array, dimensions: int) -> Array:
    """The same memory, what lies below so many dimensions as one opaque thing: numpy moves it as bytes."""
    flat = array.reshape(*array.shape[:dimensions], -1)
    return flat.view(f"V{flat.shape[-1] * flat.itemsize}")[..., 0]


def memory(steps: Steps, capacity: int) -> list[Array]:
    """Places for so many rows, and for as many of each kind of frame. In use: the system has given all pages."""
    parts = [whole(each, 1) for each in (steps.rows, *steps.frames.values())]
    return [np.frombuffer(bytearray(b"\1") * (capacity * each.itemsize), each.dtype) for each in parts]


def copy_steps(steps: Steps, places: list[Array]) -> Callable[[], object]:
    """What copies the bytes of a step to the next place in each of these arrays."""
    sources = [whole(each, 1) for each in (steps.rows, *steps.frames.values())]
    slots = [_slots(place, len(source)) for place, source in zip(places, sources, strict=True)]
    if len(sources) == 1:
        (to,), (source,) = slots, sources
        return lambda: np.copyto(next(to), source)

    def copy() -> None:
        for to, source in zip(slots, sources, strict=True):
            np.copyto(next(to), source)

    return copy


def take_batches(steps: Steps, places: list[Array], batch: int) -> Callable[[], object]:
    """What copies random rows to one array, and as many random frames as their stacks have; new places at each call."""
    random, rows = np.random.default_rng(0), places[0]
    stacks = sum(steps.rows[side][name].shape[1] for side in ("obs", "next_obs") for name in steps.frames)
    here, drawn = np.zeros(batch, rows.dtype), cycle(random.integers(0, len(rows), (2000, batch)))
    if not stacks:
        return lambda: rows.take(next(drawn), 0, here, "clip")
    (frames,) = places[1:]
    there = np.zeros((batch, stacks), frames.dtype)
    wanted = cycle(random.integers(0, len(frames), (100, batch, stacks)))

    def take() -> None:
        rows.take(next(drawn), 0, here, "clip")
        frames.take(next(wanted), 0, there, "clip")

    return take


def _slots(place: Array, count: int) -> Iterator[Array]:
    return cycle([place[start : start + count] for start in range(0, len(place) - count + 1, count)])
