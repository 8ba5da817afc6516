"""Progress: how a run goes, twice a second: the record from which all displays and curves are made."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from core.control import Episode, Server
from core.learner import Learner, Phase
from core.meetings import Said
from core.metrics import Metrics
from core.ring import LINK_PHASES, WORKER_PHASES, Word
from core.waiting import num_cores, paced_by, who_waits

_EVERY_S = 0.5
_LEARNER = tuple("waits" if phase is Phase.WAIT else phase.name.lower() for phase in Phase)
_WORKER = WORKER_PHASES | LINK_PHASES


class Progress:
    """Of one run."""

    def __init__(self, learner: Learner, server: Server, metrics: Metrics, in_turns: bool) -> None:
        """`in_turns`: learner and workers do not go on at the same time."""
        self._learner, self._server, self._metrics, self._in_turns = learner, server, metrics, in_turns
        self._ended: list[Episode] = []  # since the last record
        self._last = _Counters(learner)

    def note(self, episodes: list[Episode]) -> None:
        """These have ended."""
        self._ended += episodes
        if (meetings := self._learner.meetings) is not None:
            sums = len(episodes), sum(each.ret for each in episodes), sum(each.length for each in episodes)
            meetings.episodes = [before + more for before, more in zip(meetings.episodes, sums, strict=True)]

    def write_if_due(self, paused: bool) -> None:
        """Write a record, if the last one is half a second old."""
        if time.monotonic() >= self._last.time + _EVERY_S:
            self.write(paused)

    def write(self, paused: bool = False) -> None:
        """Write a record about the time since the last one."""
        learner, last, now = self._learner, self._last, _Counters(self._learner)
        seconds = max(now.time - last.time, 1e-9)
        ended = [(each.ret, float(each.length)) for each in self._ended]
        num_ended, num_workers = len(ended), int(learner.ring.at_work.sum())
        return_mean, length_mean = np.array(ended or [(np.nan, np.nan)]).mean(axis=0).tolist()
        if (meetings := learner.meetings) is not None:
            num_ended, num_workers = int(now.episodes[0] - last.episodes[0]), int(meetings.total(Said.WORKERS))
            return_mean, length_mean = ((now.episodes - last.episodes)[1:] / (num_ended or np.nan)).tolist()
        losses = {name: value.item() for name, value in learner.metrics.items()}
        at_work = learner.ring.at_work
        whose = at_work if at_work.any() else np.ones_like(at_work)  # nobody, for a moment
        learners = _shares(_LEARNER, now.learner_ns - last.learner_ns, seconds)
        workers = _shares(_WORKER, (now.worker_ns - last.worker_ns)[:, whose].mean(axis=1), seconds)
        if not now.worker_ns[-len(LINK_PHASES) :].any():
            workers = {phase: workers[phase] for phase in WORKER_PHASES}
        acting = learner.ring.load(Word.ACTING_UPDATE)[whose]
        self._metrics.write(
            "progress",
            losses,
            env_steps=now.env_steps,
            agent_steps=now.agent_steps,
            updates=now.updates,
            env_steps_per_s=round((now.env_steps - last.env_steps) / seconds, 1),
            agent_steps_per_s=round((now.agent_steps - last.agent_steps) / seconds, 1),
            updates_per_s=round((now.updates - last.updates) / seconds, 1),
            workers=num_workers,
            return_mean=return_mean,
            length_mean=length_mean,
            episodes=num_ended,
            weights_lag=float(now.updates - acting.mean()),
            **learner.feed.figures(now.updates),
            publications_refused=learner.num_refused,
            updates_skipped=learner.skipped.total,
            rows_refused=int(learner.ring.load(Word.REFUSED).sum()),
            messages_refused=self._server.num_refused,
            **{f"learner_{phase}": share for phase, share in learners.items()},
            **{f"workers_{phase}": share for phase, share in workers.items()},
            waiting="paused" if paused else self._who_waits(learners, workers),
        )
        self._ended.clear()
        self._last = now

    def _who_waits(self, learner: dict[str, float], workers: dict[str, float]) -> str:
        ring, pace = self._learner.ring, paced_by(self._learner.algorithm.config)
        here = int((ring.at_work & ring.wanted).sum())  # who has joined does so on another machine's cores
        return who_waits(learner, workers, here, num_cores(), pace, self._in_turns)


class _Counters:
    """Totals at one moment."""

    def __init__(self, learner: Learner) -> None:
        self.time = time.monotonic()
        self.agent_steps = learner.agent_steps
        self.env_steps = int(learner.ring.load(Word.STEPS).sum())
        self.episodes = np.zeros(3)
        """of all learners, where there are several: how many ended, the sums of their returns and lengths"""
        if (meetings := learner.meetings) is not None:
            self.env_steps = int(meetings.total(Said.ENV_STEPS))
            totals = (Said.EPISODES, Said.RETURNS, Said.LENGTHS)
            self.episodes = np.array([meetings.total(each) for each in totals])
        self.updates = learner.updates
        self.learner_ns = learner.spent_ns.astype(np.float64)
        self.worker_ns = np.array([learner.ring.load(word) for word in _WORKER.values()], np.float64)
        """(phases, lanes)"""


def _shares(phases: Iterable[str], spent_ns: npt.NDArray[np.float64], seconds: float) -> dict[str, float]:
    return {phase: round(float(ns) / 1e9 / seconds, 3) for phase, ns in zip(phases, spent_ns, strict=True)}
