"""What the audit of a run finds, and that it finds nothing where all held."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts import audit, plot

Record = dict[str, Any]


def worker(event: str, name: str = "worker-0", **more: Any) -> Record:
    return {"kind": "worker", "worker": name, "event": event, **more}


def progress(**more: Any) -> Record:
    figures = {"agent_steps": 10, "updates": 1, "weights_lag": 0.0, "replay_ratio": 8.0, "replay_ratio_held": 8.0}
    return {"kind": "progress", **figures, **more}


CONFIG: Record = {"kind": "config"}
CHECKPOINT: Record = {"kind": "checkpoint", "agent_steps": 20, "updates": 2}
SUMMARY: Record = {"kind": "summary", "reason": "steps", "agent_steps": 20, "updates": 2}
ORDER: Record = {"kind": "order", "number": 1}
ANSWER: Record = {"kind": "command", "number": 1}
LIFE = [worker("started", epoch=0), worker("ready")]
SOUND = [
    CONFIG, *LIFE, progress(), ORDER, worker("stalls"), worker("goes on"), worker("died"), ANSWER,
    worker("restarted", epoch=1), worker("ready"), worker("leaves"), worker("started", epoch=2), CHECKPOINT, SUMMARY,
]  # fmt: skip
BROKEN = {
    "goes back from 20 to 10": [CONFIG, CHECKPOINT, progress(updates=2)],
    "weights that do not exist yet": [CONFIG, progress(weights_lag=-1.0)],
    "while that of epoch 0 is still there": [CONFIG, *LIFE, worker("restarted", epoch=1)],
    "goes back from epoch 2 to 1": [
        CONFIG, worker("started", epoch=2), worker("died"), worker("restarted", epoch=1)
    ],
    "is ready and was not started": [CONFIG, worker("ready", "worker-7")],
    "order 1 has 0 answers": [CONFIG, ORDER, CHECKPOINT, SUMMARY],
    "order 1 has 2 answers": [CONFIG, ORDER, ANSWER, ANSWER],
    "orders that nobody gave": [CONFIG, ANSWER],
    "the replay ratio held is 9.00, asked for 8": [CONFIG, progress(replay_ratio_held=9.0)],
    "something is told after the summary": [CONFIG, CHECKPOINT, SUMMARY, progress(agent_steps=30, updates=3)],
    "ended without a checkpoint": [CONFIG, SUMMARY],
}  # fmt: skip


def write(directory: Path, records: list[Record], end: str = "\n") -> None:
    timed = [{"wall_s": float(second), **record} for second, record in enumerate(records)]
    directory.mkdir()
    (directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, timed)) + end)


def test_where_all_held_nothing_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resumed = [{**record, "wall_s": float(second)} for second, record in enumerate(SOUND)]  # time begins earlier again
    write(tmp_path / "run", [*SOUND, *resumed])
    assert audit.main(["run", "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("30 records, 2 checkpoints, 2 commands, 2 died, ")


@pytest.mark.parametrize("says", BROKEN)
def test_what_did_not_hold_is_found(says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", BROKEN[says])
    assert audit.main(["run", "--runs-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert says in out and out.endswith(": 1 violations\n")


def test_of_a_run_that_was_killed_half_a_record_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "run", [CONFIG, *LIFE, ORDER], end='\n{"kind": "progr')
    assert audit.main(["run", "--runs-dir", str(tmp_path)]) == 0


def test_what_is_no_record_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("no json\n")
    assert audit.main(["run", "--runs-dir", str(tmp_path)]) == 2
    assert audit.main(["other", "--runs-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe\x00\n", b"[1]\n", b"{}\n", b"\0\0\n"])
@pytest.mark.parametrize("program", [audit, plot])
def test_damaged_records_are_told_in_one_line(
    program: ModuleType, damaged: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_bytes(damaged)
    assert program.main(["run", "--runs-dir", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and ("no records" if not damaged else "metrics.jsonl, line 1, is no record") in told


@pytest.mark.parametrize("strange", [{"kind": "progress"}, {"kind": "worker"}, {"kind": "env", "wall_s": "x"}])
def test_records_that_no_run_writes_are_told_in_one_line(
    strange: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    records = [{**CONFIG, "wall_s": 0.0}, strange]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    assert audit.main(["run", "--runs-dir", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert not told.out and told.err.startswith("error: ") and told.err.count("\n") == 1
