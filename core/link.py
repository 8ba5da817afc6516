"""The link: what a run's gate and a collector on another machine say to each other, over TCP, encrypted (CURVE).

    collector                                gate
    Join                           ->        asks the main process for lanes
                                   <-        Welcome, or Bye
    Said: a worker's report        ->        the same on the control channel
                                   <-        Told: a command
    Batch + frames, rows, words    ->        checks them (core/intake.py), writes them into the lane
                                   <-        Go: how far the worker may go; rows that have arrived
                                   <-        Parameters + a piece of the newest weights
    Got: that version is complete  ->        sends a newer one, if there is one
    Gone: a worker left in order   ->        frees its lane
    Beat                          <->        Beat, so that silence means that the other side is not there
                                   <-        Bye: why it is over

A message is its head, one of the types below as msgpack, and the bytes of arrays as further parts. Nothing waits in
an unbounded queue: a collector's worker is `WINDOW_BYTES` of rows ahead of `Go` at most, and one version of the weights
is on its way at a time. A connection that breaks is not mended: who comes back joins anew.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from core.control import MAX_BYTES, Answer, Begin, Command, Episodes, Failed, Ready, Stats
from core.types import EnvSpec

PROTOCOL = 1
"""of two that differ none understands the other"""
WINDOW_BYTES, BATCH_BYTES = 2**20, 2**18
"""of rows that a worker may be ahead, and that travel at once; a single row may be larger"""
PIECE_BYTES = 2**18
"""of weights that travel at once"""
BEAT_S, SILENCE_S = 0.5, 5.0
"""between two signs of life; without one, the other side is gone"""
TURN_MS, LONG_TURN_MS = 2, 10
"""how long either side sleeps if nothing comes in: while a worker waits for the run, and while none does"""
MOST_WORKERS = 64
"""of one collector"""


class Join(msgspec.Struct, tag=True, frozen=True):
    """I bring so many workers."""

    protocol: int
    workers: int


class Said(msgspec.Struct, tag=True, frozen=True):
    """The worker of this lane says."""

    lane: int
    report: Ready | Episodes | Stats | Failed | Answer


class Batch(msgspec.Struct, tag=True, frozen=True):
    """The next frames and rows of this lane. Parts: of each field of stacked frames its frames; the rows, if any."""

    lane: int
    first: int
    """index of the first row"""
    rows: int
    first_frame: int
    frames: int
    words: list[int]
    """the worker's own counters, COUNTERS of core/outlet.py; none if some of the rows that they count are to come"""


class Got(msgspec.Struct, tag=True, frozen=True):
    """This version of the weights is here."""

    version: int


class Gone(msgspec.Struct, tag=True, frozen=True):
    """The worker of this lane has left in order, and all its rows were sent."""

    lane: int
    why: str


class Beat(msgspec.Struct, tag=True, frozen=True):
    """I am here."""


class Post(msgspec.Struct, frozen=True):
    """One lane, as its last writer left it."""

    lane: int
    epoch: int
    words: list[int]
    """those that a writer stores"""


class Welcome(msgspec.Struct, tag=True, frozen=True):
    """These lanes are yours."""

    spec: EnvSpec
    """of the run's environment: yours must have the same"""
    begin: Begin
    config: str
    """of the first worker, as JSON (envproc.worker.WorkerConfig)"""
    posts: list[Post]


class Told(msgspec.Struct, tag=True, frozen=True):
    """For the worker of this lane."""

    lane: int
    command: Command


class Go(msgspec.Struct, tag=True, frozen=True):
    """The worker of this lane may start a step while its decisions are below `allowed`."""

    lane: int
    allowed: int
    taken: int
    """rows below this index have arrived"""


class Parameters(msgspec.Struct, tag=True, frozen=True):
    """A piece of the weights, its first byte the one at `offset`. Part: its bytes."""

    version: int
    update: int
    offset: int


class Bye(msgspec.Struct, tag=True, frozen=True):
    """It is over."""

    why: str
    in_order: bool


ToGate = Join | Said | Batch | Got | Gone | Beat
ToCollector = Welcome | Told | Go | Parameters | Bye | Beat

Message = TypeVar("Message")


def unpack(decoder: msgspec.msgpack.Decoder[Message], parts: list[Any]) -> tuple[Message, list[Any]]:
    """A message and the bytes that came with it. Raises one of core.control.MALFORMED."""
    head, *data = parts
    if len(head) > MAX_BYTES:
        raise ValueError(f"a head of {len(head):,} bytes, and at most {MAX_BYTES:,} are read")
    return decoder.decode(head), data


def pack(message: ToGate | ToCollector, *data: Any) -> list[Any]:
    """Its parts."""
    return [msgspec.msgpack.encode(message), *data]
