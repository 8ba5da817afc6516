"""What a run is put together from, by its options: ring, weights, learner, and what it tells its processes."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from algos import ALGORITHMS
from algos.nets import Network
from core import checkpoint
from core.checkpoint import SavedPolicy
from core.control import Begin, Server, worker_name
from core.evaluations import EVALUATOR, Evaluations
from core.gather import Gather
from core.learner import Feed, Learner, Phase
from core.mirror import Mirror
from core.net import num_parameters
from core.prioritized import make_sampler
from core.ratio import ReplayRatio
from core.replay import Replay
from core.ring import LINK_PHASES, WORKER_PHASES, Ring, ring_size
from core.rollout import InOrder, capacity_for
from core.snapshots import Snapshots
from core.trace import Trace
from core.types import Algorithm, EnvSpec, require
from core.weights import Weights, weights_size
from envproc import check_player, make_env
from envproc.env import EnvFailed, Place
from envproc.evaluator import EVALUATION, EvaluatorConfig, copies_for
from envproc.gate import GateConfig
from envproc.walk import call
from envproc.worker import WorkerConfig
from scripts import preflight
from scripts.command_line import check_output
from scripts.options import Options
from scripts.runs import find_run

LEARNER = "learner"
"""the main process's track"""


class Parts(NamedTuple):
    """What learns, and what it shares with the workers."""

    spec: EnvSpec
    ring: Ring
    weights: Weights
    eval_weights: Weights
    learner: Learner


def spec_of(options: Options[Any]) -> EnvSpec | None:
    """What the environment offers; None if only a process that has started it can tell, as of a Unity player. Raises
    ValueError if it cannot be had, or cannot be closed."""
    if options.env.startswith("unity:"):
        check_player(options.env)
        return None
    env = make_env(options.env_config)
    try:
        spec = env.spec
        call("close()", env.close)
    except EnvFailed as error:
        raise ValueError(f"{options.env} cannot be used: {error}; every process closes its environment") from error
    return spec


def build(name: str, options: Options[Any], spec: EnvSpec, opened: contextlib.ExitStack) -> Parts:
    """All of them, closed when `opened` is. Raises ValueError or MemoryError for what cannot be had."""
    algo, device = options.algo, torch.device(options.device)
    algorithm = ALGORITHMS[name].build(spec, algo, options.device)
    recording = algorithm.recording
    ordered = recording.ordered
    capacity = capacity_for(spec.num_agents, options.workers, algo.horizon, algo.ahead) if ordered else algo.capacity
    networks = _networks_of(algorithm)
    size = num_parameters(algorithm.policy_spec.net)
    whole, filled = (
        ring_size(spec, recording, options.workers, each) for each in (capacity, min(capacity, options.steps))
    )
    mirror = options.replay_device
    require("--replay-device", mirror, not (ordered and mirror), f"left out with {name}, which reads each row once")
    preflight.check_memory(options, whole * (2 if mirror == "cpu" else 1) + 2 * weights_size(size))
    preflight.check_disk(options, filled, _bytes_of(networks))
    ring = opened.enter_context(Ring.create(spec, recording, options.workers, capacity, options.spare))
    feed: Feed
    if ordered:
        feed = InOrder(ring, algo.horizon, algo.ahead, device)
    else:
        ratio = ReplayRatio(algo.replay_ratio, algo.batch_size * recording.stride, algo.warmup)
        gather = (Mirror if mirror else Gather)(ring, algo.batch_size, device)
        sampler = make_sampler(ring, algo.batch_size, options.seed, algo.prioritization, gather)
        feed = Replay(ring, sampler, ratio, device)
    weights = opened.enter_context(Weights.create(size))
    eval_weights = opened.enter_context(Weights.create(size))
    if options.compile:
        for part in networks:
            part.compile()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    precision = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16")
    learner = Learner(algorithm, feed, ring, weights, precision)
    if options.init_from:
        _init_from(learner, find_run(options.init_from, options.runs_dir))
    return Parts(spec, ring, weights, eval_weights, learner)


def _networks_of(algorithm: Algorithm) -> list[Network]:
    """All of them, also those that belong to a part of it, or stand in a list."""
    values = [each if isinstance(each, list) else [each] for each in vars(algorithm).values()]
    modules = [each for value in values for each in value if isinstance(each, torch.nn.Module)]
    return [each for module in modules for each in module.modules() if isinstance(each, Network)]


def _bytes_of(networks: list[Network]) -> int:
    return sum(each.numel() * each.element_size() for network in networks for each in network.parameters())


