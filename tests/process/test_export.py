"""`python -m scripts.export` and what it says when it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from core import checkpoint
from core.onnx_graph import build
from scripts import evaluate, export, train
from tests.core.exported import policy, shown


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Of two runs, "mixed" and, newer though its name comes first, "continuous"."""
    for name, algorithm in (("mixed", "ppo"), ("continuous", "ddpg")):
        exported = policy(algorithm, name)
        checkpoint.save(tmp_path / "runs" / name, exported.saved, exported.parameters, {})
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    return tmp_path / "runs"


@pytest.mark.parametrize("unity", [False, True])
def test_a_runs_policy_is_written_and_compared(unity: bool, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = runs / "out.onnx"
    face = ["--unity", "--opset", "11"] if unity else []
    assert export.main(["mixed", "--onnx", str(file), "--runs-dir", str(runs), *face]) == 0
    model = onnx.load(file)
    exported = policy("ppo", "mixed")
    assert shown(model, "input") == shown(build(exported.saved, exported.parameters, unity=unity), "input")
    assert model.opset_import[0].version == (11 if unity else 9)
    told = capsys.readouterr().out
    assert f"{file}: opset {11 if unity else 9}" in told and "0 choices differ, over 256" in told
    assert ("obs_0 float32 (batch, 8)" if unity else "goal float64 (batch, 2, 3)") in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody", "--onnx", "x.onnx"], "no run RUNS/nobody; the newest is continuous"),
        (["mixed"], "--onnx"),
        (["mixed", "--onnx", "x.onnx", "--opset", "8"], "--opset 8; it must be from 9 to 21"),
        (["mixed", "--onnx", "no/such/folder/x.onnx"], "no/such/folder"),
        (["RUNS/mixed/checkpoints", "--onnx", "x.onnx"], "no run with a checkpoint"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    arguments: list[str], says: str, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    arguments = [each.replace("RUNS", str(runs)) for each in arguments]
    assert export.main([*arguments, "--runs-dir", str(runs)]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and says.replace("RUNS", str(runs)) in told.err
    assert told.err.count("\n") == 1 and not told.out
    assert not list(runs.glob("*.onnx"))


def test_a_model_that_is_not_the_policy_is_not_written(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "build", lambda saved, parameters, **_: build(saved, parameters + 0.1))
    assert export.main(["continuous", "--onnx", str(runs / "x.onnx"), "--runs-dir", str(runs)]) == 2
    assert "the model is not the policy" in capsys.readouterr().err
    assert not list(runs.glob("*.onnx"))


def test_without_onnxruntime_it_is_written_and_the_way_to_compare_is_told(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export.main(["continuous", "--onnx", str(runs / "x.onnx"), "--runs-dir", str(runs)]) == 0
    assert "pip install onnxruntime" in capsys.readouterr().out
    assert (runs / "x.onnx").stat().st_size > 1000


def test_an_evaluation_finds_runs_as_an_export_does(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["nobody", "--runs-dir", str(runs)]) == 2
    assert "the newest is continuous" in capsys.readouterr().err


_NAMED = """
import numpy as np
from core.types import ActionSpec, EnvSpec, FieldSpec
from envproc.env import Ended, Step

class Named:
    def __init__(self, copies):
        self.spec = EnvSpec({"action": FieldSpec((2,))}, ActionSpec((-1.0,), (1.0,)), copies)

    def reset(self, seed):
        return self.begin(ended=0)

    def step(self, action):
        return self.begin(ended=self.spec.num_agents)

    def begin(self, ended):
        agents, nothing = np.arange(self.spec.num_agents), np.zeros(self.spec.num_agents, np.float32)
        seen = np.ones((self.spec.num_agents, 2), np.float32)
        last = Ended(agents[:ended], {"action": seen[:ended]}, nothing[:ended], agents[:ended] >= 0)
        return Step(agents, {"action": seen}, nothing, last)

    def reset_agents(self, agents):
        pass

    def close(self):
        pass
"""


def test_that_a_policy_cannot_be_exported_is_said_when_its_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "named.py").write_text(_NAMED)
    options = "--mode single --steps 200 --algo.warmup 50 --eval-every 1000000"
    where = ["--env", f"{tmp_path}/named.py:Named", "--runs-dir", str(tmp_path / "runs"), "--run", "run"]
    assert train.main(["ddpg", *options.split(), *where]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "cannot be exported: the observation field 'action'" in told[0]
