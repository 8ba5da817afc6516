"""Training: one learner, those who work for it, and what is written down about it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import traceback
from collections.abc import Callable

import torch
from rich.console import Console

from core.collectors import Collectors
from core.control import Begin, Report, Server
from core.digest import digest
from core.evaluations import EVALUATOR, Evaluations
from core.group import Differs, GroupLost
from core.job import Job, Schedule
from core.joining import GATE
from core.learner import fit_process, free_running, lock_step
from core.meetings import Meetings
from core.metrics import Metrics
from core.rescue import Diverged
from core.roster import Limits, Roster
from core.snapshots import Snapshots
from core.supervisor import Supervisor
from core.to_wandb import WandB
from core.trace import Traced
from core.tracking import TensorBoard, Tracker
from core.watch import Interrupted, Watch, WorkerLost
from envproc.worker import WorkerConfig
from scripts.command_line import refusals_are_usage_errors
from scripts.crew import Crew, InThisProcess, Processes
from scripts.entry import INTERRUPTED
from scripts.interrupts import Interrupts
from scripts.parts import (
    LEARNER,
    Parts,
    build,
    evaluator_config,
    export_refusal,
    gate_config,
    keep_records,
    machine,
    refuse_if_over,
    worker_config,
)
from scripts.plan import Plan
from scripts.settings import Settings
from scripts.site import Site

DONE, DEGRADED, FATAL = 0, 3, 4
_ENDED = {Diverged: "diverged", Differs: "ranks differ", GroupLost: "rank lost"}


class Training:
    """One learner, those who work for it, and their records. Its methods are called in their order, each once."""

    # from come_up on
    _parts: Parts
    _evaluations: Evaluations
    _snapshots: Snapshots
    # from open_records on
    _metrics: Metrics
    _job: Job
    _roster: Roster
    _collectors: Collectors

    def __init__(self, plan: Plan, site: Site, interrupts: Interrupts, opened: contextlib.ExitStack) -> None:
        """What it opens is closed, and whom it has started is gone, when `opened` is closed."""
        self.exit_code = DONE
        self.trouble = self.timeline = ""
        """to be told at the end"""
        self._plan, self._site, self._interrupts, self._opened = plan, site, interrupts, opened
        self._settings = Settings(plan.options, self._changed)
        self._server = opened.enter_context(Server(site.door))
        self._supervisor = opened.enter_context(Supervisor(site.path / "logs"))
        self._watch = Watch(self._server, self._supervisor)
        self._heard = list[Report]()  # while the environment came up
        self._earlier_s = 0.0  # what a run that goes on has taken until its checkpoint
        self._crew: Crew
        self._launching: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        if plan.options.mode == "single":
            self._crew = InThisProcess(self._config_of, interrupts.asked)
            self._launching = interrupts.raised  # what starts in this process would not let go before it is up
        else:
            self._crew = Processes(self._supervisor, self._server, self._config_of, interrupts.asked)
        opened.callback(self._crew.stop)

    def come_up(self) -> None:
        """Until it is known what the environment is, and the other learners, and what the run goes on from, are there.

        Raises UsageError, EnvFailed, WorkerLost, Interrupted, GroupLost or Differs if that will not be.
        """
        plan, options, site = self._plan, self._plan.options, self._site
        with refusals_are_usage_errors():
            if site.parts is None:
                with self._launching():
                    for lane in range(options.workers):
                        self._crew.hire(lane, epoch=0)
                spec, self._heard = self._watch.await_spec(self._crew.turn, self._interrupts.asked)
            self._parts = parts = site.parts or build(plan.algorithm, options, spec, self._opened)
            self._evaluations, self._snapshots = keep_records(parts, options, self._server, site.path, plan.leads)
            if site.snapshot:
                self._earlier_s = self._snapshots.restore(site.snapshot)
                if not plan.group:  # or else it ends at once: an earlier round may have come to the end
                    refuse_if_over(parts.learner, self._evaluations, options)
            if group := plan.group:
                group.connect(torch.device(options.device), options.hang_s, options.launch_s)
                parts.learner.meetings = Meetings(group, parts.learner) if group.size > 1 else None

    def give_up(self) -> None:
        """It did not come up: nothing is left."""
        self._crew.stop()
        self._site.directory.give_up()

    def write_config(self) -> None:
        """As it is by now, into the run's directory. Raises OSError."""
        self._site.directory.settle(self._plan.config(self._settings.options))

    def open_records(self) -> None:
        """From here on there is a run, which takes orders and writes down what happens."""
        plan, options, site, learner = self._plan, self._plan.options, self._site, self._parts.learner
        self.write_config()
        site.directory.listens(self._server.address, site.door)
        config = plan.config(options)
        trackers: list[Tracker] = [TensorBoard(site.path)] if plan.leads else []
        if options.wandb:
            trackers.append(WandB(options.wandb, site.path, config))
        console = Console() if plan.leads else Console(quiet=True, force_terminal=False)
        self._metrics = metrics = self._opened.enter_context(Metrics(site.path, console, trackers, self._earlier_s))
        metrics.write("config", **config, cores=plan.cores, **machine(options.device))
        if site.trace:
            learner.stopwatch = Traced(learner.spent_ns, site.trace.track(LEARNER))
        if site.snapshot:
            metrics.write("resumed", agent_steps=learner.agent_steps, updates=learner.updates, rejected=site.rejected)
        if group := plan.group:
            group.tell = lambda event, detail: metrics.write("rank", rank=group.rank, event=event, detail=detail)
        self._collectors = Collectors(self._crew, self._server, metrics, self._config_of)
        limits = Limits(options.min_workers, options.max_restarts, options.hang_s, options.launch_s)
        self._roster = Roster(
            self._parts.ring, self._server, self._collectors, metrics, self._parts.spec, self._begin, limits
        )
        steps, goal = (options.steps, options.until_return) if plan.leads else (sys.maxsize, None)
        self._job = Job(
            learner, self._server, self._watch, metrics, self._roster, self._collectors,
            self._settings.refuse if learner.meetings else self._settings.change,
            self._evaluations, self._snapshots, Schedule(steps, goal, waits=options.lock_stepped),
            self._crew.turn, self._interrupts.asked,
        )  # fmt: skip

    def go_on(self) -> None:
        """Until the run's end, whatever that is."""
        job = self._job
        try:
            self._work()
        except Interrupted:
            job.reason, self.exit_code, self.trouble = "interrupted", INTERRUPTED, job.leave()
        except WorkerLost as lost:
            job.reason, self.exit_code, self.trouble = "worker lost", DEGRADED, str(lost)
        except (Diverged, Differs, GroupLost) as ended:
            job.reason, self.exit_code, self.trouble = _ENDED[type(ended)], FATAL, str(ended)
        except BaseException:  # noqa: BLE001 - a SystemExit of an environment, too: the run ends in order and says so
            job.reason, self.exit_code, self.trouble = "error", FATAL, traceback.format_exc()

    def end(self) -> None:
        """Everybody leaves; what was learned is saved."""
        job, options = self._job, self._plan.options
        self._parts.ring.stop()
        self._crew.stop()
        job.close()
        if self._interrupts.count < 2 and self._plan.leads:
            try:
                job.checkpoint(last=True)
                if not (self._site.path / "config.json").exists():
                    self.write_config()  # the directory was deleted: it is one that can go on again
            except OSError as error:
                told = f"the last checkpoint could not be written: {error}"
                self.trouble, self.exit_code = f"{self.trouble}\n{told}".strip(), FATAL
        if self._site.trace and options.trace:
            try:
                self.timeline = self._site.trace.write(options.trace)
            except OSError as error:
                self.timeline = f"trace: {options.trace} cannot be written: {error}"
        weights_sha256 = digest(self._parts.learner.algorithm.state_dict())
        self._metrics.write("summary", **job.summary(), weights_sha256=weights_sha256, exit_code=self.exit_code)

    def _work(self) -> None:
        job, learner, roster, options = self._job, self._parts.learner, self._roster, self._plan.options
        with self._launching():
            roster.start(hired=bool(self._heard))  # then to find out what the environment is
            if self._evaluations.wanted:
                roster.keep(EVALUATOR, self._hire_evaluator, lambda: self._evaluations.count)
            if options.listen:
                come, alive = lambda: self._collectors.num_admitted, lambda: self._collectors.signs_of_gate
                roster.keep(GATE, self._hire_gate, come, alive, is_needed=False)
        job.note(self._heard)
        if refusal := export_refusal(self._parts, options):  # better now than at the end
            self._metrics.write("export", refusal=refusal)
        fit_process()
        if options.lock_stepped:
            lock_step(learner, job.finished, job.attend, self._crew.turn)
        else:
            free_running(learner, job.finished, job.attend)
        if learner.meetings:
            learner.meetings.leave(job.reason)
        if job.reason == "interrupted":
            raise Interrupted  # another rank was
        job.conclude()

    @property
    def _begin(self) -> Begin:
        """What workers are told when their environment is up."""
        parts = self._parts
        policy = parts.learner.algorithm.policy_spec
        return Begin(parts.ring.address, parts.weights.address, policy, self._plan.options.workers)

    def _config_of(self, lane: int, epoch: int) -> WorkerConfig:
        site = self._site
        return worker_config(self._settings.options, lane, epoch, self._server, site.path, site.trace)

    def _hire_evaluator(self) -> None:
        site, options = self._site, self._settings.options
        self._crew.start_evaluator(evaluator_config(options, self._parts, self._server, site.path, site.trace))

    def _hire_gate(self) -> None:
        config = gate_config(self._settings.options, self._parts, self._server, self._begin)
        self._supervisor.start(GATE, "envproc.gate", config)

    def _changed(self) -> None:
        """A setting was."""
        self.write_config()
        env = dataclasses.asdict(self._settings.options.env_config)
        self._snapshots.policy = dataclasses.replace(self._snapshots.policy, env=env)
