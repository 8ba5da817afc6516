"""A run with `--wandb`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import train
from tests.process.runs import Start


def test_without_the_package_it_is_refused_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train.main(["ddpg", "--wandb", "project", "--runs-dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install wandb" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.thorough
def test_offline_it_keeps_what_tensorboard_gets_and_goes_on_with_the_run(start: Start) -> None:
    pytest.importorskip("wandb")
    for resume, steps in ((False, 3000), (True, 5000)):
        options = ["--steps", steps, *([] if resume else ["--wandb", "project"])]
        run = start(*options, run="mine", resume=resume, WANDB_MODE="offline")
        assert run.wait() == 0 and run.stderr == ""
        run.assert_nothing_left()
    kept = sorted(run.directory.glob("wandb/offline-run-*/run-mine.wandb"))
    assert len(kept) == 2
    for file in kept:
        for tag in (b"charts/SPS", b"charts/episodic_return", b"losses/critic_loss", b"eval/episodic_return"):
            assert tag in file.read_bytes()
