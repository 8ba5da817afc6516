"""Train: `python -m scripts.train ddpg`.

Builds everything and owns the order of start and stop: check what was asked for, take memory, open the control
channel, start processes; at the end the processes go first, and then what they used.
"""

from __future__ import annotations

import os
import sys

from scripts.entry import INTERRUPTED, code_of, end_at_once

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import contextlib
import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from core import checkpoint
from core import snapshots as snapshots_of
from core.collectors import Collectors
from core.control import Begin, Report, Server
from core.digest import digest
from core.door import Door
from core.evaluations import EVALUATOR
from core.group import Differs, GroupLost
from core.job import Job, Schedule
from core.joining import GATE
from core.learner import fit_process, free_running, lock_step
from core.meetings import Meetings
from core.metrics import Metrics
from core.rescue import Diverged
from core.roster import Limits, Roster
from core.supervisor import Supervisor
from core.to_wandb import WandB
from core.trace import Trace, Traced
from core.tracking import TensorBoard, Tracker
from core.types import EnvSpec
from core.watch import Interrupted, Watch, WorkerLost
from envproc.env import EnvFailed
from envproc.worker import WorkerConfig
from scripts import preflight
from scripts.audience import audience_may_leave
from scripts.command_line import UsageError, refusals_are_usage_errors
from scripts.crew import Crew, InThisProcess, Processes
from scripts.interrupts import Interrupts
from scripts.parts import (
    LEARNER,
    build,
    evaluator_config,
    export_refusal,
    gate_config,
    keep_records,
    machine,
    refuse_if_over,
    spec_of,
    traced,
    worker_config,
)
from scripts.plan import Plan, jsonable, make_plan, rank_here, settled
from scripts.run_directory import RankDirectory, RunDirectory
from scripts.settings import Settings

