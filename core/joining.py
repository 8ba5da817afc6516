"""Workers on other machines: what the run's gate (envproc/gate.py) and the main process tell each other about them.

Whoever joined is a worker like others to the main process: it reports under its lane's name, on the control channel,
and is told what to do there. The gate stands at that end of the channel in its place.
"""

from __future__ import annotations

import msgspec

GATE = "gate"
"""what the gate is called on the control channel"""


class Joins(msgspec.Struct, tag=True, frozen=True):
    """Gate to main: a collector wants lanes for so many workers."""

    worker: str
    collector: str
    """its number at the gate"""
    who: str
    """whose key it has, and where it is"""
    workers: int


class Admitted(msgspec.Struct, tag=True, frozen=True):
    """Main to gate: the one answer to Joins."""

    collector: str
    lanes: list[int]
    """its own now; none if it was refused"""
    config: str
    """of the first lane's worker, as JSON; or why it was refused"""


class Expel(msgspec.Struct, tag=True, frozen=True):
    """Main to gate: this worker is of no use as it is. Its lane will be Failed, soon."""

    lane: int


class Left(msgspec.Struct, tag=True, frozen=True):
    """A joined worker to main: I have gone, in order."""

    worker: str
    why: str


class Alive(msgspec.Struct, tag=True, frozen=True):
    """Gate to main, several times a second: I do not hang."""

    worker: str


class TurnedAway(msgspec.Struct, tag=True, frozen=True):
    """Gate to main: so many more connections, or messages, were refused."""

    worker: str
    count: int
