"""A writer process that fills one lane as fast as it can with known rows; and the ways in which it may be broken.

`python -m tests.stress.writer JOB`: it says "ready", waits for a line, and writes until told to stop, or alone.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

import core.atomic
from core.ring import Ring, RingAddress, Word, Writer
from core.types import Rows
from tests.core.known_rows import PERIOD, known, spec

Kind = Literal["right", "claims late", "publishes early"]
STEPS_A_LOOK = 64
"""steps between two looks at whether to go on"""
WAIT_S = 60


@dataclass(frozen=True)
class Job:
    """What one writer process does; it travels as JSON."""

    ring: RingAddress
    width: int
    """of the rows' observation"""
    k: int
    """rows in one step"""
    epoch: int = 1
    kind: Kind = "right"
    numba: bool = False
    """real machine atomics instead of plain loads and stores"""


class LateWriter(Writer):
    """A broken twin: it claims rows after it has written them."""

    def append(self, rows: Rows) -> None:
        data, start = self._prepared(rows)
        self._lane[(start + np.arange(len(data))) % len(self._lane)] = data
        self.words[Word.CLAIMED] = self.words[Word.PUBLISHED] = self.published

    def _prepared(self, rows: Rows) -> tuple[npt.NDArray[np.void], int]:
        start = self.published
        rows["index"] = np.arange(start, start + len(rows))
        self.published += len(rows)
        return rows.view(self._lane.dtype), start


class EarlyWriter(LateWriter):
    """A broken twin: it publishes rows before it writes them."""

    def append(self, rows: Rows) -> None:
        data, start = self._prepared(rows)
        self.words[Word.CLAIMED] = self.words[Word.PUBLISHED] = self.published
        self._lane[(start + np.arange(len(data))) % len(self._lane)] = data


WRITERS: dict[Kind, type[Writer]] = {"right": Writer, "claims late": LateWriter, "publishes early": EarlyWriter}


def use_numba() -> None:
    """Real machine atomics in core.ring, from here on."""
    from core import atomic_numba, ring

    for name in core.atomic.__all__:
        setattr(ring, name, getattr(atomic_numba, name))


def work(job: Job) -> None:
    if job.numba:
        use_numba()
    parent = os.getppid()
    with Ring.attach(job.ring, spec(job.width)) as ring:
        # all rows there will ever be, and the first ones again at the end
        rows = known(ring.layout, PERIOD + job.k)
        print("ready", flush=True)
        sys.stdin.readline()
        writer = WRITERS[job.kind](ring, 0, job.epoch)
        while not ring.words[0, Word.STOP] and os.getppid() == parent:
            for _ in range(STEPS_A_LOOK):
                at = writer.published % PERIOD
                writer.append(rows[at : at + job.k])


class Process:
    """One writer process."""

    def __init__(self, job: Job) -> None:
        command = [sys.executable, "-m", "tests.stress.writer", msgspec.json.encode(job).decode()]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        self._is_ready = False

    def ready(self) -> None:
        """Wait until it has attached."""
        assert self.child.stdout is not None
        if not self._is_ready:
            said, _, _ = select.select([self.child.stdout], [], [], WAIT_S)
            assert said and self.child.stdout.readline() == b"ready\n", "a writer process did not come up"
            self._is_ready = True

    def go(self) -> None:
        """Let it write."""
        assert self.child.stdin is not None
        self.ready()
        self.child.stdin.write(b"go\n")
        self.child.stdin.flush()

    def kill(self) -> None:
        self.child.kill()
        self.child.communicate(timeout=20)


@contextmanager
def writing(job: Job) -> Iterator[Process]:
    """A process that writes; it is gone at the end."""
    process = Process(job)
    try:
        process.go()
        yield process
    finally:
        process.kill()


if __name__ == "__main__":
    work(msgspec.json.decode(sys.argv[1], type=Job))
