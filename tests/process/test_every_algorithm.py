"""Each algorithm from the command line to a policy that plays: rows, policy in numpy and schedules fit together.

In the mode single and in this process, where a dozen of them take seconds. What they learn is test_learning.py's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from algos import ALGORITHMS
from scripts import evaluate, train

CONTINUOUS, MASKED, BRANCHES, MIXED, IMAGES = (
    "3dball",
    "envproc.toys:Masked",
    "envproc.toys:MultiDiscrete",
    "envproc.toys:Hybrid",
    "envproc.toys:Catch",
)
REPLAYS = "--algo.warmup 60 --algo.batch-size 16 --algo.replay-ratio 2 --algo.hidden 16 16"
RECURRENT = "--algo.warmup 60 --algo.batch-size 4 --algo.replay-ratio 4 --algo.lstm 8 --algo.hidden 16"
ORDERED = "--algo.horizon 8 --algo.hidden 16 16"
PIXELS = "--frame-stack 2 --algo.conv simple"

CASES = [
    *((name, f"--env {CONTINUOUS} {REPLAYS}") for name in ("ddpg", "td3", "sac")),
    *((name, f"--env {MASKED} {REPLAYS}") for name in ("dqn", "rainbow", "apex", "qrdqn", "iqn", "sac_discrete")),
    ("r2d2", f"--env {MASKED} {RECURRENT}"),
    ("ppo", f"--env {CONTINUOUS} {ORDERED}"),
    ("vtrace", f"--env {MIXED} {ORDERED}"),
]
"""one for each algorithm"""
MORE = [
    *((name, f"--env {BRANCHES} {REPLAYS}") for name in ("dqn", "rainbow", "apex", "qrdqn", "iqn", "sac_discrete")),
    ("r2d2", f"--env {IMAGES} {PIXELS} {RECURRENT}"),
    *(("ppo", f"--env {env} {ORDERED}") for env in (MASKED, BRANCHES, MIXED)),
    *(("vtrace", f"--env {env} {ORDERED}") for env in (CONTINUOUS, MASKED, BRANCHES)),
    *((name, f"--env {IMAGES} {PIXELS} {REPLAYS} --algo.prioritized") for name in ("dqn", "rainbow", "iqn")),
    ("apex", f"--env {IMAGES} {PIXELS} {REPLAYS} --workers 2"),
    ("ppo", f"--env {IMAGES} {PIXELS} {ORDERED} --algo.share --workers 2"),
    ("sac", f"--env {CONTINUOUS} {REPLAYS} --algo.prioritized --algo.n-step 3 --algo.layer-norm --workers 2"),
    ("dqn", f"--env {MASKED} {REPLAYS} --algo.munchausen --algo.dueling --algo.noisy --precision bfloat16"),
]


def run(name: str, options: str, home: Path, run: str, seed: int) -> dict[str, Any]:
    """The summary of a run of some hundred agent steps."""
    command = f"{name} {options} --mode single --steps 320 --eval-every 1000 --eval-episodes 24 --seed {seed}"
    assert train.main([*command.split(), "--checkpoint-every", "90", "--runs-dir", str(home), "--run", run]) == 0
    return summary(home / run)


def go_on(run: Path, number: str) -> dict[str, Any]:
    """The summary of a run that goes on from its checkpoint of this number, as if it had been killed after that."""
    for checkpoint in (run / "checkpoints").iterdir():
        if checkpoint.name > number:
            shutil.rmtree(checkpoint)
    assert train.main(["--resume", str(run)]) == 0
    return summary(run)


def summary(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return record


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name} {options}"[:40] for name, options in CASES])
def test_it_trains_repeatably_and_what_it_leaves_can_be_played(name: str, options: str, tmp_path: Path) -> None:
    once = run(name, options, tmp_path, "once", seed=1)
    again = run(name, options, tmp_path, "again", seed=1)
    assert once["weights_sha256"] == again["weights_sha256"]
    assert once["weights_sha256"] == go_on(tmp_path / "again", "000002")["weights_sha256"]
    check(once, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "options"), MORE, ids=[f"{name} {options}"[:40] for name, options in MORE])
def test_it_trains_on_whatever_it_may_and_what_it_leaves_can_be_played(name: str, options: str, tmp_path: Path) -> None:
    check(run(name, options, tmp_path, "once", seed=1), tmp_path)


def check(once: dict[str, Any], home: Path) -> None:
    """It learned, was evaluated, and plays."""
    assert once["updates"] >= 3 and once["eval_return"] is not None
    assert evaluate.main(["once", "--runs-dir", str(home), "--episodes", "8"]) == 0


def test_no_algorithm_is_left_out() -> None:
    assert {name for name, _ in CASES} == set(ALGORITHMS)
