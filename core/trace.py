"""Trace: when each process of a run did what, for a picture of all of them on one axis of time.

Each process has a track, room in shared memory for its newest events, which it alone writes; the main process reads
them at the end of the run. Whoever is killed loses the event that it was in, and nothing else. There is one clock:
perf_counter_ns is CLOCK_MONOTONIC on Linux, the same in all processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.shm import Layout, Segment
from core.stopwatch import Stopwatch
from core.types import IntArray

EVENTS = 2**17
"""of a track; the workers of 3DBall fill it in about 20 s"""
_COUNT = 16  # words of a track's counter, two cache lines


@dataclass(frozen=True)
class TrackAddress:
    """What a process attaches to its track by; it travels as JSON."""

    segment: str
    tracks: int
    number: int


class Track:
    """One process's events: what it did from when to when."""

    def __init__(self, segment: Segment, number: int) -> None:
        self._segment = segment
        # plain memory: storing a number takes a third of what numpy takes
        self._events: memoryview[int] = segment["events"][number].reshape(-1).data
        self._count: memoryview[int] = segment["count"][number].data

    @classmethod
    def attach(cls, address: TrackAddress) -> Track:
        """Go on where the track's last process has ended. Raises as Segment.attach does."""
        return cls(Segment.attach(address.segment, _block(address.tracks), writable=True), address.number)

    def add(self, what: int, begin_ns: int, end_ns: int) -> None:
        """If there is no room left, the oldest event goes."""
        events, count = self._events, self._count[0]
        place = 3 * (count % EVENTS)
        events[place], events[place + 1], events[place + 2] = what, begin_ns, end_ns
        self._count[0] = count + 1

    def close(self) -> None:
        self._segment.close()


class Traced(Stopwatch):
    """A stopwatch that also writes down when each of its times was."""

    def __init__(self, totals: IntArray, track: Track) -> None:
        super().__init__(totals)
        self._track = track

    def lap(self, phase: int) -> None:
        begin = self._last
        super().lap(phase)
        self._track.add(phase, begin, self._last)


class Trace:
    """The tracks of one run. The main process creates it."""

    def __init__(self, tracks: Mapping[str, Mapping[str, int]], first: int) -> None:
        """`tracks`: for each its name, and what events on it are called. `first`: so many have memory from the start.

        Raises MemoryError if memory is too small.
        """
        self._tracks = {name: {int(what): called for called, what in whats.items()} for name, whats in tracks.items()}
        self._numbers = {name: number for number, name in enumerate(tracks)}
        self._segment = Segment.create("trace", _block(len(tracks)), first)
        self._has_memory = set(list(tracks)[:first])

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exception: object) -> None:
        self._segment.close()

    def address(self, name: str) -> TrackAddress:
        """Of the track of this name. Raises MemoryError if it has no memory yet and there is none."""
        number = self._numbers[name]
        if name not in self._has_memory:
            self._segment.populate("next track of --trace", number)
            self._has_memory.add(name)
        return TrackAddress(self._segment.address, len(self._tracks), number)

    def track(self, name: str) -> Track:
        """For this process itself."""
        return Track(self._segment, self._numbers[name])

    def write(self, file: Path) -> str:
        """All that the processes did, as Chrome's trace events in JSON, for ui.perfetto.dev. Returns what to say about
        it. Raises OSError."""
        found = {name: self._events(name) for name in self._tracks}
        origin = min((int(events[:, 1].min()) for events, _ in found.values() if len(events)), default=0)
        with open(file, "w", encoding="ascii") as out:
            out.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            out.write(",\n".join(line for name in found for line in self._lines(name, *found[name], origin)))
            out.write("\n]}\n")
        dropped = {name: count for name, (_, count) in found.items() if count}
        older = f"; the newest {EVENTS:,} events of each of {', '.join(dropped)}" if dropped else ""
        return f"trace: {file}, for ui.perfetto.dev{older}"

    def _events(self, name: str) -> tuple[IntArray, int]:
        """(n, 3) what, begin and end of each, the oldest first, and how many were dropped before them."""
        if name not in self._has_memory:
            return np.zeros((0, 3), np.int64), 0
        number = self._numbers[name]
        count, events = int(self._segment["count"][number, 0]), self._segment["events"][number]
        if count <= EVENTS:
            return events[:count], 0
        return np.roll(events, -(count % EVENTS), axis=0), count - EVENTS

    def _lines(self, name: str, events: IntArray, dropped: int, origin: int) -> Iterator[str]:
        if not len(events):
            return
        number, names = self._numbers[name], self._tracks[name]
        place = f'"pid": {number}, "tid": {number}'
        yield f'{{"ph": "M", "name": "process_name", {place}, "args": {{"name": "{name}"}}}}'
        yield f'{{"ph": "M", "name": "process_sort_index", {place}, "args": {{"sort_index": {number}}}}}'
        if dropped:
            labels = f"{dropped:,} older events dropped"
            yield f'{{"ph": "M", "name": "process_labels", {place}, "args": {{"labels": "{labels}"}}}}'
        for what, begin, end in events.tolist():
            times = f'"ts": {(begin - origin) / 1000:.3f}, "dur": {(end - begin) / 1000:.3f}'
            yield f'{{"ph": "X", "name": "{names[what]}", {times}, {place}}}'


def stopwatch(totals: IntArray, track: Track | None) -> Stopwatch:
    """For a loop that is traced, or not."""
    return Stopwatch(totals) if track is None else Traced(totals, track)


def _block(tracks: int) -> Layout:
    return {"count": (np.int64, (tracks, _COUNT)), "events": (np.int64, (tracks, EVENTS, 3))}
