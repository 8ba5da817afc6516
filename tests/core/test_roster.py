"""Who cannot be started is tried again, later; nobody else notices."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Any

import pytest

from core.control import worker_name
from core.ring import Ring
from core.roster import Limits, Roster
from core.types import ActionSpec, EnvSpec, FieldSpec, Recording
from core.watch import Loss, WorkerLost

SPEC = EnvSpec({"vector": FieldSpec((2,))}, ActionSpec((-1.0,), (1.0,)), 4)


class Office:
    """A roster of two workers that are nobody, on a machine that may have no room for another one."""

    def __init__(self, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ring = Ring.create(SPEC, Recording(), 2, 100)
        self.there: set[str] = set()
        self.is_full = False
        self.told: list[tuple[str, str]] = []
        self._now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: self._now)
        anything: Any = None
        it: Any = self
        self.roster = Roster(self.ring, it, it, it, SPEC, anything, limits)
        self.roster.start(hired=False)

    def hire(self, lane: int, epoch: int) -> None:
        if self.is_full:
            raise OSError(errno.EMFILE, "Too many open files")
        self.there.add(worker_name(lane))

    def send(self, name: str, command: object) -> bool:
        return True

    def dismiss(self, name: str) -> None:
        self.there.discard(name)

    def has(self, name: str) -> bool:
        return name in self.there

    def write(self, kind: str, *, worker: str, event: str, **more: object) -> None:
        self.told.append((worker, event))

    def lose(self, name: str) -> None:
        self.there.discard(name)
        self.roster.lost(Loss(name, "died", "killed by signal 9"))

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.5)):
            self._now += 0.5
            self.roster.attend()

    def of(self, name: str) -> list[str]:
        return [event for worker, event in self.told if worker == name]


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    made = Office(Limits(max_restarts=5), monkeypatch)
    yield made
    made.ring.close()


def test_a_worker_for_which_there_is_no_room_is_started_when_there_is_again(office: Office) -> None:
    office.is_full = True
    office.lose("worker-0")
    office.pass_time(25)
    assert office.of("worker-0") == ["started", "died", *["not started"] * 3]
    office.is_full = False
    office.pass_time(10)
    assert office.of("worker-0")[-1] == "restarted" and office.there == {"worker-0", "worker-1"}
    assert office.of("worker-1") == ["started"]


def test_each_time_counts_and_who_cannot_be_started_for_long_is_given_up(office: Office) -> None:
    office.is_full = True
    office.lose("worker-0")
    office.pass_time(100)
    assert office.of("worker-0") == ["started", "died", *["not started"] * 5, "given up"]
    with pytest.raises(WorkerLost, match="Too many open files"):
        office.lose("worker-1")
        office.pass_time(100)


def test_workers_that_cannot_be_added_leave_nothing_behind(office: Office) -> None:
    office.roster.remove(1)
    office.is_full = True
    with pytest.raises(OSError, match="Too many open files"):
        office.roster.add(1)
    office.is_full = False
    assert office.roster.add(1) == "start: worker-1"
    assert office.of("worker-1") == ["started", "leaves", "started"]


def test_who_is_ready_when_it_has_left_already_is_not_awaited(office: Office) -> None:
    assert office.roster.ready("worker-1", SPEC)
    office.roster.remove(1)
    assert not office.roster.ready("worker-1", SPEC)
