"""Which run a name on the command line means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.command_line import UsageError
from scripts.runs import find_run


def make_run(runs: Path, name: str, started: float) -> Path:
    (runs / name).mkdir(parents=True)
    (runs / name / "config.json").write_text("{}")
    os.utime(runs / name / "config.json", (started, started))
    return runs / name


def test_a_run_is_meant_by_its_name_or_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "runs", "mine", 1)
    assert find_run("mine", tmp_path / "runs") == run
    assert find_run(str(run), tmp_path / "elsewhere") == run
    monkeypatch.chdir(tmp_path)
    assert find_run("runs/mine", Path("runs")).samefile(run)


def test_of_a_run_that_is_not_there_the_newest_is_named_instead(tmp_path: Path) -> None:
    for name, started in (("b", 1.0), ("a", 3.0), ("c", 2.0)):
        make_run(tmp_path, name, started)
    (tmp_path / "z").mkdir()  # no run
    for run in ("d", str(tmp_path / "d")):
        with pytest.raises(UsageError, match=r"there is no run .*d; the newest is a$"):
            find_run(run, tmp_path)


def test_where_there_is_no_run_at_all_the_way_to_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no run .*mine; train one first"):
        find_run("mine", tmp_path / "runs")
