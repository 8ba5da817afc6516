"""--config and --save-config: what is written is read, the command line wins, what is wrong is told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from algos import ALGORITHMS
from scripts.command_line import UsageError
from scripts.config_file import fill_in, read
from scripts.options import Options, parse

WITHOUT_DEFAULTS = (
    "--env", "unity:a b/c", "--unity.args", "--flag \"q\\uote\" ä😀\x7f", "--env-params", "a=1", "b=2",
    "--until-return", "1e-05", "--algo.hidden", "7", "8", "--algo.prioritized", "--runs-dir", "else/where",
)  # fmt: skip


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("algorithm", ["ddpg", "apex", "ppo", "r2d2"])
@pytest.mark.parametrize("more", [(), WITHOUT_DEFAULTS], ids=["defaults", "others"])
def test_what_was_saved_is_read_as_the_same_options(algorithm: str, more: tuple[str, ...], tmp_path: Path) -> None:
    if algorithm == "ppo":
        more = tuple(each for each in more if each != "--algo.prioritized")
    file = str(tmp_path / "options.toml")
    with pytest.raises(SystemExit) as stop:
        parse([algorithm, *more, "--save-config", file])
    assert stop.value.code == 0
    assert parse([algorithm, "--config", file]) == parse([algorithm, *more])


def test_each_option_is_saved_below_its_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "options.toml"
    with pytest.raises(SystemExit):
        parse(["ddpg", "--save-config", str(file)])
    assert capsys.readouterr().out == f"options: {file}\n"
    text = file.read_text()
    assert "# agent steps after which the run ends\nsteps = 60000\n" in text
    assert "# width of each hidden layer, of actor and critic alike\nhidden = [64, 64]\n" in text, "the subclass's help"
    assert "\n# until_return is not set\n" in text
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("\n[") == 2 and text.index("[algo]") < text.index("[unity]")
    lines = text.splitlines()
    for number, line in enumerate(lines):
        assert " = " not in line or line.startswith("#") or lines[number - 1].startswith("# "), f"{line} has no help"


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.toml", "steps = 5")
    with pytest.raises(UsageError, match=r"there is a file .*mine\.toml already"):
        parse(["ddpg", "--save-config", file])
    assert read(Path(file)) == {"steps": 5}


def test_options_that_cannot_be_meant_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--steps 0"):
        parse(["ddpg", "--steps", "0", "--save-config", str(tmp_path / "new.toml")])
    assert not list(tmp_path.iterdir())


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.toml", 'steps = 5\nseed = 7\nenv_params = ["a=1"]\n[algo]\ntau = 0.5\nhidden = [1]')
    _, options = parse(["ddpg", "--steps", "6", "--config", file, "--algo.hidden", "2", "3"])
    assert (options.steps, options.seed, options.workers) == (6, 7, 0)
    assert (options.algo.tau, options.algo.hidden, options.algo.batch_size) == (0.5, (2, 3), 128)
    assert options.env_params == ("a=1",)


def test_options_that_go_together_may_come_from_both(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.toml", "[algo]\nprioritized = true")
    _, options = parse(["dqn", "--algo.worker-priorities", f"--config={file}"])
    assert options.algo.worker_priorities and options.algo.prioritized


def test_an_algorithm_keeps_its_options_apart_from_the_files_name(tmp_path: Path) -> None:
    """config.json is made from the options: it knows nothing of files."""
    file = write(tmp_path / "mine.toml", "")
    assert type(parse(["ddpg", "--config", file])[1]) is Options


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wrokers = 2", "there is no option 'wrokers'; did you mean 'workers'?"),
        ("[algo]\ntaau = 2", "there is no option 'algo.taau'; did you mean 'algo.tau'?"),
        ("[algo]\nreplay-ratio = 2", "did you mean 'algo.replay_ratio'?"),
        ("tau = 2", "there is no option 'tau'; did you mean 'algo.tau'?"),
        ('[algo]\nenv = "x"', "did you mean 'env'?"),
        ("time_scale = 2", "did you mean 'unity.time_scale'?"),
        ('config = "x"', "there is no option 'config'"),
        ("[algo.tau]\nx = 1", "algo.tau = {'x': 1}: expected float, got object"),
        ("algo = 3", "algo = 3; it must be a table, [algo]"),
        ('workers = "two"', "workers = 'two': expected int, got str"),
        ("steps = 1.5", "steps = 1.5: expected int, got float"),
        ("compile = 1", "compile = 1: expected bool, got int"),
        ('mode = "fast"', "mode = 'fast': there is async, sync, single"),
        ("[algo]\nhidden = [64, true]", "algo.hidden = [64, True]: expected int, got bool"),
        ("[algo]\ntau = 3", "--algo.tau 3.0; it must be above 0, at most 1"),
        ("[unity]\ntime_scale = 0", "--unity.time-scale 0.0; it must be from 1 to 100"),
        ("steps =", "cannot be read: "),
        ("steps = 1\nsteps = 2", "cannot be read: "),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_in_one_line_with_file_and_key(text: str, says: str, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.toml", text)
    with pytest.raises(UsageError) as error:
        parse(["ddpg", "--config", file])
    told = str(error.value)
    assert "mine.toml" in told and says in told and "\n" not in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--config", "no/such.toml"), "--config no/such.toml cannot be read"),
        (("--config",), "Missing value for argument '--config'"),
        (("--config", "a", "--mlagents-config", "b"), "give --config or --mlagents-config"),
        (("--save-config", "no/such/place.toml"), "--save-config no/such/place.toml cannot be written"),
    ],
)
def test_files_that_cannot_be_are_told(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(["ddpg", *arguments])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_number_without_a_point_does_for_a_fraction() -> None:
    filled: Options[Any] = fill_in(Options(ALGORITHMS["sac"].config()), {"algo": {"replay_ratio": 2}}, Path("x"))
    assert filled.algo.replay_ratio == 2.0 and type(filled.algo.replay_ratio) is float
