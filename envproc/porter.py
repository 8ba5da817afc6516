"""A porter stands at the gate for one worker on another machine: it is that worker, as the main process sees it."""

from __future__ import annotations

from collections.abc import Container

from core.control import Answer, Begin, Client, Command, Episodes, Failed, Ready, Stats, Stop, worker_name
from core.intake import Intake, post_of
from core.joining import Left
from core.link import Batch, Go
from core.ring import Ring, Word


class Porter:
    """Of one lane, from admission to the last word about it."""

    def __init__(self, control: str, ring: Ring, lane: int, begin: Begin) -> None:
        self.lane = lane
        self.post = post_of(ring, lane)
        self.client = Client(control, worker_name(lane))
        self.is_over = False
        """the main process knows that nobody works here any more"""
        self.has_left = False
        """in order"""
        self._ring, self._words = ring, ring.words[lane]
        self._intake: Intake | None = None
        self._is_ready = self._was_stopped = False
        self._told = Go(lane, 0, 0)

    def says(self, report: Ready | Episodes | Stats | Failed | Answer) -> None:
        """The worker reports. Raises ValueError for what is another's to say, or not at this time."""
        if report.worker != worker_name(self.lane) or (isinstance(report, Ready) and self._is_ready):
            raise ValueError(f"{worker_name(self.lane)} may not say {report}")
        self._is_ready |= isinstance(report, Ready)
        self.is_over |= isinstance(report, Failed)
        self.client.send(report)

    def take(self, batch: Batch, data: list[object]) -> None:
        """Rows have come. Raises ValueError, and nothing is written, if they cannot be."""
        if self._intake is None:
            raise ValueError(f"{worker_name(self.lane)} has not begun")
        self._intake.take(batch, data)

    def leaves(self, why: str) -> None:
        """It has left, in order."""
        self.client.send(Left(worker_name(self.lane), why[:500]))
        self.is_over = self.has_left = True

    def fails(self, why: str) -> None:
        """It is lost, or to be."""
        if not self.is_over:
            self.client.send(Failed(worker_name(self.lane), why, ""))
            self.is_over = True

    def commands(self, ready: Container[object]) -> list[Command]:
        """What the main process tells the worker; `ready`: sockets at which something has come in."""
        commands = self.client.receive() if self.client.socket in ready else []
        if any(isinstance(each, Begin) for each in commands) and self._intake is None:
            self._intake = Intake(self._ring, self.lane, self.post.epoch)
        if self._words.item(Word.STOP) and not self._was_stopped:
            commands.append(Stop())
        self._was_stopped |= any(isinstance(each, Stop) for each in commands)
        return commands

    def go(self) -> Go | None:
        """How far it may go, if that is news."""
        if self._intake is None:
            return None
        go = Go(self.lane, self._intake.allowed(), self._intake.published)
        return go if go != self._told else None

    @property
    def waits(self) -> bool:
        """It has done all that it was told it may."""
        return bool(self._words.item(Word.DECISIONS) >= self._told.allowed)

    def told(self, go: Go) -> None:
        """It knows."""
        self._told = go

    def close(self) -> None:
        self.client.close()
