"""Train: `python -m scripts.train ddpg`.

Builds everything and owns the order of start and stop: check what was asked for, take memory, open the control
channel, start processes; at the end the processes go first, and then what they used.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    # before the slow imports: nothing has been started yet, so Ctrl-C may simply end it, without a traceback
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(130))

import contextlib
import dataclasses
import hashlib
import json
import platform
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from algos import ALGORITHMS
from core import checkpoint
from core.control import Begin, Report, Server
from core.job import EVALUATOR, Job, Schedule
from core.learner import Feed, Learner, fit_process, free_running, lock_step
from core.metrics import Metrics, Terminal
from core.net import num_parameters
from core.ratio import ReplayRatio
from core.replay import Replay, make_sampler
from core.ring import Ring
from core.rollout import InOrder, capacity_for
from core.supervisor import Supervisor
from core.types import EnvSpec
from core.watch import Interrupted, Watch, WorkerLost
from core.weights import Weights
from envproc import check_player, make_env
from envproc.env import EnvFailed, Place
from envproc.evaluator import EvaluatorConfig, copies_for
from envproc.worker import WorkerConfig
from scripts.command_line import UsageError
from scripts.crew import Crew, InThisProcess, Processes
from scripts.interrupts import INTERRUPTED, Interrupts
from scripts.options import Options, parse

DONE, USAGE, DEGRADED, FATAL = 0, 2, 3, 4


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage, 3 a worker was lost, 4 an error in the learner, 130 interrupted."""
    try:
        return train(*parse(arguments))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def train(name: str, options: Options[Any]) -> int:
    """One run, from its directory to its summary. Returns the exit code.

    Raises UsageError, and leaves nothing behind, if what was asked for cannot be done.
    """
    with _refusals_are_usage_errors():
        options.check()
        _check_device(options.device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = dataclasses.replace(options, workers=options.workers or (1 if options.in_editor else max(cores - 1, 1)))
    torch.manual_seed(options.seed)
    torch.set_num_threads(max(cores - options.workers, 1))
    fit_process()
    interrupts = Interrupts()
    with contextlib.ExitStack() as opened:
        with _refusals_are_usage_errors():
            spec = _spec_of(options)
            parts = None if spec is None else _build(name, options, spec, opened)
            directory = _new_directory(name, options)
        resolved = {"algorithm": name, **_jsonable(options), "run": directory.name}
        (directory / "config.json").write_text(json.dumps(resolved, indent=1))
        server = opened.enter_context(Server())
        supervisor = opened.enter_context(Supervisor(directory / "logs"))
        single = options.mode == "single"
        crew: Crew = InThisProcess(interrupts.asked) if single else Processes(supervisor, server)
        # what starts in this process would not let go before it is up
        launching = interrupts.raised if single else contextlib.nullcontext
        opened.callback(crew.stop)
        watch = Watch(server, supervisor)
        workers = _worker_configs(options, server, directory)
        heard: list[Report] = []
        if parts is None:
            try:
                with _refusals_are_usage_errors():
                    with launching():
                        crew.start_workers(workers)
                    spec, heard = watch.await_spec(crew.turn, interrupts.asked)
                    parts = _build(name, options, spec, opened)
            except UsageError:
                crew.stop()
                shutil.rmtree(directory)
                raise
            except (EnvFailed, WorkerLost) as lost:
                print(f"error: {lost}\nrun: {directory}", file=sys.stderr)
                return DEGRADED
            except Interrupted:
                crew.stop()
                shutil.rmtree(directory)
                print("interrupted before the environment was up", file=sys.stderr)
                return INTERRUPTED
            workers = []  # they are at work

        metrics = opened.enter_context(Metrics(directory, Terminal()))
        metrics.write("config", **resolved, cores=cores, python=platform.python_version())
        lock_stepped = options.mode != "async"
        schedule = Schedule(
            options.steps,
            None if options.in_editor else options.eval_every,
            options.eval_episodes,
            options.until_return,
            options.seed,
            waits=lock_stepped,
        )
        learner, policy_spec = parts.learner, parts.learner.algorithm.policy_spec
        begin = Begin(parts.ring.address, parts.weights.address, policy_spec)
        job = Job(
            learner, server, watch, metrics, parts.spec, begin, parts.eval_weights, schedule, crew.turn,
            interrupts.asked,
        )  # fmt: skip
        trouble = ""
        try:
            with launching():
                crew.start_workers(workers)
                if schedule.eval_every:
                    crew.start_evaluator(_evaluator_config(options, parts, server, directory))
            job.note(heard)
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
        except BaseException:  # noqa: BLE001 - a SystemExit of an environment, too: the run ends in order and says so
            job.reason, exit_code, trouble = "error", FATAL, traceback.format_exc()

        parts.ring.stop()
        crew.stop()
        state = learner.algorithm.state_dict()
        if interrupts.count < 2:
            policy = checkpoint.SavedPolicy(dataclasses.asdict(options.env_config), parts.spec, policy_spec)
            checkpoint.save(directory / "checkpoint", policy, job.policy_to_keep(), state)
        metrics.write("summary", **job.summary(), weights_sha256=digest(state), exit_code=exit_code)
    if trouble:
        print(f"error: {trouble}", file=sys.stderr)
    print(f"run: {directory}")
    return exit_code


class Parts(NamedTuple):
    """What learns, and what it shares with the workers."""

    spec: EnvSpec
    ring: Ring
    weights: Weights
    eval_weights: Weights
    learner: Learner


def _build(name: str, options: Options[Any], spec: EnvSpec, opened: contextlib.ExitStack) -> Parts:
    algo, device = options.algo, torch.device(options.device)
    algorithm = ALGORITHMS[name].build(spec, algo, options.device)
    recording = algorithm.recording
    ordered = recording.ordered
    capacity = capacity_for(spec.num_agents, options.workers, algo.horizon, algo.ahead) if ordered else algo.capacity
    ring = opened.enter_context(Ring.create(spec, recording, options.workers, capacity))
    feed: Feed
    if ordered:
        feed = InOrder(ring, algo.horizon, algo.ahead, device)
    else:
        agents, how = spec.num_agents * options.workers, algo.prioritization
        ratio = ReplayRatio(algo.replay_ratio, algo.batch_size * recording.stride, algo.warmup, agents)
        feed = Replay(ring, make_sampler(ring, algo.batch_size, options.seed, how), ratio, device)
    size = num_parameters(algorithm.policy_spec.net)
    weights = opened.enter_context(Weights.create(size))
    eval_weights = opened.enter_context(Weights.create(size))
    if options.compile:
        for part in vars(algorithm).values():
            if isinstance(part, torch.nn.Module):
                part.compile()
    precision = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16")
    return Parts(spec, ring, weights, eval_weights, Learner(algorithm, feed, ring, weights, precision))


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


def _spec_of(options: Options[Any]) -> EnvSpec | None:
    """What the environment offers; None if only a process that has started it can tell, as of a Unity player."""
    if options.env.startswith("unity:"):
        check_player(options.env)
        return None
    env = make_env(options.env_config)
    try:
        return env.spec
    finally:
        env.close()


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise ValueError(f"--device {device!r} cannot be used here ({error}); try --device cpu") from error


def _new_directory(name: str, options: Options[Any]) -> Path:
    """The run's own directory, new. Raises ValueError if a run has this name already."""
    env = "".join(letter if letter.isalnum() else "-" for letter in options.env.rstrip("/").rpartition("/")[2].lower())
    run = options.run or f"{name}-{env[:32]}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    directory = options.runs_dir / run
    if directory.exists():
        raise ValueError(f"there is a run {directory} already; give another --run")
    directory.mkdir(parents=True)
    (directory / "logs").mkdir()
    return directory


def _worker_configs(options: Options[Any], server: Server, directory: Path) -> list[WorkerConfig]:
    return [
        WorkerConfig(
            name=f"worker-{lane}",
            env=options.env_config,
            seed=options.seed,
            control=server.address,
            lane=lane,
            logs=str(directory / "logs"),
        )
        for lane in range(options.workers)
    ]


def _evaluator_config(options: Options[Any], parts: Parts, server: Server, directory: Path) -> EvaluatorConfig:
    copies = copies_for(options.eval_episodes, parts.spec, options.copies)
    return EvaluatorConfig(
        name=EVALUATOR,
        env=dataclasses.replace(options.env_config, copies=copies),
        control=server.address,
        weights=parts.eval_weights.address,
        policy=parts.learner.algorithm.policy_spec,
        where=Place(options.workers, options.seed, str(directory / "logs")),
    )


def _jsonable(options: Options[Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in dataclasses.asdict(options).items()
    }


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All is closed. To unload torch would take half a second, and a Ctrl-C in it would end Python by the signal.
    os._exit(code)
