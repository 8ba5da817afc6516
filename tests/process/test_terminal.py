"""Where a run's output goes, and what happens to that place."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.checkpoint import load_policy
from tests.process.runs import PATIENCE_S, ROOT


def command(runs: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "scripts.train", "ddpg", "--runs-dir", str(runs), "--run", "run", *options]


def test_a_run_survives_the_reader_of_its_output(tmp_path: Path) -> None:
    """As in `| head -1`, or in `| tee log` when Ctrl-C ends tee first."""
    arguments = command(tmp_path, "--workers", "1", "--steps", "2000", "--algo.replay-ratio", "16")
    with open(tmp_path / "stderr", "wb") as stderr:
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0, (tmp_path / "stderr").read_text()
    finally:
        process.kill()
        process.wait(5)
    assert (tmp_path / "stderr").read_text() == ""
    assert '"reason": "steps"' in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    load_policy(tmp_path / "run")


@pytest.mark.thorough
@pytest.mark.parametrize("place", ["full", "unread", "closed"])
def test_a_run_needs_nobody_who_takes_its_output(place: str, tmp_path: Path) -> None:
    """As in `> /dev/full`; in a terminal that stands still; in `>&-`."""
    opened = [os.open("/dev/full", os.O_WRONLY)] if place == "full" else list(pty.openpty())
    if place == "unread":
        os.set_blocking(opened[1], False)
        with contextlib.suppress(BlockingIOError):
            while True:  # no limit: until nothing more goes in
                os.write(opened[1], b"x")
        os.set_blocking(opened[1], True)
    try:
        line = shlex.join(command(tmp_path, "--steps", "2000", "--algo.replay-ratio", "16"))
        process = subprocess.Popen(
            ["sh", "-c", f"exec {line}" + (" >&- 2>&-" if place == "closed" else "")],
            cwd=ROOT,
            stdout=opened[-1],
            stderr=opened[-1],
        )
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait(5)
    finally:
        for each in opened:
            os.close(each)
    assert '"reason": "steps"' in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]


@pytest.mark.thorough
def test_a_run_whose_terminal_closes_ends_and_is_saved(tmp_path: Path) -> None:
    """As when `ssh` is cut off."""
    pid, terminal = _in_a_terminal(tmp_path)
    try:
        _until_the_table(terminal, time.monotonic() + 30)
    finally:
        os.close(terminal)
        code = _exit_code(pid)
    assert code == 130, (tmp_path / "run" / "metrics.jsonl").read_text()[-2000:]
    assert '"reason": "interrupted"' in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    load_policy(tmp_path / "run")


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    pid, terminal = _in_a_terminal(tmp_path)
    deadline = time.monotonic() + 30
    try:
        screen = _until_the_table(terminal, deadline)
        os.write(terminal, b"\x03")
        while chunk := _read(terminal, deadline):
            screen += chunk
        _, status = os.waitpid(pid, 0)
        pid = 0
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"Traceback" not in screen
    assert screen.rfind(b"\x1b[?25h") > screen.rfind(b"\x1b[?25l"), "the cursor is shown again"
    assert b"run: " in screen[screen.rfind(b"\x1b[?25h") :], "and the last line stands below the table"


def _in_a_terminal(runs: Path) -> tuple[int, int]:
    """A run without an end: its pid, and the other side of its terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # or these tests, if started by nohup, would pass that on
        os.execve(sys.executable, command(runs, "--steps", "1000000000"), os.environ | {"TERM": "xterm"})
    return pid, terminal


def _until_the_table(terminal: int, deadline: float) -> bytes:
    """All that is shown until the first table is whole."""
    screen = b""
    while b"waiting" not in screen:  # its last line
        chunk = _read(terminal, deadline)
        assert chunk, "the program has ended"
        screen += chunk
    return screen


def _read(terminal: int, deadline: float) -> bytes:
    """What comes next; nothing when the program is gone."""
    ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
    assert ready, "the program did not end in time"
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way of saying that the other side has closed
        return b""


def _exit_code(pid: int) -> int:
    """Of a child, when it has ended. If it does not in time it is killed."""
    deadline = time.monotonic() + PATIENCE_S
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])
