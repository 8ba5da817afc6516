"""python -m scripts.check: whatever an environment does becomes a line of the report."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from envproc import EnvConfig
from scripts.check import main
from scripts.probers import Lost, measured
from tests.process.runs import PATIENCE_S

FAULTY = "tests/envproc/faulty.py"


@pytest.mark.thorough
def test_a_sound_environment_gets_a_command_to_train_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{FAULTY}:Sound", "--processes", "1"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "BAD" not in told.out
    assert re.search(r"^ok    1 process: +[\d,]+ steps/s, [\d,]+ agent steps/s", told.out, re.MULTILINE)
    assert re.search(r"^ok    memory: [\d,]+ MiB a process", told.out, re.MULTILINE)
    assert "ok    can be learned by ppo, vtrace\n" in told.out
    assert f"-m scripts.train ppo --env {FAULTY}:Sound\n" in told.out


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Raises", "step 10 after reset(1) raised RuntimeError: the motor is hot"),
        ("KillsItself", "its first steps: the process is gone (killed by signal 9; it printed nothing)"),
        ("Leaves", "its first steps: the process is gone (exit code 0; it printed nothing)"),
        pytest.param("Hangs", "its first steps: no answer for 1 s; --patience allows more", marks=pytest.mark.thorough),
    ],
)
def test_a_broken_environment_is_a_line_and_exit_code_3(
    kind: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    assert main([f"{FAULTY}:{kind}", "--patience", "1"]) == 3
    assert time.monotonic() - start < PATIENCE_S, "it waits for as long as it was told to, not for the environment"
    told = capsys.readouterr()
    assert f"BAD   {says}" in told.out
    assert "Traceback" not in told.out + told.err and told.err == ""
    assert "scripts.train" not in told.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["3dbal"], "did you mean '3dball'"),
        (["3dball", "--copies", "0"], "--copies 0; it must be at least 1"),
        (["3dball", "--unity.args", "--fault crash@5", "--copies", "0"], "--copies 0"),
        (["3dball", "--patience", "0"], "--patience 0.0; it must be seconds above 0"),
        (["unity:no/such/player"], "no/such/player"),
        (["3dball", "--procesess", "1"], "did you mean --processes"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and says in told.err


def test_a_process_that_dies_while_the_speed_is_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(Lost, match="killed by signal 9"):
        measured(EnvConfig(f"{FAULTY}:KillsItself"), 2, tmp_path, 10.0)


def test_two_processes_are_measured_at_the_same_time(tmp_path: Path) -> None:
    speeds = measured(EnvConfig("3dball"), 2, tmp_path, 10.0)
    assert len(speeds) == 2
    for each in speeds:
        assert each.agent_steps == 12 * each.steps > 0
        assert each.seconds >= 1.0 and each.memory > 10 * 2**20
    ends = [file.stat().st_mtime for file in tmp_path.glob("speed-*.jsonl")]
    assert max(ends) - min(ends) < 1.0, "the last one had begun before the first one was done"
