"""Job: what happens between two updates of a run.

Hears what the workers report, notices who died, asks for evaluations and checkpoints when they are due, and says when
the run is finished. The learner calls `attend` all the time; it does nothing until something may be due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from core.collectors import Collectors
from core.control import Answer, Episodes, Evaluated, Order, Ready, Renew, Reply, Report, Server, Stats, worker_name
from core.evaluations import EVALUATOR, LONGEST_S, Evaluations
from core.group import Differs, GroupLost
from core.joining import Alive, Joins, Left, TurnedAway
from core.learner import Learner, Phase
from core.metrics import Metrics
from core.progress import Progress
from core.rescue import Rescue
from core.ring import Word
from core.roster import Roster
from core.snapshots import Snapshots
from core.steering import Change, Steering
from core.watch import Interrupted, Watch
from core.weights import Published

_ATTEND_EVERY_S = 0.005
_LONGEST_REST_S = 0.2
"""after a checkpoint that was ordered, too, somebody may wait to be heard"""
_RENEWAL = 0
"""the number of such a request; those of others are higher"""


@dataclass(frozen=True)
class Schedule:
    """When the run ends, and what it does on the way; all in agent steps."""

    steps: int
    """the run ends after so many"""
    until_return: float | None
    """the run ends when an evaluation reaches this mean return"""
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
        roster: Roster,
        collectors: Collectors,
        change: Callable[[str, str], Change],
        evaluations: Evaluations,
        snapshots: Snapshots,
        schedule: Schedule,
        turn: Callable[[], None],
        interrupted: Callable[[], bool],
    ) -> None:
        """`change`: what it would be to set a key, or ValueError.

        `turn` is called over and over while an evaluation is awaited; `interrupted` tells whether to end the run.
        """
        self.learner = learner
        self.reason = ""
        """why the run is finished; empty while it is not"""
        self._server = server
        self._watch = watch
        self._metrics = metrics
        self._roster, self._collectors = roster, collectors
        self._evaluations, self._snapshots = evaluations, snapshots
        self._schedule = schedule
        self._turn = turn
        self._interrupted = interrupted

        def published() -> Published:
            return Published(learner.weights.address, snapshots.policy)

        self._steering = Steering(server, learner, metrics, roster, change, self.checkpoint, schedule.waits, published)
        self._renewing: set[str] = set()  # workers that have not answered yet
        self._next_attend = 0.0
        self._progress = Progress(learner, server, metrics, schedule.waits)
        self._rescue = Rescue(learner, snapshots, metrics)

    def attend(self) -> None:
        """Hear reports, notice deaths, write progress, if it is time to.

        Raises WorkerLost or Interrupted.
        """
        now = time.monotonic()
        if now < self._next_attend:
            return
        self._hear()
        heard = time.monotonic()
        # whoever orders without end has half of the time at most; the rest is for learning
        self._next_attend = heard + min(max(_ATTEND_EVERY_S, heard - now), _LONGEST_REST_S)
        while self._steering.paused:
            if not self._schedule.waits:  # in lock-step they stop at the end of their round anyway
                self.learner.ring.allow(0)
            self._turn()
            time.sleep(_ATTEND_EVERY_S)
            self._hear()

    def _hear(self) -> None:
        """All that was reported; and what is to be done about it."""
        if self._interrupted():
            raise Interrupted
        if self.learner.meetings is not None:
            self.learner.meetings.attend()
        self._evaluations.send()
        self._steering.attend()
        reports, losses = self._watch.hear()
        self.note(reports)
        for loss in self._collectors.lost(losses):
            self._steering.lost(loss.worker)
            self._renewing.discard(loss.worker)
            self._roster.lost(loss)
        if self._evaluations.hangs:
            self._roster.kill(EVALUATOR, "hangs", f"an evaluation has taken more than {LONGEST_S:.0f} s")
        self._roster.attend()
        self._progress.write_if_due(self._steering.paused)

    def finished(self) -> bool:
        """Whether the run has reached its end. Asks for an evaluation, and writes a checkpoint, when one is due.

        Raises Diverged.
        """
        self._rescue.attend()
        steps, schedule = self.learner.agent_steps, self._schedule
        if self._evaluations.due(steps) and not self._has_reached_goal():
            self._evaluations.ask()
            if schedule.waits:
                self._await_evaluation()
        if self.learner.meetings is not None and self.learner.meetings.reason:
            self.reason = self.learner.meetings.reason
        elif self._has_reached_goal():
            self.reason = "until_return"
        elif steps >= schedule.steps:
            self.reason = "steps"
        elif self._steering.stopped:
            self.reason = "stopped"
        elif self._snapshots.due(steps):
            self._checkpoint_or_go_on()
            if schedule.waits:
                self._renew_workers()
        return bool(self.reason)

    def _has_reached_goal(self) -> bool:
        goal, newest = self._schedule.until_return, self._evaluations.newest
        return goal is not None and newest is not None and newest.mean >= goal

    def leave(self) -> str:
        """Have the other learners end with this one, which was interrupted; says what was in the way."""
        try:
            if self.learner.meetings is not None:
                self.learner.meetings.leave("interrupted")
        except (Differs, GroupLost) as trouble:
            return str(trouble)
        return ""

    def close(self) -> None:
        """Nobody works any more."""
        self._steering.close()

    def checkpoint(self, last: bool = False) -> str:
        """Write one; returns its number. Raises OSError if it cannot be written."""
        learner = self.learner
        learner.stopwatch.start()
        agent_steps = learner.agent_steps  # workers go on while it is written: it holds these at least
        directory = self._snapshots.take(self._metrics.wall_s(), last)
        learner.stopwatch.lap(Phase.CHECKPOINT)
        self._metrics.write(
            "checkpoint",
            agent_steps=agent_steps,
            updates=learner.updates,
            number=directory.name,
            seconds=round(self._snapshots.took_s, 3),
        )
        return directory.name

    def _checkpoint_or_go_on(self) -> None:
        """The run is worth more than its next checkpoint: the disk may have room again later."""
        try:
            self.checkpoint()
        except OSError as error:
            learner = self.learner
            figures = {"agent_steps": learner.agent_steps, "updates": learner.updates}
            self._metrics.write("checkpoint", **figures, failed=str(error))

    def _renew_workers(self) -> None:
        """Have all workers begin anew, as those of a run that is resumed do."""
        lives = self.learner.ring.load(Word.LIVES).tolist()
        for lane, epoch in enumerate(lives):
            if worker_name(lane) in self._roster.at_work:
                self._renewing.add(worker_name(lane))
                self._server.send(worker_name(lane), Renew(_RENEWAL, epoch))
        self._await(lambda: bool(self._renewing))

    def conclude(self) -> None:
        """After the last update: evaluate what came out, unless the newest evaluation is why the run ended."""
        evaluations = self._evaluations
        if self.reason == "until_return" or not self.learner.updates or not evaluations.wanted:
            return
        self._await_evaluation()
        if evaluations.newest is None or evaluations.newest.update < self.learner.updates:
            evaluations.ask()
            self._await_evaluation()
        self._progress.write()

    def summary(self) -> dict[str, Any]:
        """The fields of the run's last record, as far as they are known here."""
        last, best, learner = self._evaluations.newest, self._evaluations.best, self.learner
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

    def _await_evaluation(self) -> None:
        self._await(lambda: self._evaluations.under_way)

    def _await(self, waiting: Callable[[], bool]) -> None:
        """Wait while `waiting`: for workers or the evaluator, whom the roster replaces if they hang. Raises as attend
        does."""
        while waiting():
            self._turn()
            self.attend()

    def note(self, reports: Iterable[Report]) -> None:
        """Act on what was reported."""
        for report in reports:
            self._note(report)

    def _note(self, report: Report) -> None:
        match report:
            case Ready(worker, pid, launch_s, spec):
                if self._roster.ready(worker, spec):
                    self._metrics.write("worker", worker=worker, event="ready", pid=pid, launch_s=round(launch_s, 3))
                if worker == EVALUATOR:
                    self._evaluations.ask_again()
            case Episodes(_, episodes):
                self._progress.note(episodes)
            case Stats(worker, values):
                self._metrics.write("env", agent_steps=self.learner.agent_steps, worker=worker, values=values)
            case Answer(worker, request, done, what):
                if request == _RENEWAL and worker in self._renewing:
                    self._renewing.remove(worker)
                    return
                if self._steering.heard(report):
                    return
                event = "obeyed" if done else "refused"
                self._metrics.write("worker", worker=worker, event=event, request=request, detail=what)
            case Order(request) if self._interrupted():  # others may be behind it, and each may take long
                self._server.send(report.client, Reply(request, False, "the run has ended"))
            case Order():
                self._steering.obey(report)
            case Joins():
                self._collectors.answer(report, self._roster)
            case Left(worker, why):
                self._collectors.left(worker)
                self._roster.left(worker, why)
            case Alive():
                self._collectors.signs_of_gate += 1
            case TurnedAway(_, count):
                self._server.num_refused_at_gate += count
            case Evaluated():
                if evaluation := self._evaluations.note(report):
                    self._metrics.write("eval", agent_steps=self.learner.agent_steps, **evaluation.figures())
