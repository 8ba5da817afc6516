"""What cannot be done is refused in one line with the way out, before anything has been started or written."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from scripts.train import main
from tests.process.runs import TOYS, Start

BAD_TOYS = "tests/process/bad_toys.py"


def case(*arguments: object, says: tuple[str, ...] = ()) -> tuple[list[str], tuple[str, ...]]:
    return [str(argument) for argument in arguments], says


LISTEN = ("--listen-keys", "/dev/null", "--listen")
CASES = [
    case(says=("algorithm", "ddpg")),
    case("ddqg", says=("ddqg", "did you mean 'ddpg'")),
    case("sarsa", says=("sarsa", "ddpg")),
    case("ddpg", "--wrokers", 2, says=("--wrokers", "did you mean --workers")),
    case("ddpg", "--algo.taau", 0.1, says=("--algo.taau", "did you mean --algo.tau")),
    case("ddpg", "--workers", "two", says=("--workers", "two")),
    case("ddpg", "--mode", "fast", says=("--mode", "async", "sync", "single")),
    case("ddpg", "--workers", -1, says=("--workers -1", "at least 0")),
    case("ddpg", "--copies", 0, says=("--copies 0", "at least 1")),
    case("ddpg", "--steps", 0, says=("--steps 0", "at least 1")),
    case("ddpg", "--eval-every", 0, says=("--eval-every 0", "at least 1")),
    case("ddpg", "--seed", -1, says=("--seed -1", "at least 0")),
    case("ddpg", "--seed", 2**64, says=("--seed", str(2**64))),
    case("ddpg", "--until-return", "nan", says=("--until-return nan",)),
    case("ddpg", "--until-return", "inf", says=("--until-return inf",)),
    case("ddpg", "--env", "3dbal", says=("3dbal", "did you mean '3dball'")),
    case("ddpg", "--env", "gymnasium:Pendulm-v1", says=("Pendulm", "Pendulum")),
    case("ddpg", "--env", "gymnasium:", says=("gymnasium:",)),
    case("ddpg", "--env", "tests/process/toyz.py:Slow", says=("toyz.py", "did you mean tests/process/toys.py")),
    case("ddpg", "--env", "./tests/process/toys:Slow", says=("toys",)),
    case("ddpg", "--env", "no.such.module:Slow", says=("no.such.module",)),
    case("ddpg", "--env", f"{TOYS}:Slou", says=("Slou", "did you mean 'Slow'")),
    case("ddpg", "--env", f"{TOYS}:name", says=("name", "copies")),
    case("ddpg", "--env", f"{TOYS}:NotAnEnv", says=("NotAnEnv", "spec")),
    case("ddpg", "--env", f"{BAD_TOYS}:Closes", says=("Closes", "close() raised ValueError: no", "bad_toys.py, line")),
    case("ddpg", "--env", "gymnasium:CartPole-v1", says=("continuous",)),
    case("ddpg", "--algo.capacity", 10**11, says=("GiB", "free", "--algo.capacity")),
    case("ddpg", "--algo.capacity", 10, says=("--algo.capacity 10", "at least 96")),
    case("ddpg", "--algo.capacity", 96, "--algo.n-step", 1000, says=("--algo.capacity 96", "--algo.n-step")),
    case("ddpg", "--algo.replay-ratio", -1, says=("--algo.replay-ratio -1",)),
    case("ddpg", "--algo.replay-ratio", "nan", says=("--algo.replay-ratio nan",)),
    case("ddpg", "--algo.replay-ratio", "inf", says=("--algo.replay-ratio inf",)),
    case("ddpg", "--device", "cuda:99", says=("--device", "cuda:99", "cpu")),
    case("ddpg", "--device", "toaster", says=("--device", "toaster", "cpu")),
    case("ddpg", "--device", "meta", says=("--device", "meta", "cpu")),
    case("ddpg", "--replay-device", "cuda", says=("--replay-device cuda", "left out, or that of --device cpu")),
    case("ppo", "--replay-device", "cpu", says=("--replay-device cpu", "left out with ppo")),
    case("ddpg", "--precision", "tf32", says=("--precision tf32", "float32 or bfloat16 with --device cpu")),
    case("ddpg", "--run", "../x", says=("--run", "../x")),
    case("ddpg", "--run", "/tmp/x", says=("--run", "/tmp/x")),
    case("ddpg", "--run", "a//b", says=("--run", "a//b")),
    case("ddpg", "--run", "..", says=("--run",)),
    case("ddpg", "--run", "a\0b", says=("--run",)),
    case("ddpg", "--run", "x" * 5000, says=("--run", "64")),
    *(
        case("ddpg", "--control", address, says=(f"--control {address}", "--control-keys"))
        for address in ("tcp://0.0.0.0:5555", "tcp://192.0.2.1:*", "tcp://128.0.0.1:5555")
    ),
    *(
        case("ddpg", "--control", f"tcp://{place}", says=(f"--control 'tcp://{place}'", "tcp://127.0.0.1:5555"))
        for place in (
            "*:5555",
            "eth0:5555",
            "127.0.0.1",
            "127.1:5555",
            "[::]:5555",
            "127.0.0.1:1,0.0.0.0:5555",
            "localhost:65536",
        )
    ),
    case("ddpg", "--control", "ipc:///tmp/control", says=("--control 'ipc:///tmp/control'",)),
    case("ddpg", "--listen", "tcp://0.0.0.0:5000", says=("--listen-keys None", "used with --listen")),
    case("ddpg", "--listen-keys", "keys", says=("--listen-keys keys", "used with --listen")),
    case("ddpg", *LISTEN, "tcp://0.0.0.0:*", says=("--listen tcp://0.0.0.0:*", "with a port")),
    case("ddpg", *LISTEN, "somewhere", says=("--listen 'somewhere'", "tcp://127.0.0.1:5555")),
    case("ddpg", *LISTEN, "tcp://0.0.0.0:5000", says=("--listen-keys /dev/null", "scripts.keys")),
    case("ddpg", *LISTEN, "tcp://0.0.0.0:5000", "--mode", "sync", says=("--mode sync", "async with --listen")),
    case("ddpg", "--control", "tcp://0.0.0.0:*", "--control-keys", "/dev/null", says=("--control-keys /dev/null",)),
    *(
        case("ddpg", f"--algo.{name}", value, says=(name, str(value)))
        for name, values in {
            "gamma": (-0.1, 1.5, "nan"),
            "tau": (0, 2, "nan"),
            "sigma": (-1, "nan", "inf", 1e39),
            "theta": (-1, 3, "nan"),
            "actor-lr": (0, -1, "nan"),
            "critic-lr": (0, -1, "nan"),
            "batch-size": (0, -3),
            "hidden": (0, -4),
            "n-step": (0, -1),
            "warmup": (-1,),
            "noise": ("pink",),
        }.items()
        for value in values
    ),
]


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError(f"a process was started: {arguments}")

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("arguments", "says"), CASES, ids=[" ".join(words)[:50] for words, _ in CASES])
def test_it_is_refused_in_one_line(
    arguments: list[str], says: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert main([*arguments, "--runs-dir", str(runs)] if len(arguments) > 1 else arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and told.err.endswith("\n"), told.err
    assert len(told.err) < 600
    for part in says:
        assert part in told.err
    assert not runs.exists()


@pytest.mark.parametrize("existing", ["run", "run/logs"])
def test_a_run_that_exists_is_not_touched(existing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / existing).mkdir(parents=True)
    assert main(["ddpg", "--runs-dir", str(tmp_path), "--run", "run"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and str(tmp_path / "run") in told
    assert len(list(tmp_path.rglob("*"))) == len(Path(existing).parts)


@pytest.mark.parametrize("place", ["/dev/null", "/proc/nowhere"])
def test_a_place_where_no_run_can_be_kept_is_refused(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ddpg", "--runs-dir", place]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and place in told


class TestAsAProcess:
    @pytest.fixture(autouse=True)
    def nothing_is_started(self) -> None:
        """But the program itself."""

    @pytest.mark.parametrize("encoding", ["ascii", pytest.param("utf-8", marks=pytest.mark.slow)])
    def test_it_is_one_line_and_exit_code_2_there_too(self, encoding: str, start: Start) -> None:
        run = start("--wrokers", 2, PYTHONIOENCODING=encoding)
        assert run.wait() == 2
        assert run.stderr == "error: Unrecognized options: --wrokers, 2; did you mean --workers?\n"
        assert run.stdout == ""
        assert not run.directory.parent.exists()
        assert run.left() == []
