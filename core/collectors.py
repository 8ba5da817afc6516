"""Collectors: workers on other machines, beside the run's own, for whoever keeps the roster.

They come in through the gate (envproc/gate.py), another process, which speaks for each of them on the control channel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec

from core.control import Server, worker_name
from core.joining import GATE, Admitted, Expel, Joins
from core.metrics import Metrics
from core.roster import Crew, Roster
from core.watch import Loss

LAST_WORDS_S = 0.5
"""how long a name may still be in use on the control channel after the last word about it"""


class Collectors:
    """The run's own crew, and who has joined, as one crew."""

    def __init__(self, crew: Crew, server: Server, metrics: Metrics, config_of: Callable[[int, int], object]) -> None:
        """`config_of`: what a worker is told at birth, by its lane and epoch."""
        self.num_admitted = 0
        """workers, so far"""
        self.signs_of_gate = 0
        """of life"""
        self._crew, self._server, self._metrics, self._config_of = crew, server, metrics, config_of
        self._lanes: dict[str, int] = {}  # of those that the gate has not said the last word about
        self._free_at: dict[str, float] = {}

    def hire(self, lane: int, epoch: int) -> None:
        """One of the run's own."""
        self._crew.hire(lane, epoch)

    def dismiss(self, name: str) -> None:
        """It was told to leave: see it out."""
        if name not in self._lanes:
            self._crew.dismiss(name)

    def kill(self, name: str) -> None:
        """It is of no use: the gate will say that it is lost; or hangs, too, and will be killed as well."""
        if name in self._lanes:
            self._server.send(GATE, Expel(self._lanes[name]))
        else:
            self._crew.kill(name)

    def has(self, name: str) -> bool:
        """Whether it is still there."""
        return name in self._lanes or time.monotonic() < self._free_at.get(name, 0.0) or self._crew.has(name)

    def answer(self, joins: Joins, roster: Roster) -> None:
        """Let a collector's workers in, if there is room."""
        try:
            lanes = roster.admit(joins.workers, joins.who)
        except (ValueError, MemoryError) as refused:
            self._metrics.write("worker", worker=GATE, event="refused", detail=f"{joins.who}: {refused}")
            self._server.send(GATE, Admitted(joins.collector, [], str(refused)))
            return
        self._lanes |= {worker_name(lane): lane for lane in lanes}
        self.num_admitted += len(lanes)
        config = msgspec.json.encode(self._config_of(lanes[0], 0)).decode()
        self._server.send(GATE, Admitted(joins.collector, lanes, config))

    def left(self, name: str) -> None:
        """The gate has said the last word about it."""
        if self._lanes.pop(name, None) is not None:
            self._free_at[name] = time.monotonic() + LAST_WORDS_S

    def lost(self, losses: list[Loss]) -> Iterator[Loss]:
        """The same losses; and that of the gate takes everybody along who had come in there."""
        for loss in losses:
            if loss.worker == GATE:
                for name in list(self._lanes):
                    self.left(name)
                    yield Loss(name, "died", "the gate is gone, and so is the link")
            self.left(loss.worker)
            yield loss
