"""Job: what happens between two updates of a run.

Hears what the workers report, notices who died, asks for evaluations, writes a progress record every second, and
says when the run is finished. The learner calls `attend` all the time; it does nothing until something may be due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.control import Answer, Begin, Episodes, Evaluate, Evaluated, Ready, Report, Server, Stats
from core.learner import Learner
from core.metrics import Metrics
from core.ring import Word
from core.types import EnvSpec, FloatArray
from core.watch import Interrupted, Watch, WorkerLost
from core.weights import Weights

_ATTEND_EVERY_S = 0.005
_PROGRESS_EVERY_S = 0.5
EVALUATOR = "evaluator"
_LONGEST_EVALUATION_S = 600.0


class Evaluation:
    """The newest evaluation: exactly these parameters had these returns."""

    def __init__(self, parameters: FloatArray, answer: Evaluated) -> None:
        self.parameters = parameters
        self.update = answer.update
        self.returns = np.array(answer.returns)
        self.lengths = np.array(answer.lengths)
        self.mean = float(self.returns.mean())


@dataclass(frozen=True)
class Schedule:
    """When to evaluate and when to end; all in agent steps."""

    steps: int
    """the run ends after so many"""
    eval_every: int | None
    """None: there is no evaluator"""
    eval_episodes: int
    """at least so many make one evaluation"""
    until_return: float | None
    """the run ends when an evaluation reaches this mean return"""
    seed: int
    waits: bool
    """training stands still during an evaluation, so that the run is repeatable"""


class Job:
    """One run in progress."""

    def __init__(
        self,
        learner: Learner,
        server: Server,
        watch: Watch,
        metrics: Metrics,
        spec: EnvSpec,
        begin: Begin,
        eval_weights: Weights,
        schedule: Schedule,
        turn: Callable[[], None],
        interrupted: Callable[[], bool],
    ) -> None:
        """`begin` is sent to each worker that is ready; its environment must be of `spec`.

        `turn` is called over and over while an evaluation is awaited; `interrupted` tells whether to end the run.
        """
        self.learner = learner
        self.reason = ""
        """why the run is finished; empty while it is not"""
        self.evaluation: Evaluation | None = None
        """the newest"""
        self.best: Evaluation | None = None
        """the one with the highest mean return; the newer of equals"""
        self._server = server
        self._watch = watch
        self._metrics = metrics
        self._spec, self._begin = spec, begin
        self._eval_weights = eval_weights
        self._schedule = schedule
        self._turn = turn
        self._interrupted = interrupted
        self._request = 0
        self._asked: FloatArray | None = None  # the parameters whose evaluation is under way
        self._unsent: Evaluate | None = None  # the request for it, if the evaluator could not hear it yet
        self._next_evaluation = schedule.eval_every or 0
        self._next_attend = 0.0
        self._returns: list[float] = []  # of the episodes since the last progress record
        self._last = _Counters(learner)
        self._next_progress = self._last.time + _PROGRESS_EVERY_S

    def attend(self) -> None:
        """Hear reports, notice deaths, write progress, if it is time to.

        Raises WorkerLost or Interrupted.
        """
        now = time.monotonic()
        if now < self._next_attend:
            return
        self._next_attend = now + _ATTEND_EVERY_S
        if self._interrupted():
            raise Interrupted
        self._send_request()
        try:
            reports = self._watch.hear()
        except WorkerLost as lost:
            self._metrics.write("worker", worker=lost.worker, event=lost.event, detail=lost.detail)
            raise
        self.note(reports)
        if now >= self._next_progress:
            self.report_progress()

    def finished(self) -> bool:
        """Whether the run has reached its end. Asks for an evaluation when one is due."""
        steps, schedule = self.learner.agent_steps, self._schedule
        if not self._has_reached_goal():
            every = schedule.eval_every
            if every and self._asked is None and steps >= self._next_evaluation and self.learner.updates:
                self._next_evaluation = steps + every
                self._ask_for_evaluation()
                if schedule.waits:
                    self._await_evaluation()
        if self._has_reached_goal():
            self.reason = "until_return"
        elif steps >= schedule.steps:
            self.reason = "steps"
        return bool(self.reason)

    def _has_reached_goal(self) -> bool:
        goal = self._schedule.until_return
        return goal is not None and self.evaluation is not None and self.evaluation.mean >= goal

    def conclude(self) -> None:
        """After the last update: evaluate what came out, unless the newest evaluation is why the run ended."""
        if self.reason == "until_return" or not self.learner.updates or not self._schedule.eval_every:
            return
        self._await_evaluation()
        if self.evaluation is None or self.evaluation.update < self.learner.updates:
            self._ask_for_evaluation()
            self._await_evaluation()
        self.report_progress()

    def policy_to_keep(self) -> FloatArray:
        """(P,) the policy with the best evaluation; before there is any, the policy as it is."""
        if self.best is not None:
            return self.best.parameters
        return self.learner.policy().copy()

    def summary(self) -> dict[str, Any]:
        """The fields of the run's last record, as far as they are known here."""
        last, best, learner = self.evaluation, self.best, self.learner
        return {
            "reason": self.reason,
            "agent_steps": learner.agent_steps,
            "updates": learner.updates,
            **{
                name: value
                for name, value in learner.feed.figures(learner.updates).items()
                if name == "replay_ratio_held"
            },
            "eval_return": best.mean if best else None,  # of the policy that is kept
            "eval_update": best.update if best else None,
            "eval_episodes": len(best.returns) if best else 0,
            "last_eval_return": last.mean if last else None,
        }

    def _ask_for_evaluation(self) -> None:
        """Have the evaluator play the policy as it is now."""
        parameters = self.learner.policy().copy()
        if not self._eval_weights.publish(parameters, self.learner.updates):
            return
        self._request += 1
        self._asked = parameters
        self._unsent = Evaluate(self._request, self._schedule.eval_episodes, self._schedule.seed + self._request)
        self._send_request()

    def _send_request(self) -> None:
        if self._unsent is not None and self._server.send(EVALUATOR, self._unsent):
            self._unsent = None

    def _await_evaluation(self) -> None:
        """Wait for the evaluation under way, if any. Raises as attend does, and WorkerLost after ten minutes."""
        deadline = time.monotonic() + _LONGEST_EVALUATION_S
        while self._asked is not None:
            if time.monotonic() > deadline:
                raise WorkerLost(EVALUATOR, "hangs", f"it has not answered for {_LONGEST_EVALUATION_S:.0f} s", "")
            self._turn()
            self.attend()

    def note(self, reports: Iterable[Report]) -> None:
        """Act on what was reported."""
        for report in reports:
            self._note(report)

    def _note(self, report: Report) -> None:
        match report:
            case Ready(worker, pid, launch_s, spec):
                same_agents = worker == EVALUATOR or spec.num_agents == self._spec.num_agents
                if (spec.obs, spec.action) != (self._spec.obs, self._spec.action) or not same_agents:
                    raise WorkerLost(worker, "does not fit", f"it has {spec}, the first one ready had {self._spec}", "")
                self._metrics.write("worker", worker=worker, event="ready", pid=pid, launch_s=round(launch_s, 3))
                if worker != EVALUATOR:
                    self._server.send(worker, self._begin)
            case Episodes(_, episodes):
                self._returns += [each.ret for each in episodes]
            case Stats(worker, values):
                self._metrics.write("env", agent_steps=self.learner.agent_steps, worker=worker, values=values)
            case Answer(worker, request, done, what):
                event = "obeyed" if done else "refused"
                self._metrics.write("worker", worker=worker, event=event, request=request, detail=what)
            case Evaluated(request, update, returns):
                if self._asked is None or request != self._request or not returns:
                    return
                self.evaluation = Evaluation(self._asked, report)
                if self.best is None or self.evaluation.mean >= self.best.mean:
                    self.best = self.evaluation
                self._asked = None
                self._metrics.write(
                    "eval",
                    agent_steps=self.learner.agent_steps,
                    updates=update,
                    episodes=len(returns),
                    return_mean=self.evaluation.mean,
                    return_std=float(self.evaluation.returns.std()),
                    return_min=float(self.evaluation.returns.min()),
                    length_mean=float(self.evaluation.lengths.mean()),
                )

    def report_progress(self) -> None:
        """Write one progress record about the time since the last one."""
        learner, last, now = self.learner, self._last, _Counters(self.learner)
        seconds = max(now.time - last.time, 1e-9)
        returns = np.array(self._returns) if self._returns else np.array([np.nan])
        learner_waited = (now.learner_waited - last.learner_waited) / seconds
        workers_waited = float((now.workers_waited - last.workers_waited).mean()) / 1e9 / seconds
        acting = learner.ring.load(Word.ACTING_UPDATE)
        self._metrics.write(
            "progress",
            env_steps=now.env_steps,
            agent_steps=now.agent_steps,
            updates=now.updates,
            env_steps_per_s=round((now.env_steps - last.env_steps) / seconds, 1),
            agent_steps_per_s=round((now.agent_steps - last.agent_steps) / seconds, 1),
            updates_per_s=round((now.updates - last.updates) / seconds, 1),
            return_mean=float(returns.mean()),
            episodes=len(self._returns),
            weights_lag=float(now.updates - acting.mean()),
            **learner.feed.figures(now.updates),
            publications_refused=learner.num_refused,
            messages_refused=self._server.num_refused,
            learner_waits=round(learner_waited, 3),
            workers_wait=round(workers_waited, 3),
            waiting=_who_waits(learner_waited, workers_waited),
            **{name: value.item() for name, value in learner.metrics.items()},
        )
        self._returns.clear()
        self._last, self._next_progress = now, now.time + _PROGRESS_EVERY_S


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
