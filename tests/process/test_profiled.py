"""`python -m scripts.profile pipeline` looks at a run of the real program, and leaves nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process.runs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def profile(home: Path, *words: str) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, "-m", "scripts.profile", "pipeline", "--quick", "--json", str(home / "out.json"), *words]
    environment = os.environ | {"TMPDIR": str(home)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert [each.name for each in home.iterdir() if each.name.startswith("sharl-")] == []
    return ended.stdout, json.loads((home / "out.json").read_text())


def test_a_run_with_players_is_told_by_its_processes_and_phases(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    told, found = profile(tmp_path, "--env", "unity:unity/players/3DBall", "--workers", "2", "--trace", str(trace))
    tables = {each["title"].partition(":")[0].partition(",")[0]: each["rows"] for each in found["tables"]}
    names = [row["what"] for row in tables["processes"]]
    workers = ["worker-0", "player of worker-0", "worker-1", "player of worker-1"]
    assert set(workers) < set(names) and {"learner", "evaluator", "player of evaluator"} < set(names)
    phases = {row["what"]: row["%"] for row in tables["time"]}
    assert 0 < phases["  of env, exchange"] < phases["workers, mean: env"]
    assert "wait" in told and json.loads(trace.read_text())["traceEvents"]


@pytest.mark.parametrize("env", ["gymnasium:Pendulum-v1", "unity:unity/players/3DBall"])
def test_advice_ends_with_a_command(env: str, tmp_path: Path) -> None:
    told, _ = profile(tmp_path, "--advise", "ddpg", "--env", env, "--algo.hidden", "16")
    (best,) = [line for line in told.splitlines() if line.startswith("best: ")]
    assert f"scripts.train ddpg --env {env} --algo.hidden 16" in best
