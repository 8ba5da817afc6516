"""Each algorithm learns real environments from its default configuration: `make learning`, which takes hours.

A run ends with the first evaluation of 96 episodes (24 where episodes are slow) that reaches the goal. Each prints a
JSON line; docs/learning.md has them as a table. `pytest -m learning -s -k "ppo and 3dball"` runs some of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.learning
ROOT = Path(__file__).parents[2]
SEEDS = (1, 2, 3)


class Task(NamedTuple):
    """What an algorithm must reach somewhere, and what it is given for that."""

    algorithms: str
    env: str
    goal: float
    steps: int
    """agent steps, at most"""
    options: str = ""
    """of the run, not of the algorithm"""


HIDDEN = "envproc.toys:CartPoleWithoutVelocities"
TASKS = [
    Task("ddpg td3 sac", "3dball", 99, 100_000),
    Task("ppo", "3dball", 99, 300_000, "--eval-every 10000"),
    Task("ddpg td3 sac", "gymnasium:Pendulum-v1", -200, 60_000),
    Task("ppo", "gymnasium:Pendulum-v1", -200, 300_000, "--copies 8 --eval-every 10000"),
    Task("dqn rainbow apex qrdqn iqn sac_discrete", "gymnasium:CartPole-v1", 475, 100_000),
    Task("ppo", "gymnasium:CartPole-v1", 475, 100_000, "--copies 8 --eval-every 5000"),
    Task("vtrace", "gymnasium:CartPole-v1", 475, 300_000, "--workers 1 --copies 8 --eval-every 10000"),
    Task("r2d2", HIDDEN, 475, 100_000),
    Task("dqn", "gymnasium:LunarLander-v3", 200, 500_000, "--eval-every 10000"),
    Task("ppo", "gymnasium:LunarLander-v3", 200, 1_500_000, "--copies 16 --eval-every 50000"),
    Task("sac", "gymnasium:LunarLanderContinuous-v3", 200, 400_000, "--eval-every 10000"),
    Task("td3 sac", "gymnasium:HalfCheetah-v5", 2500, 400_000, "--eval-every 20000 --eval-episodes 24"),
    Task("dqn ppo", "envproc.toys:Masked", -0.62, 300_000, "--eval-every 10000"),
    Task("ppo", "envproc.toys:Hybrid", 17, 600_000, "--eval-every 10000"),
    Task("dqn ppo", "envproc.toys:MultiDiscrete", 17, 300_000, "--eval-every 10000"),
    Task("dqn", "envproc.toys:Catch", 0.9, 100_000, "--frame-stack 2 --algo.conv simple --algo.hidden 128"),
]
CASES = [(algorithm, task) for task in TASKS for algorithm in task.algorithms.split()]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("algorithm", "task"), CASES, ids=[f"{name}-{task.env}" for name, task in CASES])
def test_it_learns(algorithm: str, task: Task, seed: int, tmp_path: Path) -> None:
    options = (
        f"{algorithm} --env {task.env} {task.options} --steps {task.steps} --until-return {task.goal} --seed {seed}"
    )
    command = [sys.executable, "-m", "scripts.train", *options.split(), "--runs-dir", str(tmp_path), "--run", "run"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=3000)
    records = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    summary = json.loads(records[-1])
    line = {name: summary[name] for name in ("wall_s", "agent_steps", "updates", "eval_return")}
    print("\n" + json.dumps({"command": f"python -m scripts.train {' '.join(options.split())}", **line}))
    assert summary["eval_return"] >= task.goal
