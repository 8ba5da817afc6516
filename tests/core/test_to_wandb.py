"""Weights & Biases gets what TensorBoard gets, and can do the run no harm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from core import to_wandb
from core.to_wandb import WandB, check_wandb

STAND_IN = """
import json, os, time

def note(what):
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps(what) + "\\n")

class Run:
    def define_metric(self, name, step_metric): note([name, step_metric])
    def log(self, numbers): note(numbers)
    def __enter__(self): return self
    def __exit__(self, *exception): {finish}

def init(**about):
    {init}
    note(about)
    return Run()
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in was told, a line each."""
    (tmp_path / "mine" / "logs").mkdir(parents=True)
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "told"


def tracker(directory: Path, init: str = "pass", finish: str = "pass") -> WandB:
    """With a stand-in for the package."""
    (directory / "wandb.py").write_text(STAND_IN.replace("{init}", init).replace("{finish}", finish))
    return WandB("project", directory / "mine", {"seed": 1})


def test_it_is_told_what_the_run_is_and_then_its_numbers_over_agent_steps(tmp_path: Path, told: Path) -> None:
    wandb = tracker(tmp_path)
    wandb.write({"charts/SPS": 3.5}, 10)
    wandb.write({"eval/episodic_return": 7.0}, 20)
    wandb.close()

    about, axis, *numbers = map(json.loads, told.read_text().splitlines())
    assert (about["project"], about["name"], about["config"]) == ("project", "mine", {"seed": 1})
    assert (about["id"], about["resume"]) == ("mine", "allow"), "a run that is resumed goes on there, too"
    assert axis == ["*", "agent_steps"]
    assert numbers == [{"agent_steps": 10, "charts/SPS": 3.5}, {"agent_steps": 20, "eval/episodic_return": 7.0}]


@pytest.mark.usefixtures("told")
def test_if_it_fails_that_is_told_once_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wandb = tracker(tmp_path, init="raise RuntimeError('no such account')")
    wandb._process.wait(30)
    for step in range(3):
        wandb.write({"charts/SPS": 3.5}, step)
    wandb.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no such account" in said and "logs/wandb.log" in said


@pytest.mark.usefixtures("told")
def test_if_it_takes_nothing_it_is_given_up_and_nothing_piles_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_wandb, "_BACKLOG", 10)
    wandb = tracker(tmp_path, init="time.sleep(60)")
    for step in range(2000):  # a pipe takes in hundreds before it is full
        wandb.write({f"charts/{number}": 3.5 for number in range(20)}, step)
    assert wandb._unsent.qsize() < 20
    wandb.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "10 records wait" in said
    assert wandb._process.returncode == -9


@pytest.mark.usefixtures("told")
def test_the_end_of_a_run_waits_for_it_only_so_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_wandb, "_LONGEST_FINISH_S", 0.05)
    wandb = tracker(tmp_path, finish="time.sleep(60)")
    wandb.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "after the run" in said
    assert wandb._process.returncode == -9


def test_a_directory_of_its_name_is_not_taken_for_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ValueError, match="pip install wandb"):
        check_wandb()