DONE, USAGE, DEGRADED, FATAL = 0, 2, 3, 4
_ENDED = {Diverged: "diverged", Differs: "ranks differ", GroupLost: "rank lost"}


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage, 3 a worker was lost, 4 an error in the learner, or losses that stay
    non-finite, 130 interrupted."""
    try:
        plan = make_plan(arguments)
        with audience_may_leave():
            return train(plan)
    except UsageError as error:
        print(f"error: {rank_here()}{error}", file=sys.stderr)
        return USAGE
    except (GroupLost, Differs) as lost:
        print(f"error: {rank_here()}{lost}", file=sys.stderr)
        return FATAL
    except Interrupted:
        return INTERRUPTED


def train(plan: Plan) -> int:
    """One run, from its directory to its summary. Returns the exit code.

    Raises UsageError, and leaves nothing behind, if what was asked for cannot be done; GroupLost if there are to be
    several learners and they do not come together.
    """
    name, options, path, resumed, group = plan = settled(plan)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    interrupts = Interrupts()
    if group:
        group.interrupted = interrupts.asked
    with contextlib.ExitStack() as opened:
        with refusals_are_usage_errors():  # nothing is left of a run that cannot begin: its directory comes last
            door = opened.enter_context(Door(options.control, options.control_keys)) if options.control else None
            run: RunDirectory | RankDirectory
            restores = resumed and plan.leads
            if restores:
                run = opened.enter_context(RunDirectory(path, resumed=True))
                found, rejected = snapshots_of.newest(path)
                spec: EnvSpec | None = checkpoint.read_policy(found)[0].env_spec
            else:
                spec = spec_of(options)
            preflight.check_machine(options)
            trace = opened.enter_context(traced(options)) if options.trace else None
            parts = None if spec is None else build(name, options, spec, opened)
            if group and not plan.leads:
                group.hear("the run's directory")
                run = opened.enter_context(RankDirectory(path, group.rank))
                path = run.path
            elif not restores:
                run = opened.enter_context(RunDirectory(path, force=options.force))
            if group and plan.leads:
                group.say("the run's directory", str(path))
        server = opened.enter_context(Server(door))

        def config() -> dict[str, Any]:
            job = {"job": group.job} if group else {}
            return {"algorithm": name, **jsonable(settings.options), "run": plan.path.name, **job}

        def config_of(lane: int, epoch: int) -> WorkerConfig:
            return worker_config(settings.options, lane, epoch, server, path, trace)

        def changed() -> None:
            run.settle(config())
            env = dataclasses.asdict(settings.options.env_config)
            snapshots.policy = dataclasses.replace(snapshots.policy, env=env)

        settings = Settings(options, changed)
        supervisor = opened.enter_context(Supervisor(path / "logs"))
        single = options.mode == "single"
        crew: Crew
        if single:
            crew = InThisProcess(config_of, interrupts.asked)
        else:
            crew = Processes(supervisor, server, config_of, interrupts.asked)
        # what starts in this process would not let go before it is up
        launching = interrupts.raised if single else contextlib.nullcontext
        opened.callback(crew.stop)
        watch = Watch(server, supervisor)
        heard, before_s = list[Report](), 0.0
        try:
            with refusals_are_usage_errors():
                if parts is None:
                    with launching():
                        for lane in range(options.workers):
                            crew.hire(lane, epoch=0)
                    spec, heard = watch.await_spec(crew.turn, interrupts.asked)
                    parts = build(name, options, spec, opened)
                evaluations, snapshots = keep_records(parts, options, server, path, plan.leads)
                if restores:
                    before_s = snapshots.restore(found)
                    if not group:  # or else it ends at once: an earlier round may have come to the end
                        refuse_if_over(parts.learner, evaluations, options)
                if group:
                    group.connect(torch.device(options.device), options.hang_s, options.launch_s)
                    parts.learner.meetings = Meetings(group, parts.learner) if group.size > 1 else None
        except (EnvFailed, WorkerLost) as lost:
            run.settle(config())
            print(f"error: {lost}\nrun: {path}", file=sys.stderr)
            return DEGRADED
        except (UsageError, Interrupted, GroupLost, Differs) as refused:
            crew.stop()
            run.give_up()
            if not isinstance(refused, Interrupted):
                raise
            print("interrupted before the environment was up", file=sys.stderr)
            return INTERRUPTED
        run.settle(config())
        run.listens(server.address, door)
        fit_process()

        trackers: list[Tracker] = [TensorBoard(path)] if plan.leads else []
        if options.wandb:
            trackers.append(WandB(options.wandb, path, config()))
        console = Console() if plan.leads else Console(quiet=True, force_terminal=False)
        metrics = opened.enter_context(Metrics(path, console, trackers, before_s))
        metrics.write("config", **config(), cores=plan.cores, **machine(options.device))
        learner = parts.learner
        if trace:
            learner.stopwatch = Traced(learner.spent_ns, trace.track(LEARNER))
        if restores:
            metrics.write("resumed", agent_steps=learner.agent_steps, updates=learner.updates, rejected=rejected)
        lock_stepped = options.mode != "async"
        if group:
            group.tell = lambda event, detail: metrics.write("rank", rank=group.rank, event=event, detail=detail)
        steps, goal = (options.steps, options.until_return) if plan.leads else (sys.maxsize, None)
        schedule = Schedule(steps, goal, waits=lock_stepped)
        begin = Begin(parts.ring.address, parts.weights.address, learner.algorithm.policy_spec, options.workers)
        limits = Limits(options.min_workers, options.max_restarts, options.hang_s, options.launch_s)
        collectors = Collectors(crew, server, metrics, config_of)
        roster = Roster(parts.ring, server, collectors, metrics, parts.spec, begin, limits)
        job = Job(
            learner, server, watch, metrics, roster, collectors,
            settings.refuse if learner.meetings else settings.change,
            evaluations, snapshots, schedule, crew.turn, interrupts.asked,
        )  # fmt: skip

        def hire_evaluator() -> None:
            crew.start_evaluator(evaluator_config(settings.options, parts, server, path, trace))

        def hire_gate() -> None:
            supervisor.start(GATE, "envproc.gate", gate_config(settings.options, parts, server, begin))

        def work() -> None:
            with launching():
                roster.start(hired=bool(heard))  # then to find out what the environment is
                if evaluations.wanted:
                    roster.keep(EVALUATOR, hire_evaluator, lambda: evaluations.count)
                if options.listen:
                    come, alive = lambda: collectors.num_admitted, lambda: collectors.signs_of_gate
                    roster.keep(GATE, hire_gate, come, alive, is_needed=False)
            job.note(heard)
            if refusal := export_refusal(parts, options):  # better now than at the end
                metrics.write("export", refusal=refusal)
            if lock_stepped:
                lock_step(learner, job.finished, job.attend, crew.turn)
            else:
                free_running(learner, job.finished, job.attend)
            if learner.meetings:
                learner.meetings.leave(job.reason)
            if job.reason == "interrupted":
                raise Interrupted  # another rank was
            job.conclude()

        exit_code, trouble = _outcome(job, work)
        parts.ring.stop()
        crew.stop()
        job.close()
        if interrupts.count < 2 and plan.leads:
            try:
                job.checkpoint(last=True)
                if not (path / "config.json").exists():  # the directory was deleted: it is one that can go on again
                    run.settle(config())
            except OSError as error:
                trouble, exit_code = f"{trouble}\nthe last checkpoint could not be written: {error}".strip(), FATAL
        timeline = _written(trace, options.trace) if trace and options.trace else ""
        weights_sha256 = digest(learner.algorithm.state_dict())
        metrics.write("summary", **job.summary(), weights_sha256=weights_sha256, exit_code=exit_code)
    if trouble:
        print(f"error: {rank_here()}{trouble}", file=sys.stderr)
    if timeline:
        print(timeline)
    if plan.leads:
        print(f"run: {path}")
    return exit_code


def _outcome(job: Job, work: Callable[[], None]) -> tuple[int, str]:
    """Do it; the exit code, and what the user is to be told."""
    try:
        work()
    except Interrupted:
        job.reason = "interrupted"
        return INTERRUPTED, job.leave()
    except WorkerLost as lost:
        job.reason = "worker lost"
        return DEGRADED, str(lost)
    except (Diverged, Differs, GroupLost) as ended:
        job.reason = _ENDED[type(ended)]
        return FATAL, str(ended)
    except BaseException:  # noqa: BLE001 - a SystemExit of an environment, too: the run ends in order and says so
        job.reason = "error"
        return FATAL, traceback.format_exc()
    return DONE, ""


def _written(trace: Trace, file: Path) -> str:
    try:
        return trace.write(file)
    except OSError as error:
        return f"trace: {file} cannot be written: {error}"


if __name__ == "__main__":
    code = code_of(main)
    if sys.stderr:
        sys.stderr.flush()
    # All is closed. To unload torch would take half a second, and a Ctrl-C in it would end Python by the signal.
    os._exit(code)
