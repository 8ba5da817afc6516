"""Several processes that write at full speed, while this one samples: what the ring's words and headers cost then,
beside processes that copy the same bytes into memory of the same kind, and tell nobody."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from statistics import median

from core.replay import Sampler
from core.ring import Ring, Word
from core.supervisor import Supervisor
from core.types import Recording
from scripts.options import num_cores
from scripts.profile.copies import take_batches, whole
from scripts.profile.measure import times
from scripts.profile.report import Report
from scripts.profile.shapes import Shape, Steps
from scripts.profile.writer import APPEND, COPY, REST, WriterConfig

_START_S = 60
"""most that the writers may take until their lanes are full"""


def beside_writers(
    report: Report, shapes: dict[str, Shape], counts: list[int] | None, batch: int, rounds: int, seconds: float
) -> None:
    """A table of the report. `counts`: writers at once; None: 1, 2, 4 ... up to one on each core."""
    title = f"Writers at full speed, beside a learner that samples {batch} rows all the time"
    headings = "sample, us", "take, us", "times", "rows/s", "copied/s", "again/batch"
    table = report.table(title, 24, *headings)
    for rows, shape in shapes.items():
        for count in counts or _up_to(num_cores()):
            with _Writing(rows, shape, count, batch) as writing:
                taken = [(writing.measure(APPEND, seconds), writing.measure(COPY, seconds)) for _ in range(rounds)]
                again = writing.drawn_again()
            (sample, rate), (take, copied) = (map(median, zip(*side, strict=True)) for side in zip(*taken, strict=True))
            figures = sample, take, sample / take, round(rate), round(copied), again
            table.row(f"{rows}, {count} writer(s)", *figures)


class _Writing:
    """The writers' processes, their lanes full, at rest."""

    def __init__(self, rows: str, shape: Shape, count: int, batch: int) -> None:
        self._opened = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            ring, bare = (
                opened.enter_context(Ring.create(shape.spec, Recording(), count, shape.capacity)) for _ in range(2)
            )
            supervisor = opened.enter_context(Supervisor())
            opened.callback(ring.stop)
            for lane in range(count):
                config = WriterConfig(ring.address, bare.address, rows, lane)
                supervisor.start(f"writer-{lane}", "scripts.profile.writer", config)
            self._ring, self._agents = ring, shape.spec.num_agents
            ring.allow(APPEND)
            end = time.monotonic() + _START_S
            while (ring.load(Word.PUBLISHED) < ring.capacity).any():
                if time.monotonic() > end or supervisor.deaths():
                    raise RuntimeError(f"{count} writers have not filled their lanes within {_START_S} s")
                time.sleep(0.01)
            ring.allow(REST)
            self._sampler, self._sampled = Sampler(ring, batch, 0), 0
            steps = Steps(ring, ring.writer(0, 0))
            places = [whole(each, 2).reshape(-1) for each in (bare.rows, *bare.frames.values())]
            self._take = take_batches(steps, places, batch)
            self._opened = opened.pop_all()

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    def measure(self, mode: int, seconds: float) -> tuple[float, float]:
        """Microseconds of one sample, and rows written a second, by all writers together."""
        steps, begun = self._ring.load(Word.STEPS).sum(), time.perf_counter()
        self._ring.allow(mode)
        us = times({"": self._sample if mode == APPEND else self._take}, seconds)[""]
        self._ring.allow(REST)
        steps, taken = self._ring.load(Word.STEPS).sum() - steps, time.perf_counter() - begun
        return us, float(steps) * self._agents / taken

    def drawn_again(self) -> float:
        """Rows of one sample that were overwritten while they were copied, on average."""
        return self._sampler.num_lapped / self._sampled

    def _sample(self) -> None:
        self._sampler.sample()
        self._sampled += 1


def _up_to(most: int) -> Iterator[int]:
    count = 1
    while count <= most:
        yield count
        count *= 2
