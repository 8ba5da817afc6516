"""Updates per second beside Stable-Baselines3's: `python -m scripts.bench_updates SB3_PYTHON`, where that interpreter
has stable-baselines3 and sb3-contrib (`make bench` sees to both).

An update is a gradient step with what it needs: rows drawn from a full buffer, then learned from. The same networks,
the same batch, each library's own defaults otherwise, on one core; both sides are measured in turns, never at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from algos import ALGORITHMS
from core.learner import fit_process
from core.prioritized import make_sampler
from core.ring import Ring
from core.rollout import Rollout
from core.types import ActionSpec, EnvSpec, FieldSpec, Rows

ROUNDS = 15  # short ones: a shared machine changes its speed within seconds, and a round's two sides should share it
SECONDS = 0.5
SLICE_S = 0.1
ROLLOUT = 2048  # rows that PPO learns from at a time, Stable-Baselines3's default
CHUNK = 1000  # rows that are written into the ring at once


@dataclass(frozen=True)
class Case:
    """One algorithm at one size."""

    algorithm: str
    obs: int
    continuous: int
    discrete: int
    """choices of the one branch, or 0"""
    hidden: tuple[int, ...]
    batch: int
    quantiles: int = 200
    """qrdqn only"""
    capacity: int = 1_000_000
    """rows in the replay buffer: Stable-Baselines3's default, and more than the caches hold"""
    config: dict[str, Any] = field(default_factory=dict)
    """of ours, beyond the sizes: what makes it the same work"""

    def __str__(self) -> str:
        action = f"{self.discrete} choices" if self.discrete else f"{self.continuous} actions"
        own = "".join(f", {name}={value}" for name, value in self.config.items())
        return f"{self.algorithm:6} {'x'.join(map(str, self.hidden))} batch {self.batch}, {self.obs} obs, {action}{own}"


# Stable-Baselines3's learner does not normalise observations, and its DQN is not double; ours is, unless told not to
PLAIN = {"normalize": False}
CASES = (
    Case("ddpg", 17, 6, 0, (256, 256), 256, config=PLAIN),  # HalfCheetah's size
    Case("ddpg", 17, 6, 0, (256, 256), 256),
    Case("ddpg", 8, 2, 0, (64, 64), 128, config=PLAIN),  # 3DBall's, and the defaults of ours
    Case("td3", 17, 6, 0, (256, 256), 256, config=PLAIN),
    Case("sac", 17, 6, 0, (256, 256), 256, config=PLAIN),
    Case("dqn", 8, 0, 4, (256, 256), 128, config={**PLAIN, "double": False}),  # LunarLander's
    Case("dqn", 4, 0, 2, (64, 64), 64, config={**PLAIN, "double": False}),  # CartPole's
    Case("qrdqn", 8, 0, 4, (256, 256), 128, config={**PLAIN, "quantiles": 200}),
    Case("qrdqn", 4, 0, 2, (64, 64), 64, config={**PLAIN, "quantiles": 200}),
    Case("ppo", 17, 6, 0, (64, 64), 64, config=PLAIN),  # tanh, actor and critic apart; 10 epochs of 2048 rows
    Case("ppo", 4, 0, 2, (64, 64), 64, config=PLAIN),
)


