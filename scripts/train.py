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
import hashlib
import platform
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from core import checkpoint
from core import snapshots as snapshots_of
from core.collectors import Collectors
from core.control import Begin, Report, Server
from core.door import Door
from core.evaluations import EVALUATOR
from core.job import Job, Schedule
from core.joining import GATE
from core.learner import fit_process, free_running, lock_step
from core.metrics import Metrics, Terminal
from core.rescue import Diverged
from core.roster import Limits, Roster
from core.supervisor import Supervisor
from core.to_wandb import WandB, check_wandb
from core.trace import Trace, Traced
from core.tracking import TensorBoard, Tracker
from core.types import EnvSpec
from core.watch import Interrupted, Watch, WorkerLost
from envproc.env import EnvFailed
from envproc.worker import WorkerConfig
from scripts import preflight, resume
from scripts.command_line import UsageError
from scripts.crew import Crew, InThisProcess, Processes
from scripts.interrupts import Interrupts
from scripts.options import Options, num_cores, parse
from scripts.parts import (
    LEARNER,
    build,
    evaluator_config,
    export_refusal,
    gate_config,
    keep_records,
    spec_of,
    traced,
    worker_config,
)
from scripts.run_directory import RunDirectory, name_of
from scripts.settings import Settings

DONE, USAGE, DEGRADED, FATAL = 0, 2, 3, 4


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage, 3 a worker was lost, 4 an error in the learner, or losses that stay
    non-finite, 130 interrupted."""
    try:
        if arguments[:1] == ["--resume"]:
            return train(*resume.parse(arguments[1:]))
        return train(*parse(arguments), None)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def train(name: str, options: Options[Any], resumed: Path | None) -> int:
    """One run, from its directory to its summary; `resumed`: that of a run to go on with. Returns the exit code.

    Raises UsageError, and leaves nothing behind, if what was asked for cannot be done.
    """
    with _refusals_are_usage_errors():
        options.check()
        _check_device(options.device)
        if options.wandb:
            check_wandb()
    cores = num_cores()
    options = dataclasses.replace(options, workers=options.workers or (1 if options.in_editor else max(cores - 1, 1)))
    if options.min_workers > options.workers:
        raise UsageError(f"--min-workers {options.min_workers}; it must be at most --workers {options.workers}")
    torch.manual_seed(options.seed)
    options = dataclasses.replace(options, threads=options.threads or max(cores - options.workers, 1))
    torch.set_num_threads(options.threads)
    interrupts = Interrupts()
    with contextlib.ExitStack() as opened:
        with _refusals_are_usage_errors():
            door = opened.enter_context(Door(options.control, options.control_keys)) if options.control else None
            path = resumed or options.runs_dir / (options.run or name_of(name, options.env))
            if resumed:
                run = opened.enter_context(RunDirectory(path, resumed=True))
                found, rejected = snapshots_of.newest(path)
                spec: EnvSpec | None = checkpoint.read_policy(found)[0].env_spec
            else:
                spec = spec_of(options)
            preflight.check_machine(options)
            trace = opened.enter_context(traced(options)) if options.trace else None
            parts = None if spec is None else build(name, options, spec, opened)
            if not resumed:
                run = opened.enter_context(RunDirectory(path, force=options.force))
        server = opened.enter_context(Server(door))

        def config() -> dict[str, Any]:
            return {"algorithm": name, **_jsonable(settings.options), "run": path.name}

        def config_of(lane: int, epoch: int) -> WorkerConfig:
            return worker_config(settings.options, lane, epoch, server, path, trace)

        def changed() -> None:
            run.settle(config())
            env = dataclasses.asdict(settings.options.env_config)
            snapshots.policy = dataclasses.replace(snapshots.policy, env=env)

        settings = Settings(options, changed)
        supervisor = opened.enter_context(Supervisor(path / "logs"))
        single = options.mode == "single"
        crew: Crew = InThisProcess(interrupts.asked, config_of) if single else Processes(supervisor, server, config_of)
        # what starts in this process would not let go before it is up
        launching = interrupts.raised if single else contextlib.nullcontext
        opened.callback(crew.stop)
        watch = Watch(server, supervisor)
        heard, before_s = list[Report](), 0.0
        try:
            with _refusals_are_usage_errors():
                if parts is None:
                    with launching():
                        for lane in range(options.workers):
                            crew.hire(lane, epoch=0)
                    spec, heard = watch.await_spec(crew.turn, interrupts.asked)
                    parts = build(name, options, spec, opened)
                evaluations, snapshots = keep_records(parts, options, server, path)
                if resumed:
                    before_s = snapshots.restore(found)
                    resume.refuse_if_over(parts.learner, evaluations, options)
        except (EnvFailed, WorkerLost) as lost:
            run.settle(config())
            print(f"error: {lost}\nrun: {path}", file=sys.stderr)
            return DEGRADED
        except (UsageError, Interrupted) as refused:
            crew.stop()
            run.give_up()
            if isinstance(refused, UsageError):
                raise
            print("interrupted before the environment was up", file=sys.stderr)
            return INTERRUPTED
        run.settle(config())
        run.listens(server.address, door)
        fit_process()

        trackers: list[Tracker] = [TensorBoard(path)]
        if options.wandb:
            trackers.append(WandB(options.wandb, path, config()))
        metrics = opened.enter_context(Metrics(path, Terminal(), trackers, before_s))
        metrics.write("config", **config(), cores=cores, **_machine(options.device))
        learner = parts.learner
        if trace:
            learner.stopwatch = Traced(learner.spent_ns, trace.track(LEARNER))
        if resumed:
            metrics.write("resumed", agent_steps=learner.agent_steps, updates=learner.updates, rejected=rejected)
        lock_stepped = options.mode != "async"
        schedule = Schedule(options.steps, options.until_return, waits=lock_stepped)
        begin = Begin(parts.ring.address, parts.weights.address, learner.algorithm.policy_spec, options.workers)
        limits = Limits(options.min_workers, options.max_restarts, options.hang_s, options.launch_s)
        collectors = Collectors(crew, server, metrics, config_of)
        roster = Roster(parts.ring, server, collectors, metrics, parts.spec, begin, limits)
        job = Job(
            learner, server, watch, metrics, roster, collectors, settings.change, evaluations, snapshots, schedule,
            crew.turn, interrupts.asked,
        )  # fmt: skip

        def hire_evaluator() -> None:
            crew.start_evaluator(evaluator_config(settings.options, parts, server, path, trace))

        def hire_gate() -> None:
            supervisor.start(GATE, "envproc.gate", gate_config(settings.options, parts, server, begin))

        trouble = ""
        try:
            with launching():
                roster.start(hired=bool(heard))  # then to find out what the environment is
                if evaluations.wanted:
                    roster.keep(EVALUATOR, hire_evaluator, lambda: evaluations.count)
                if options.listen:
                    roster.keep(GATE, hire_gate, lambda: collectors.num_admitted, is_needed=False)
            job.note(heard)
            if refusal := export_refusal(parts, options):  # better now than at the end
                metrics.write("export", refusal=refusal)
            if lock_stepped:
                lock_step(learner, job.finished, job.attend, crew.turn)
            else:
                free_running(learner, job.finished, job.attend)
            job.conclude()
            exit_code = DONE
        except Interrupted:
            job.reason, exit_code = "interrupted", INTERRUPTED
        except WorkerLost as lost:
            job.reason, exit_code, trouble = "worker lost", DEGRADED, str(lost)
        except Diverged as diverged:
            job.reason, exit_code, trouble = "diverged", FATAL, str(diverged)
        except BaseException:  # noqa: BLE001 - a SystemExit of an environment, too: the run ends in order and says so
            job.reason, exit_code, trouble = "error", FATAL, traceback.format_exc()

        parts.ring.stop()
        crew.stop()
        job.close()
        if interrupts.count < 2:
            try:
                job.checkpoint(last=True)
            except OSError as error:
                trouble, exit_code = f"{trouble}\nthe last checkpoint could not be written: {error}".strip(), FATAL
        timeline = _written(trace, options.trace) if trace and options.trace else ""
        weights_sha256 = digest(learner.algorithm.state_dict())
        metrics.write("summary", **job.summary(), weights_sha256=weights_sha256, exit_code=exit_code)
    if trouble:
        print(f"error: {trouble}", file=sys.stderr)
    if timeline:
        print(timeline)
    print(f"run: {path}")
    return exit_code


def _written(trace: Trace, file: Path) -> str:
    try:
        return trace.write(file)
    except OSError as error:
        return f"trace: {file} cannot be written: {error}"


def _jsonable(options: Options[Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in dataclasses.asdict(options).items()
    }


def digest(state: Any) -> str:
    """SHA-256 over every tensor of an algorithm's state, in order."""
    sha = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            sha.update(value.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                add(value[key])

    add(state)
    return sha.hexdigest()


@contextlib.contextmanager
def _refusals_are_usage_errors() -> Iterator[None]:
    """While nothing has been started, an error is the user's to mend: one line, with the way out."""
    try:
        yield
    except (ValueError, MemoryError, RuntimeError, OSError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _machine(device: str) -> dict[str, Any]:
    """What the networks are trained by."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {"gpu": gpu, "python": platform.python_version(), "torch": torch.__version__}


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise ValueError(f"--device {device!r} cannot be used here ({error}); try --device cpu") from error


if __name__ == "__main__":
    code = code_of(main)
    sys.stderr.flush()
    # All is closed. To unload torch would take half a second, and a Ctrl-C in it would end Python by the signal.
    os._exit(code)
