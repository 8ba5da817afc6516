"""Roster: who works on which lane of the ring, from start to leave. Nobody is paused when somebody comes or goes."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from core.control import Begin, Server, Stop, worker_name
from core.ring import Ring, Word
from core.types import EnvSpec


class Crew(Protocol):
    """The workers themselves, processes or not."""

    def hire(self, lane: int, epoch: int) -> None:
        """Start the worker of this lane; it says Ready when its environment is up."""

    def dismiss(self, lane: int) -> None:
        """This lane's worker was told to leave: see it out."""

    def has(self, lane: int) -> bool:
        """Whether this lane's worker is still there."""


class Roster:
    """The lanes of one run and who works there."""

    def __init__(self, ring: Ring, server: Server, crew: Crew, spec: EnvSpec, begin: Begin) -> None:
        """`begin` is sent to each worker that is ready; its environment must be of `spec`."""
        self._ring, self._server, self._crew = ring, server, crew
        self._spec, self._begin = spec, begin
        self._hired: set[int] = set()
        self._begun: set[int] = set()

    @property
    def at_work(self) -> list[str]:
        """Names of the workers that have begun."""
        return [worker_name(lane) for lane in sorted(self._begun)]

    def start(self) -> None:
        """Hire for every lane at which the ring expects somebody."""
        for lane in np.flatnonzero(self._ring.at_work).tolist():
            self._hire(lane)

    def expect(self) -> None:
        """Somebody was hired for each of these lanes already."""
        self._hired.update(np.flatnonzero(self._ring.at_work).tolist())

    def ready(self, worker: str, spec: EnvSpec) -> bool:
        """This worker's environment is up: it begins. False if it is another environment than the first was."""
        for lane in self._hired:
            if worker_name(lane) == worker and spec == self._spec:
                self._server.send(worker, self._begin)
                self._begun.add(lane)
                self._ring.at_work[lane] = True
        return spec == self._spec

    def add(self, count: int) -> str:
        """Start more workers; says which. Raises ValueError or MemoryError if there is no room, OSError if a process
        cannot be started."""
        free = [lane for lane in range(self._ring.num_lanes) if lane not in self._hired and not self._crew.has(lane)]
        if count > len(free):
            raise ValueError(
                f"workers +{count}: the ring has room for {len(free)} more beside the {len(self._hired)}; "
                "start the run with more --workers"
            )
        for lane in free[:count]:
            self._ring.add_lane(lane)
        for lane in free[:count]:
            self._hire(lane)
        return f"start: {_list(free[:count])}"

    def remove(self, count: int) -> str:
        """Have the newest lanes' workers leave; says which. What they wrote stays. Raises ValueError if nobody would
        be left."""
        if count >= len(self._hired):
            raise ValueError(f"workers -{count}: there are {len(self._hired)}, and one must stay; stop ends the run")
        leaving = sorted(self._hired)[-count:]
        for lane in leaving:
            self._hired.remove(lane)
            self._begun.discard(lane)
            self._ring.at_work[lane] = False
            self._ring.stop(lane)
            self._server.send(worker_name(lane), Stop())
            self._crew.dismiss(lane)
        return f"leave: {_list(leaving)}"

    def _hire(self, lane: int) -> None:
        self._crew.hire(lane, self._ring.words.item(lane, Word.LIVES))
        self._hired.add(lane)


def _list(lanes: list[int]) -> str:
    return ", ".join(map(worker_name, lanes))
