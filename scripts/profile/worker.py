"""What the data path costs, each part beside the plainest thing that does its work: `python -m scripts.bench`.

Medians of single calls, in microseconds. What stands on one line was measured in turns, in the same second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from algos.ddpg import DDPG, Config
from core import atomic, atomic_numba
from core.acting import Decision, Policy
from core.control import Begin, Ready, Server
from core.gather import Gather
from core.net import num_parameters
from core.prioritized import Prioritization, PrioritizedSampler
from core.replay import Sampler
from core.ring import FOREVER, Ring, Word
from core.supervisor import Supervisor
from core.types import Action, Recording, Rows, row_layout
from core.weights import Follower, Weights
from envproc import EnvConfig
from envproc.accumulator import Accumulator
from envproc.ball3d import Ball3D
from envproc.worker import WorkerConfig

SPEC = Ball3D().spec
STEP: Rows = np.zeros(SPEC.num_agents, row_layout(SPEC, Recording()))
ROW = f"V{STEP.itemsize}"  # a whole row as one opaque thing


class Line(NamedTuple):
    what: str
    us: float
    beside: str
    beside_us: float


def measure(what: str, work: Callable[[], object], beside: str = "", plain: Callable[[], object] = int) -> Line:
    """Medians of `work` and of the `plain` thing beside it, in turns."""
    times: list[list[int]] = [[], []]
    end = time.perf_counter() + 1.2
    while time.perf_counter() < end:
        for call, taken in ((work, times[0]), (plain, times[1])):
            before = time.perf_counter_ns()
            call()
            taken.append(time.perf_counter_ns() - before)
    one, other = (float(np.median(taken[len(taken) // 10 :])) / 1000 for taken in times)
    return Line(what, one, beside, other if beside else 0.0)


def append(capacity: int = 200_004) -> Line:
    packed, source = np.zeros(capacity, ROW), STEP.view(ROW)
    places = cycle([packed[start : start + len(STEP)] for start in range(0, capacity, len(STEP))])
    with Ring.create(SPEC, Recording(), 1, capacity) as ring:
        work, plain = partial(ring.writer(0, 1).append, STEP), lambda: np.copyto(next(places), source)
        return measure("append a step of 12 rows", work, f"copy its {STEP.nbytes} bytes", plain)


def sample(num_lanes: int, capacity: int) -> Line:
    with Ring.create(SPEC, Recording(), num_lanes, capacity) as ring:
        for lane in range(num_lanes):
            writer = ring.writer(lane, 1)
            while writer.published < ring.capacity:
                writer.append(STEP)
        sampler = Sampler(ring, 256, seed=0)
        packed, batch = np.frombuffer(b"\1" * (capacity * STEP.itemsize), ROW), np.zeros(256, ROW)
        # new places at each call, as the sampler's are
        places = cycle(np.random.default_rng(0).integers(0, capacity, (5000, 256)))
        what = f"sample 256 of {capacity} rows, {num_lanes} lane(s)"
        return measure(what, sampler.sample, "numpy take", lambda: packed.take(next(places), 0, batch, "clip"))


def prioritized(capacity: int) -> Line:
    """Beside cpprb, the fastest packaged buffer that we know, where it is installed."""
    recording, random = Recording(), np.random.default_rng(0)
    td_errors = cycle(torch.from_numpy(random.exponential(1, (100, 256)).astype(np.float32)))
    with Ring.create(SPEC, recording, 1, capacity) as ring:
        writer = ring.writer(0, 1)
        while writer.published < ring.capacity:
            writer.append(STEP)
        sampler = PrioritizedSampler(ring, 256, 0, Prioritization())

        def sample_and_update() -> None:
            sampler.sample()
            sampler.learned(next(td_errors))

        for _ in range(4 * capacity // 256):  # priorities as they are in a run: all different
            sampler.sample()
            sampler.learned(next(td_errors))
        what = f"sample and update 256 of {capacity} by priority"
        try:
            from cpprb import PrioritizedReplayBuffer
        except ImportError:
            return measure(what, sample_and_update)
        fields = {"obs": {"shape": 8}, "act": {"shape": 2}, "rew": {}, "next_obs": {"shape": 8}, "done": {}}
        other = PrioritizedReplayBuffer(capacity, fields)
        other.add(**{name: np.ones((capacity, each.get("shape", 1)), np.float32) for name, each in fields.items()})

        def the_same() -> None:
            drawn = other.sample(256, beta=0.4)
            other.update_priorities(drawn["indexes"], next(td_errors).numpy())

        for _ in range(4 * capacity // 256):
            the_same()
        return measure(what, sample_and_update, "cpprb", the_same)


def words() -> Iterator[Line]:
    words, place = np.zeros(Word.WORDS, np.int64), int(Word.PUBLISHED)

    def plain() -> None:
        words[place] = words.item(place)

    for name, on in (("as here", atomic), ("by numba", atomic_numba)):
        work = partial(lambda load, store: store(words, place, load(words, place)), on.load_acquire, on.store_release)
        yield measure(f"load and store a word, {name}", work, "item and assignment", plain)


def learning() -> Iterator[Line]:
    ddpg = DDPG(SPEC, Config())
    parameters = ddpg.policy_parameters().numpy()
    with Weights.create(len(parameters)) as weights:
        follower, what = Follower(weights), f"publish and fetch {len(parameters)} parameters"
        yield measure(what, lambda: weights.publish(parameters, 1) and follower.fetch(), "copy them", parameters.copy)
    for num in (1, 12, 96):
        policy = Policy(ddpg.policy_spec, SPEC.action, num, parameters, seed=0)
        obs = np.ones((num, 8), np.float32)
        with torch.inference_mode():
            act, in_torch = (
                partial(policy.act, {"vector": obs}, np.arange(num)),
                partial(ddpg.actor, torch.from_numpy(obs)),
            )
            yield measure(f"act, {num} agent(s)", act, "the net alone in torch", in_torch)
    with Ring.create(SPEC, Recording(), 1, 1000) as ring:
        batch = Gather(ring, Config.batch_size).batch(torch.device("cpu"))
        yield measure(f"update DDPG with {Config.batch_size} rows", partial(ddpg.update, batch))


def world() -> Iterator[Line]:
    accumulator, first = Accumulator(SPEC, Recording()), Ball3D().reset(0)

    nothing = first.reward
    decision = Decision(first.obs["vector"][:, :2], first.agent[:, None], nothing, nothing, nothing[:, None])

    def decide_and_observe() -> None:
        accumulator.decide(first.agent, first.obs, decision)
        accumulator.observe(first)

    yield measure("decide and observe, 12 agents", decide_and_observe)
    for areas in (1, 8):
        env, idle = Ball3D(areas), np.zeros((12 * areas, 2), np.float32)
        env.reset(0)
        yield measure(f"step 3DBall, {areas} area(s)", partial(env.step, Action(idle, first.agent[:0])))


def birth() -> Line:
    """From the start of a worker's process to its first row, beside a Python that imports numpy and leaves."""
    policy = DDPG(SPEC, Config()).policy_spec
    times: list[list[float]] = [[], []]
    for _ in range(5):
        with (
            Ring.create(SPEC, Recording(), 1, 200_000) as ring,
            Weights.create(num_parameters(policy.net)) as weights,
            Server() as server,
            Supervisor() as supervisor,
        ):
            ring.allow(FOREVER)
            config = WorkerConfig("worker-0", EnvConfig("3dball"), seed=1, control=server.address, lane=0)
            begun = time.perf_counter()
            supervisor.start(config.name, "envproc.worker", config)
            while not any(isinstance(report, Ready) for report in server.receive()):
                time.sleep(0.0005)
            server.send(config.name, Begin(ring.address, weights.address, policy))
            while not ring.load(Word.PUBLISHED)[0] and time.perf_counter() < begun + 30:
                time.sleep(0.0005)
            times[0].append(time.perf_counter() - begun)
            ring.stop()
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import numpy"], check=True, timeout=30)
        times[1].append(time.perf_counter() - begun)
    first_row, plain = (float(np.median(each)) * 1e6 for each in times)
    return Line("a worker's first row after its start", first_row, "python -c 'import numpy'", plain)


def lines() -> Iterator[Line]:
    yield append()
    yield from (sample(lanes, capacity) for lanes in (1, 4) for capacity in (200_000, 1_000_000))
    yield prioritized(1_000_000)
    yield from chain(words(), world(), learning())
    yield birth()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in training, where the workers have the other cores
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpus = [line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")] or [platform.processor()]
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip()
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}"
    machine = f"{os.cpu_count()} cores, {cpus[0]}, {versions}, commit {commit}"
    print(machine)
    figures = []
    for line in lines():
        figures.append(line._asdict())
        beside = f"{line.beside_us:10.2f} us {line.us / line.beside_us:6.1f} x  {line.beside}" if line.beside else ""
        print(f"{line.what:42}{line.us:10.2f} us{beside}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "lines": figures}, indent=1))


if __name__ == "__main__":
    main()
