"""Progress: how a run goes, twice a second: the record from which all displays and curves are made."""

from __future__ import annotations

import time

import numpy as np

from core.control import Episode, Server
from core.learner import Learner
from core.metrics import Metrics
from core.ring import Word

_EVERY_S = 0.5


class Progress:
    """Of one run."""

    def __init__(self, learner: Learner, server: Server, metrics: Metrics) -> None:
        self.ended: list[Episode] = []
        """since the last record"""
        self._learner, self._server, self._metrics = learner, server, metrics
        self._last = _Counters(learner)

    def write_if_due(self, paused: bool) -> None:
        """Write a record, if the last one is half a second old."""
        if time.monotonic() >= self._last.time + _EVERY_S:
            self.write(paused)

    def write(self, paused: bool = False) -> None:
        """Write a record about the time since the last one."""
        learner, last, now = self._learner, self._last, _Counters(self._learner)
        seconds = max(now.time - last.time, 1e-9)
        ended = [(each.ret, float(each.length)) for each in self.ended]
        return_mean, length_mean = np.array(ended or [(np.nan, np.nan)]).mean(axis=0).tolist()
        losses = {name: value.item() for name, value in learner.metrics.items()}
        learner_waited = (now.learner_waited - last.learner_waited) / seconds
        at_work = learner.ring.at_work
        whose = at_work if at_work.any() else np.ones_like(at_work)  # nobody, for a moment
        workers_waited = float((now.workers_waited - last.workers_waited)[whose].mean()) / 1e9 / seconds
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
            workers=int(at_work.sum()),
            return_mean=return_mean,
            length_mean=length_mean,
            episodes=len(ended),
            weights_lag=float(now.updates - acting.mean()),
            **learner.feed.figures(now.updates),
            publications_refused=learner.num_refused,
            updates_skipped=learner.skipped.total,
            rows_refused=int(learner.ring.load(Word.REFUSED).sum()),
            messages_refused=self._server.num_refused,
            learner_waits=round(learner_waited, 3),
            workers_wait=round(workers_waited, 3),
            waiting="paused" if paused else _who_waits(learner_waited, workers_waited),
        )
        self.ended.clear()
        self._last = now


class _Counters:
    """Totals at one moment."""

    def __init__(self, learner: Learner) -> None:
        self.time = time.monotonic()
        self.agent_steps = learner.agent_steps
        self.env_steps = int(learner.ring.load(Word.STEPS).sum())
        self.updates = learner.updates
        self.learner_waited = learner.waited_s
        self.workers_waited = learner.ring.load(Word.WAITED_NS)


def _who_waits(learner: float, workers: float) -> str:
    shares = f"learner waits {learner:.0%}, workers wait {workers:.0%}"
    if max(learner, workers) < 0.1:
        return f"nobody waits ({shares})"
    return f"learner waits for workers ({shares})" if learner > workers else f"workers wait for learner ({shares})"
