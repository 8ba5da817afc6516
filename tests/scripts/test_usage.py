"""What cannot be meant is refused in one line, before anything is done."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from scripts import ctl, evaluate, export, plot
from scripts.command_line import UsageError
from scripts.options import parse
from scripts.resume import parse as parse_resumed
from scripts.run_directory import RunDirectory
from tests.core.exported import policy

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Of one run, "run", with a policy and a file of records."""
    from core import checkpoint

    exported = policy("ddpg", "continuous")
    checkpoint.save(tmp_path / "run", exported.saved, exported.parameters, {})
    (tmp_path / "run" / "config.json").write_text("{}")
    records = [{"kind": "config"}, {"kind": "progress", "wall_s": 1.0, "agent_steps": 1}]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    for name in ("there.json", "there.gif", "there.png", "there.onnx"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("program", "option", "name"),
    [
        (evaluate, "--json", "there.json"),
        (evaluate, "--video", "there.gif"),
        (plot, "--out", "there.png"),
        (export, "--onnx", "there.onnx"),
        (export, "--onnx", "not-there/x.onnx"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_any_work(
    program: ModuleType, option: str, name: str, runs: Path, capsys: Captured
) -> None:
    assert program.main(["run", "--runs-dir", str(runs), option, str(runs / name)]) == 2
    out, told = capsys.readouterr()
    assert out == "" and told.startswith(f"error: {option} ") and told.count("\n") == 1
    assert ("is a directory; name a file" if "not" not in name else "make it first") in told


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_evaluate_takes_the_seeds_that_train_takes(seed: int, runs: Path, capsys: Captured) -> None:
    assert evaluate.main(["run", "--runs-dir", str(runs), "--seed", str(seed)]) == 2
    assert capsys.readouterr().err == f"error: --seed {seed}; it must be at least 0, below 2**32\n"


def test_a_run_without_a_name_is_none(runs: Path, capsys: Captured) -> None:
    assert evaluate.main(["", "--runs-dir", str(runs)]) == 2
    assert capsys.readouterr().err == "error: there is no run ''; the newest is run\n"


def test_keys_without_a_door_are_refused(tmp_path: Path, capsys: Captured) -> None:
    _, options = parse(["ddpg", "--control-keys", str(tmp_path)])
    with pytest.raises(ValueError, match=r"--control-keys .*; it must be used with --control"):
        options.check()
    assert ctl.main(["status", "--control-keys", str(tmp_path)]) == 2
    assert "--control-keys is for a job on another machine; add --control" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--run other", "--force", "--init-from run"])
def test_what_is_for_a_new_run_is_refused_where_one_goes_on(option: str, runs: Path) -> None:
    (runs / "run" / "config.json").write_text('{"algorithm": "ddpg", "algo": {}, "run": "run"}')
    parse_resumed(["run", "--runs-dir", str(runs)])
    with pytest.raises(UsageError, match=f"{option.split()[0]} is for a new run, and .*run goes on"):
        parse_resumed(["run", "--runs-dir", str(runs), *option.split()])


@pytest.mark.parametrize("config", ["[1]", "null", '{"algorithm": ["ddpg"]}', "{"])
def test_a_run_whose_config_is_damaged_does_not_go_on(config: str, runs: Path) -> None:
    (runs / "run" / "config.json").write_text(config)
    with pytest.raises(UsageError, match=r"its config.json cannot be read"):
        parse_resumed(["run", "--runs-dir", str(runs)])


@pytest.mark.parametrize("name", ["run", "metrics.jsonl", "checkpoints"])
def test_a_run_that_may_not_be_written_to_is_refused_before_it_goes_on(
    name: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != name)  # root may do all
    with pytest.raises(ValueError, match=f"{name} may not be written to"), RunDirectory(runs / "run", resumed=True):
        pass


def test_checkpoints_that_may_not_be_read_are_told_in_one_line(
    runs: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def glob(path: Path, pattern: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "glob", glob)
    assert evaluate.main(["run", "--runs-dir", str(runs)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "cannot be read: [Errno 13] Permission denied" in told
