"""Watch: hears what the processes of a run report, and notices when one of them has failed or died."""

from __future__ import annotations

import time
from collections.abc import Callable

from core.control import Failed, Ready, Report, Server
from core.supervisor import Supervisor
from core.types import EnvSpec

_LAST_WORDS_S = 0.3
"""how long a dead worker's Failed message may still be under way"""
_NAP_S = 0.002


class WorkerLost(Exception):
    """A worker failed or died; the run cannot go on without it."""

    def __init__(self, worker: str, event: str, detail: str, story: str, refusal: str = "") -> None:
        super().__init__(f"{worker} {event}: {detail}{story}")
        self.worker, self.event, self.detail = worker, event, detail
        self.refusal = refusal
        """if its environment cannot be had as it was asked for: what the user can do about it"""


class Interrupted(Exception):
    """Somebody asked the run to end: Ctrl-C or SIGTERM."""


class Watch:
    """The main process's ears and eyes."""

    def __init__(self, server: Server, supervisor: Supervisor) -> None:
        self._server, self._supervisor = server, supervisor

    def hear(self) -> list[Report]:
        """Everything that was reported since the last call. Never waits while all are well.

        Raises WorkerLost.
        """
        reports = self._server.receive()
        deaths = self._supervisor.deaths()
        deadline = time.monotonic() + _LAST_WORDS_S
        while deaths and not _failures(reports) and time.monotonic() < deadline:
            time.sleep(0.01)
            reports += self._server.receive()
        for failed in _failures(reports):
            raise WorkerLost(failed.worker, "failed", failed.error, f"\n{failed.traceback}", failed.refused)
        for dead in deaths:
            raise WorkerLost(dead.name, "died", dead.reason, f"; its last output:\n{dead.log or '(none)'}")
        return reports

    def await_spec(self, turn: Callable[[], None], interrupted: Callable[[], bool]) -> tuple[EnvSpec, list[Report]]:
        """What the first environment that is up offers, and all that was reported meanwhile.

        `turn` is called over and over. Raises as hear does, and Interrupted, and ValueError if there is no such
        environment.
        """
        heard: list[Report] = []
        while True:
            try:
                heard += self.hear()
            except WorkerLost as lost:
                if lost.refusal:
                    raise ValueError(lost.refusal) from lost
                raise
            for report in heard:
                if isinstance(report, Ready):
                    return report.spec, heard
            if interrupted():
                raise Interrupted
            turn()
            time.sleep(_NAP_S)


def _failures(reports: list[Report]) -> list[Failed]:
    return [report for report in reports if isinstance(report, Failed)]