def keep_records(
    parts: Parts, options: Options[Any], server: Server, run: Path, evaluates: bool
) -> tuple[Evaluations, Snapshots]:
    """Who keeps the best policy of the run in directory `run`, and its checkpoints."""
    learner, every = parts.learner, None if options.in_editor or not evaluates else options.eval_every
    evaluations = Evaluations(learner, server, parts.eval_weights, every, options.eval_episodes, options.seed)
    policy = SavedPolicy(dataclasses.asdict(options.env_config), parts.spec, learner.algorithm.policy_spec)
    snapshots = Snapshots(
        run, policy, learner, evaluations, options.checkpoint_every, options.keep_checkpoints, options.lock_stepped
    )
    return evaluations, snapshots


def refuse_if_over(learner: Learner, evaluations: Evaluations, options: Options[Any]) -> None:
    """Raises ValueError if there is nothing left to do."""
    done, newest, goal = learner.agent_steps, evaluations.newest, options.until_return
    if done >= options.steps:
        raise ValueError(f"the run has made {done:,} of {options.steps:,} agent steps; give it more --steps to go on")
    if goal is not None and newest is not None and newest.mean >= goal:
        raise ValueError(f"the run has reached a return of {newest.mean:.2f}; give it a higher --until-return, or None")


def machine(device: str) -> dict[str, Any]:
    """What the networks are trained by."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {"gpu": gpu, "python": platform.python_version(), "torch": torch.__version__}


def check_device(device: str) -> None:
    """Raises ValueError if networks cannot be trained there."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise ValueError(f"--device {device!r} cannot be used here ({error}); try --device cpu") from error


def export_refusal(parts: Parts, options: Options[Any]) -> str:
    """Why this run's policy could not be exported at its end; empty if it can be."""
    # only here: a run that is refused need not wait for it
    from core import onnx_graph

    algorithm = parts.learner.algorithm
    policy = SavedPolicy({}, parts.spec, algorithm.policy_spec)
    try:
        onnx_graph.build(policy, parts.learner.policy(), unity=options.env.startswith("unity:"))
    except ValueError as error:
        return str(error)
    return ""


def _init_from(learner: Learner, run: Path) -> None:
    """Begin with what another run of the same algorithm has learned."""
    directory, _ = checkpoint.newest(run)
    try:
        learner.algorithm.load_state_dict(checkpoint.load_state(directory)["learner"]["algorithm"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"--init-from {run}: it is of another algorithm, or has other networks ({error})") from error


def worker_config(
    options: Options[Any], lane: int, epoch: int, server: Server, directory: Path, trace: Trace | None
) -> WorkerConfig:
    """What the worker of this lane is told at birth."""
    return WorkerConfig(
        name=worker_name(lane),
        env=options.env_config,
        seed=options.seed,
        control=server.address,
        lane=lane,
        epoch=epoch,
        logs=str(directory / "logs"),
        trace=None if trace is None else trace.address(worker_name(lane)),
    )


def evaluator_config(
    options: Options[Any], parts: Parts, server: Server, directory: Path, trace: Trace | None
) -> EvaluatorConfig:
    copies = copies_for(options.eval_episodes, parts.spec, options.copies)
    return EvaluatorConfig(
        name=EVALUATOR,
        env=dataclasses.replace(options.env_config, copies=copies),
        control=server.address,
        weights=parts.eval_weights.address,
        policy=parts.learner.algorithm.policy_spec,
        where=Place(options.workers + options.spare, options.seed, str(directory / "logs")),
        trace=None if trace is None else trace.address(EVALUATOR),
    )


def gate_config(options: Options[Any], parts: Parts, server: Server, begin: Begin) -> GateConfig:
    return GateConfig(server.address, options.listen, str(options.listen_keys), parts.spec, begin)


def traced(options: Options[Any]) -> Trace:
    """A track for the learner, the evaluator, and each worker that there is or that may be added.

    Raises UsageError if the file cannot be written, MemoryError if memory is too small.
    """
    if options.trace:
        check_output("--trace", options.trace, ".json")
    num = options.workers + options.spare
    tracks: dict[str, Mapping[str, int]] = {
        LEARNER: {phase.name.lower(): phase for phase in Phase},
        EVALUATOR: {"evaluation": EVALUATION},
        **{worker_name(lane): WORKER_PHASES | LINK_PHASES for lane in range(num)},
    }
    return Trace(tracks, first=2 + options.workers)
