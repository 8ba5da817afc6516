"""Records on a disk that is full, in a directory that is gone, by a clock that is set back."""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.metrics import Metrics
from core.tracking import TensorBoard
from tests.process.runs import ROOT


def metrics_in(directory: Path) -> Metrics:
    return Metrics(directory, Console(quiet=True, force_terminal=False), [TensorBoard(directory)])


def write(metrics: Metrics, step: int) -> None:
    metrics.write("eval", agent_steps=step, updates=step, episodes=1, return_mean=float(step), return_std=0.0)


def test_on_a_full_disk_records_are_missing_as_a_whole_each_file_says_so_once_and_goes_on_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with metrics_in(tmp_path) as metrics:
        write(metrics, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        try:
            for step in range(1, 100):
                write(metrics, step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        write(metrics, 100)
    noted = capsys.readouterr().err.splitlines()
    assert len(noted) == 2 and "metrics.jsonl lacks records" in noted[0] + noted[1]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    drawn = [event.step for event in events.Scalars("eval/episodic_return")]
    for steps in ([record["agent_steps"] for record in records], drawn):
        assert steps == [*range(len(steps) - 1), 100] and 10 < len(steps) < 90


def test_a_clock_that_is_set_back_takes_no_time_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with metrics_in(tmp_path) as metrics:
        before = metrics.wall_s()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now - 3600)
        assert before <= metrics.wall_s() < before + 600


def test_a_run_takes_time_since_its_process_was_started() -> None:
    late = "import time; time.sleep(0.3); from core import metrics; print(time.monotonic() - metrics._STARTED)"
    begun = time.monotonic()
    told = subprocess.run([sys.executable, "-c", late], cwd=ROOT, capture_output=True, timeout=60)
    assert 0.3 <= float(told.stdout) <= time.monotonic() - begun + 0.1


def test_a_run_whose_directory_is_deleted_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with metrics_in(directory) as metrics:
        write(metrics, 0)
        shutil.rmtree(directory)
        for step in range(1, 20):
            write(metrics, step)
    assert capsys.readouterr().err == ""


def test_in_a_terminal_the_table_is_drawn_without_markup_also_with_what_scrolls_by_above_it(tmp_path: Path) -> None:
    shown = io.StringIO()
    figures = dict.fromkeys(("agent_steps", "agent_steps_per_s", "updates", "updates_per_s", "workers", "rollouts"), 1)
    with Metrics(tmp_path, Console(file=shown, force_terminal=True, width=80), []) as metrics:
        metrics.write("progress", **figures, return_mean=1.0, weights_lag=0.0, waiting="workers wait [/] 1 %")
        write(metrics, 2)
    assert shown.getvalue().count("workers wait [/] 1 %") > 1 and "evaluation after 2 updates" in shown.getvalue()
    assert "[bold]" not in shown.getvalue()
