"""Real processes in the place of players: what they are told, how they end, what is said of it."""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from envproc.unity import launch
from envproc.unity.launch import Player
from tests.envproc.unity.raw_client import opened

PATIENCE = 20
ROOT = Path(__file__).parents[3]


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """An executable of these lines of Python."""

    def make(lines: str) -> Path:
        path = tmp_path / "the player"
        path.write_text(f"#!{sys.executable} -S\n{lines}\n")
        path.chmod(0o755)
        return path

    return make


@contextmanager
def started(program: Path, logs: Path | str, *args: str, no_graphics: bool = False) -> Iterator[Player]:
    with closing(Player(program, 1234, 7, str(logs), no_graphics, args)) as player:
        yield player


def end_of(player: Player) -> str:
    player.wait(PATIENCE)
    assert player.ended
    return player.how_it_ended


@pytest.mark.parametrize("no_graphics", [False, True])
def test_the_arguments_are_those_of_unity_in_their_order_and_the_users_come_last(
    program: Any, tmp_path: Path, no_graphics: bool
) -> None:
    path = program("import json, sys; print(json.dumps([sys.argv, sys.stdin.read()]))")
    with started(path, tmp_path, "--level", "two words", no_graphics=no_graphics) as player:
        assert player.name == "the player"
        assert end_of(player) == "ended with exit code 0"
        argv, stdin = json.loads((tmp_path / "player-7.out").read_text())
    assert argv == [
        str(path),
        *(["-nographics", "-batchmode"] if no_graphics else []),
        *("--mlagents-port", "1234"),
        *("-logFile", str(tmp_path / "player-7.log")),
        *("--level", "two words"),
    ]
    assert stdin == "", "it has nothing to wait for there"


def test_it_is_out_of_reach_of_a_terminals_interrupt(program: Any, tmp_path: Path) -> None:
    with started(program("import time; time.sleep(60)"), tmp_path) as player:
        assert os.getsid(player.pid) == player.pid != os.getsid(0)
        assert not player.ended and player.how_it_ended == ""
        os.kill(player.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("import sys; sys.exit(0)", "ended with exit code 0"),
        ("import sys; sys.exit(3)", "ended with exit code 3"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "was killed by signal 40"),
    ],
)
def test_how_it_ended_is_an_exit_code_or_the_name_of_a_signal(
    program: Any, tmp_path: Path, lines: str, said: str
) -> None:
    with started(program(lines), tmp_path) as player:
        assert end_of(player) == said


def test_the_last_words_are_the_last_lines_of_log_and_output(program: Any, tmp_path: Path) -> None:
    path = program(
        "import sys\nwith open(sys.argv[sys.argv.index('-logFile') + 1], 'wb') as log:\n"
        "    log.write(b'\\n'.join(b'log %d' % i for i in range(99)) + b'\\nwrong \\xff\\n\\n')\n"
        "print('out', flush=True)\nprint('err', file=sys.stderr)"
    )
    with started(path, tmp_path) as player:
        end_of(player)
        assert player.last_words().splitlines() == [
            "its last lines:",
            *(f"log {i}" for i in range(90, 99)),
            "wrong \N{REPLACEMENT CHARACTER}",
            "out",
            "err",
        ]


def test_a_log_of_any_size_has_last_words(program: Any, tmp_path: Path) -> None:
    with started(program(""), tmp_path) as player:
        end_of(player)
        with (tmp_path / "player-7.log").open("wb") as log:
            log.truncate(1 << 40)  # which takes no space
            log.seek(0, os.SEEK_END)
            log.write(b"\nthe end\n")
        assert player.last_words().endswith("\nthe end")


def test_who_wrote_nothing_has_no_last_words(program: Any, tmp_path: Path) -> None:
    with started(program(""), tmp_path) as player:
        end_of(player)
        assert player.last_words() == "it wrote no log"


def test_a_file_that_is_no_program_says_so_last(tmp_path: Path) -> None:
    (tmp_path / "Ball").write_bytes(b"\x7fnot for this machine")
    (tmp_path / "Ball").chmod(0o755)
    with started(tmp_path / "Ball", tmp_path) as player:
        assert end_of(player) == "ended with exit code 1"
        assert f"cannot run {tmp_path / 'Ball'}: Exec format error; it must be" in player.last_words()


def test_one_that_quits_when_told_is_seen_out(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", PATIENCE)
    read, write = os.pipe()
    path = program(f"import os, sys\nopen('/proc/{os.getpid()}/fd/{read}', 'rb').read()\nsys.exit(5)")
    with started(path, tmp_path) as player:
        os.close(write)  # which tells it to quit
    os.close(read)
    assert player.how_it_ended == "ended with exit code 5"


DEAF = "import signal, time\nfor each in set(signal.Signals) - {9, 19}:\n    signal.signal(each, signal.SIG_IGN)\n"
DEAF += "print('here', flush=True)\nwhile True:\n    time.sleep(60)"


def wait_for(out: Path) -> None:
    while not (out.is_file() and out.read_text() == "here\n"):
        select.select([], [], [], 0.01)


def test_one_that_does_not_quit_is_killed(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.1)
    with started(program(DEAF), tmp_path) as player:
        wait_for(tmp_path / "player-7.out")
    assert player.how_it_ended == "was killed by SIGKILL"
    player.close()


def test_a_player_that_a_script_started_as_its_child_is_killed_too(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.1)
    alive, held = os.pipe()  # its reading end ends when the last who holds the other is gone
    os.set_inheritable(held, True)
    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, close_fds=False))
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {DEAF!r}], close_fds=False)"
    with started(program(script), tmp_path):
        os.close(held)
        wait_for(tmp_path / "player-7.out")
    assert select.select([alive], [], [], PATIENCE)[0] and os.read(alive, 1) == b""
    os.close(alive)


@pytest.mark.parametrize("first", ["import time; time.sleep(60)", ""])
def test_without_a_place_for_logs_nothing_is_left(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.1)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = opened()
    with started(program(first), "") as player:
        assert [each.name for folder in temporary.iterdir() for each in folder.iterdir()] == ["player-7.out"]
    assert player.ended
    assert list(temporary.iterdir()) == []
    assert opened() <= before


PARENT = """
import sys, time
from pathlib import Path
from envproc.unity.launch import Player
player = Player(Path(sys.argv[1]), 1234, 7, sys.argv[2], False, [])
print(player.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there the kernel does it")
def test_a_player_that_ignores_everything_dies_with_its_parent(program: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(program(DEAF)), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert parent.stdout is not None
        player = os.pidfd_open(int(parent.stdout.readline()))
        wait_for(tmp_path / "player-7.out")
        assert not select.select([player], [], [], 0)[0], "alive"
        parent.kill()
        assert select.select([player], [], [], PATIENCE)[0], "it outlived its parent"
        os.close(player)
    finally:
        parent.kill()
        parent.wait(timeout=PATIENCE)
        if parent.stdout is not None:
            parent.stdout.close()


def test_a_player_whose_parent_has_gone_before_it_could_be_tied_is_not_run() -> None:
    command = [sys.executable, "-IS", str(ROOT / "envproc/unity/tied.py"), str(os.getppid()), "/bin/echo", "played"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (1, "")