@contextmanager
def ours(case: Case) -> Iterator[Callable[[], int]]:
    """What learns once with our algorithm, on a full ring, and returns how many gradient steps that were."""
    action = ActionSpec((-1.0,) * case.continuous, (1.0,) * case.continuous, (case.discrete,) if case.discrete else ())
    spec = EnvSpec({"vector": FieldSpec((case.obs,))}, action, num_agents=CHUNK)
    recipe, cpu = ALGORITHMS[case.algorithm], torch.device("cpu")
    make: Callable[..., Any] = recipe.config
    config = make(batch_size=case.batch, hidden=case.hidden, **case.config)
    algorithm = recipe.build(spec, config, "cpu")
    capacity = ROLLOUT if algorithm.recording.ordered else case.capacity
    with Ring.create(spec, algorithm.recording, 1, max(capacity, 16 * CHUNK)) as ring:
        writer = ring.writer(0, 1)
        for first in range(0, capacity, CHUNK):
            writer.append(_random_rows(ring, first // CHUNK)[: capacity - first])
        if algorithm.recording.ordered:
            rollout = Rollout(ring, np.zeros(capacity, np.int64), np.arange(capacity), cpu)
            yield lambda: algorithm.update(rollout).updates
        else:
            sampler = make_sampler(ring, case.batch, 0, config.prioritization)
            batch = sampler.batch(cpu)

            def update() -> int:
                sampler.sample()
                learned = algorithm.update(batch)
                sampler.learned(learned.td_error)
                return learned.updates

            yield update


def _random_rows(ring: Ring, seed: int) -> Rows:
    """One row of each agent, as Stable-Baselines3's buffer is filled in bench_sb3.py."""
    random, action = np.random.default_rng(seed), ring.spec.action
    rows: Rows = np.zeros(CHUNK, ring.layout)
    for name in ("obs", "next_obs"):
        rows[name]["vector"] = random.standard_normal(rows[name]["vector"].shape, np.float32)
    rows["reward"] = random.standard_normal(len(rows), np.float32)
    rows["discount"] = np.where(random.random(len(rows)) < 0.01, 0, 0.99)
    if action.num_continuous:
        rows["action"] = random.uniform(-1, 1, rows["action"].shape)
    if action.branches:
        rows["choice"] = random.integers(0, action.branches[0], rows["choice"].shape)
    if ring.recording.ordered:
        rows["log_prob"], rows["decision"] = -1, seed * CHUNK + np.arange(CHUNK)
    return rows


def measure(update: Callable[[], int], seconds: float) -> float:
    """Updates per second, the median over slices, as bench_sb3.py takes it."""
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not rates:
        begun, done = time.perf_counter(), 0
        while time.perf_counter() < begun + SLICE_S:
            done += update()
        rates.append(done / (time.perf_counter() - begun))
    return median(rates)


class Theirs:
    """Stable-Baselines3 in a process of its own, which waits on its stdin while ours is measured."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("bench_sb3.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = ""

    def measure(self, case: Case, seconds: float) -> float:
        """Updates per second. Raises RuntimeError if the process has ended; it has said why on stderr."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({**asdict(case), "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Stable-Baselines3's side ended with {self._process.wait(10)} at {case}")
        answer = json.loads(line)
        self.versions = answer["versions"]
        return float(answer["updates_per_s"])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def compare(case: Case, theirs: Theirs, seconds: float) -> dict[str, list[float]]:
    """Both sides' updates per second in each round; ours are missing while there is no such algorithm."""
    if case.algorithm not in ALGORITHMS:
        return {"ours": [], "sb3": [theirs.measure(case, seconds) for _ in range(ROUNDS)]}
    rates: dict[str, list[float]] = {"ours": [], "sb3": []}
    with ours(case) as update:
        for _ in range(ROUNDS):
            rates["ours"].append(measure(update, seconds))
            rates["sb3"].append(theirs.measure(case, seconds))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sb3_python", help="interpreter that has stable-baselines3 and sb3-contrib")
    parser.add_argument("--only", nargs="*", help="algorithms to measure; all of them without it")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one side in one of the rounds")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fit_process()  # as scripts.train does
    if hasattr(os, "sched_setaffinity"):  # Linux only; the other process inherits it
        core = max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
    figures = []
    theirs = Theirs(options.sb3_python)
    try:
        for case in CASES:
            if options.only and case.algorithm not in options.only:
                continue
            rates = compare(case, theirs, options.seconds)
            figures.append({**asdict(case), **rates})
            sb3 = median(rates["sb3"])
            beside = "no such algorithm here yet"
            if rates["ours"]:
                ratio = median(mine / other for mine, other in zip(rates["ours"], rates["sb3"], strict=True))
                beside = f"ours {median(rates['ours']):9,.1f}: {ratio:5.2f} times"
            print(f"{case!s:74} Stable-Baselines3 {sb3:8,.1f} updates/s, {beside}", flush=True)
        print(f"one core; {theirs.versions}; ours with torch {torch.__version__}")
    finally:
        theirs.close()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
