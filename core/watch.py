"""Watch: hears what the processes of a run report, and notices when one of them has failed or died."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from core.control import Failed, Ready, Report, Server
from core.supervisor import Death, Supervisor
from core.types import EnvSpec

_LAST_WORDS_S = 0.3
"""how long a dead worker's Failed message may still be under way"""
_NAP_S = 0.002


class Loss(NamedTuple):
    """Somebody failed, died, or was killed because it hung."""

    worker: str
    event: str
    detail: str
    story: str = ""
    """the traceback, or what it printed last"""
    refusal: str = ""
    """if its environment cannot be had as it was asked for: what the user can do about it"""


class WorkerLost(Exception):
    """The run cannot go on without it."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(f"{loss.worker} {loss.event}: {loss.detail}{loss.story}")
        self.loss = loss


class Interrupted(Exception):
    """Somebody asked the run to end: Ctrl-C, SIGTERM or SIGHUP."""


class Watch:
    """The main process's ears and eyes."""

    def __init__(self, server: Server, supervisor: Supervisor) -> None:
        self._server, self._supervisor = server, supervisor
        self._dead: dict[str, tuple[Death, float]] = {}  # and until when they may still be heard

    def hear(self) -> tuple[list[Report], list[Loss]]:
        """Everything that was reported since the last call, and who was lost. Never waits."""
        now = time.monotonic()
        self._dead |= {dead.name: (dead, now + _LAST_WORDS_S) for dead in self._supervisor.deaths()}
        reports = self._server.receive()
        losses = []
        for failed in [report for report in reports if isinstance(report, Failed)]:
            losses.append(Loss(failed.worker, "failed", failed.error, f"\n{failed.traceback}", failed.refused))
            self._supervisor.dismiss(failed.worker)  # if it is not gone yet, it is about to go
            self._dead.pop(failed.worker, None)
        for name, (dead, deadline) in list(self._dead.items()):
            if dead.was_killed or now > deadline:
                del self._dead[name]
                losses.append(Loss(name, "died", dead.reason, f"; its last output:\n{dead.log or '(none)'}"))
        return [report for report in reports if not isinstance(report, Failed)], losses

    def await_spec(self, turn: Callable[[], None], interrupted: Callable[[], bool]) -> tuple[EnvSpec, list[Report]]:
        """What the first environment that is up offers, and all that was reported meanwhile.

        `turn` is called over and over. Raises Interrupted, WorkerLost if somebody is lost, and ValueError if there is
        no such environment.
        """
        heard: list[Report] = []
        while True:
            reports, losses = self.hear()
            for loss in losses:
                if loss.refusal:
                    raise ValueError(loss.refusal)
                raise WorkerLost(loss)
            heard += reports
            for report in reports:
                if isinstance(report, Ready):
                    return report.spec, heard
            if interrupted():
                raise Interrupted
            turn()
            time.sleep(_NAP_S)
