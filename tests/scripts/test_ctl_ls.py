"""`python -m scripts.ctl ls`: which runs are going on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from scripts import ctl, running
from scripts.command_line import UsageError
from scripts.run_directory import RunDirectory

DEAD = 2**22 + 1
"""a pid that no process has"""


def make_run(runs: Path, name: str, since: float, pid: int | None, records: str = "") -> None:
    (runs / name).mkdir(parents=True)
    (runs / name / "config.json").write_text(json.dumps({"algorithm": "ddpg", "env": "3dball"}))
    (runs / name / "metrics.jsonl").write_text(records)
    if pid is not None:
        control = runs / name / "control.json"
        control.write_text(json.dumps({"address": "ipc:///nowhere", "pid": pid}))
        os.utime(control, (since, since))


def test_the_newest_comes_first_in_columns_and_what_is_over_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = time.mktime((2024, 5, 17, 9, 30, 0, 0, 0, -1))
    records = '{"agent_steps": 5}\n{"agent_steps": 1234567, "updates": 9}\n{"kind": "worker"}\n{"agent_steps": 99'
    make_run(tmp_path, "old", at, os.getpid(), "x" * 100_000 + records)
    make_run(tmp_path, "the-newest", at + 60, os.getpid())
    make_run(tmp_path, "killed", at + 120, DEAD)
    make_run(tmp_path, "over", at, None)
    (tmp_path / "a file").touch()

    assert ctl.main(["ls", "--runs-dir", str(tmp_path)]) == 0
    pid = f"pid {os.getpid()}"
    assert capsys.readouterr().out.splitlines() == [
        f"the-newest  ddpg  3dball  {pid}  0 agent steps          since 2024-05-17 09:31",
        f"old         ddpg  3dball  {pid}  1,234,567 agent steps  since 2024-05-17 09:30",
    ]


@pytest.mark.parametrize(
    "told", ["", "[]", "{}", '{"address": "x", "pid": "1"}', f'{{"address": "x", "pid": {10**20}}}']
)
def test_a_file_that_tells_nothing_is_passed_over(
    told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "one", 0.0, os.getpid())
    make_run(tmp_path, "other", 0.0, 1)
    (tmp_path / "other" / "control.json").write_text(told)
    assert ctl.main(["ls", "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("one ")


@pytest.mark.parametrize("config", ["", "[1]", "{}", '{"algorithm": 1, "env": '])
def test_of_a_run_whose_config_is_damaged_the_rest_is_told(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "one", 0.0, os.getpid())
    make_run(tmp_path, "other", 1.0, os.getpid())
    (tmp_path / "other" / "config.json").write_text(config)
    assert ctl.main(["ls", "--runs-dir", str(tmp_path)]) == 0
    other, one = capsys.readouterr().out.splitlines()
    assert one.startswith("one    ddpg  3dball ") and f"config.json cannot be read  pid {os.getpid()} " in other


def test_what_stands_behind_ls_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "one", 0.0, os.getpid())
    assert ctl.main(["ls", "one", "--runs-dir", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", "error: ls takes nothing behind it, and there is 'one'\n")


def test_an_order_that_no_job_would_read_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "one", 0.0, os.getpid())
    assert ctl.main(["set", "env.gravity", "9" * 70_000, "--runs-dir", str(tmp_path)]) == 2
    assert "it must have 65,536 at most" in capsys.readouterr().err


def test_where_none_is_going_on_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for runs in (tmp_path, tmp_path / "nothing"):
        assert ctl.main(["ls", "--runs-dir", str(runs)]) == 2
        assert capsys.readouterr().err == f"error: no run in {runs} is going on\n"


def test_of_an_order_without_an_answer_it_is_told_that_it_may_still_be_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, "one", 0.0, os.getpid())
    monkeypatch.setattr(running, "ANSWER_S", 0.05)
    assert ctl.main(["workers", "+1", "--runs-dir", str(tmp_path)]) == 3
    told = capsys.readouterr().err
    assert told.startswith("error: no answer for") and "may still obey" in told and "metrics.jsonl" in told


def test_a_run_that_was_killed_is_not_going_on_though_another_process_has_its_pid_now(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.listens("ipc:///nowhere", None)
    assert [each.pid for each in running.find_running("", tmp_path)] == [os.getpid()]
    told = (run.path / "control.json").read_bytes()
    run.close()
    (run.path / "control.json").write_bytes(told)
    with pytest.raises(UsageError, match="is going on"):
        running.find_running("", tmp_path)
