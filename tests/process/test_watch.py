"""Somebody watches a running job, in a terminal or through a pipe; the job does not notice."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest

from core.acting import PolicySpec
from core.checkpoint import SavedPolicy
from core.control import Order, Reply, Server
from core.net import NetSpec, num_parameters
from core.types import ActionSpec, EnvSpec
from core.weights import Published, Weights
from envproc import EnvConfig
from scripts.running import ask, find_running
from tests.process.runs import PATIENCE_S, ROOT, TOYS, Run, Start, wait_until

ENDLESS = ("--env", f"{TOYS}:Drawn", "--workers", 1, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0)


@pytest.fixture(scope="module")
def jobs(start_once: Start) -> tuple[Run, Run]:
    """Two runs that go on: the older one collects rows for ever, the newer one has learned something."""
    older = start_once(*ENDLESS, "--algo.warmup", 100_000, run="older")
    newer = start_once(*ENDLESS, "--algo.warmup", 50, run="newer")
    for run in (older, newer):
        run.wait_for("progress")
    os.utime(older.directory / "control.json", (1, 1))
    wait_until(lambda: newer.records("progress")[-1]["updates"] > 0, "an update")
    return older, newer


def command(runs: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "scripts.watch", "--runs-dir", str(runs), *options]


def start_on_a_pipe(runs: Path, *options: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command(runs, *options), cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def rest_of(viewer: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and what else was printed, when it has ended by itself."""
    try:
        out, err = viewer.communicate(timeout=PATIENCE_S)
    finally:
        viewer.kill()
    return viewer.returncode, out, err


def test_on_a_pipe_each_episode_is_a_line_until_agent_0_has_played_as_many_as_were_asked_for(
    jobs: tuple[Run, Run],
) -> None:
    _, newer = jobs
    code, out, err = rest_of(start_on_a_pipe(newer.directory.parent, "--episodes", "2"))
    assert (code, err) == (0, "")
    lines = [re.fullmatch(r"agent (\d): return -?\d\.\d\d, [\d,]+ updates", line) for line in out.splitlines()]
    assert all(lines), out
    # agent i's episodes last 7 + i % 5 steps
    assert Counter(int(line[1]) for line in lines if line) == {0: 2, 5: 2} | dict.fromkeys((1, 2, 3, 4, 6, 7), 1)


def test_the_job_keeps_no_record_of_who_watches(jobs: tuple[Run, Run]) -> None:
    _, newer = jobs
    reply = ask(find_running("newer", newer.directory.parent)[0].address, ["policy"])
    assert reply is not None and reply.done
    assert not newer.records("command")


def test_in_a_terminal_there_is_a_picture_with_a_line_under_it_and_ctrl_c_leaves_the_terminal_as_it_was(
    jobs: tuple[Run, Run],
) -> None:
    runs = jobs[1].directory.parent
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.execve(sys.executable, command(runs), os.environ | environment)
    screen, deadline = b"", time.monotonic() + PATIENCE_S
    try:
        while b"last " not in screen:
            screen += _read(terminal, deadline)
        os.write(terminal, b"\x03")
        while chunk := _read(terminal, deadline):
            screen += chunk
        _, status = os.waitpid(pid, 0)
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"Traceback" not in screen
    for on, off in (b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"):
        assert screen.rfind(off) > screen.find(on) >= 0
    shown = screen.decode(errors="replace")
    # 23 lines of cells: the border between red and blue lies in the middle of the twelfth
    border = "\x1b[38;2;255;0;0;48;2;0;0;255m" + "▀" * 46 + "\x1b"
    line = re.search(r"newer  [\d,]+ updates  agent 0: -?\d\.\d\d  last \d+: -?\d\.\d\d", shown)
    assert line is not None and 0 <= shown.find(border) < line.start()


def _read(terminal: int, deadline: float) -> bytes:
    """What comes next; nothing when the program is gone."""
    ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
    assert ready, "the program did not go on in time"
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way of saying that the other side has closed
        return b""


def test_it_waits_for_the_first_policy_and_ends_when_the_job_is_killed(jobs: tuple[Run, Run]) -> None:
    older, _ = jobs
    viewer = start_on_a_pipe(older.directory.parent, "--run", "older")
    assert viewer.stdout is not None
    assert viewer.stdout.readline() == "older has no policy yet; its first update makes one\n"
    os.kill(older.process.pid, signal.SIGKILL)
    assert rest_of(viewer) == (0, "older has ended\n", "")


def test_it_ends_when_the_job_ends_in_order(jobs: tuple[Run, Run]) -> None:
    _, newer = jobs
    viewer = start_on_a_pipe(newer.directory.parent)
    assert viewer.stdout is not None and viewer.stdout.readline()
    ask(find_running("", newer.directory.parent)[0].address, ["stop"])
    code, out, err = rest_of(viewer)
    assert (code, out.splitlines()[-1], err) == (0, "newer has ended", "")
    assert newer.wait() == 0, newer.stderr


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("unity:editor", "there is one Editor, and it is the run's: look there"),
        (f"{TOYS}:Counting", f"{TOYS}:Counting cannot draw itself; that takes pictures_per_s and picture()"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_one_line(env: str, says: str, tmp_path: Path) -> None:
    policy = PolicySpec(NetSpec({"vector": (3,)}, hidden=(), outputs=1), "tanh")
    told = SavedPolicy(asdict(EnvConfig(env)), EnvSpec({}, ActionSpec(), 8), policy)
    with Server() as server, Weights.create(num_parameters(policy.net)) as weights:
        (tmp_path / "run").mkdir()
        control = {"address": server.address, "pid": os.getpid()}
        (tmp_path / "run" / "control.json").write_bytes(msgspec.json.encode(control))
        viewer = start_on_a_pipe(tmp_path)
        server.socket.poll(int(PATIENCE_S * 1000))
        (order,) = server.receive()
        assert isinstance(order, Order) and order.words == ["policy"]
        answer = msgspec.json.encode(Published(weights.address, told)).decode()
        server.send(order.client, Reply(order.request, True, answer))
        code, out, err = rest_of(viewer)
    assert (code, out) == (2, "") and err.startswith(f"error: {says}") and err.count("\n") == 1
