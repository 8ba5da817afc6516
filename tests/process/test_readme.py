"""What README.md tells a new user to run first, run as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.process.runs import PATIENCE_S, ROOT, wait_until

LEFT_OUT = [
    "make train",  # installs what is installed; what it trains with is the command after it
    "make test",  # would run this
    ".venv/bin/tensorboard --logdir runs",  # a server: it does not end
]
FIRST_STEPS, STEPS = 1500, 1
"""`--steps` is put behind each training from its beginning, which would take a minute. The first one's policy is played
and its curves are drawn, so it is evaluated once; of the others, the beginning and the end are enough"""
MY_ENV = """
from envproc.ball3d import Ball3D

class MyEnv(Ball3D):
    def __init__(self, copies):
        super().__init__(copies)
"""
STOP = ".venv/bin/python -m scripts.ctl stop"
"""the README has it in a comment: without it, the run that is told what to do would go on"""
_COMMAND = re.compile(r"^    ((?:make|\.venv/bin/).*)$|`(\.venv/bin/[^`]+)`", re.MULTILINE)


def commands() -> list[str]:
    """Of the sections "Two commands" and "The first five minutes", in their order, without comments."""
    page = (ROOT / "README.md").read_text()
    first = page[page.index("## Two commands") : page.index("## Algorithms")]
    return [shlex.join(shlex.split(block or inline, comments=True)) for block, inline in _COMMAND.findall(first)]


def make_checkout(there: Path) -> Path:
    """A copy of this one, with the files of their own that new users have: an environment, a player, options."""
    for name in ("core", "algos", "envproc", "scripts", "unity"):
        shutil.copytree(ROOT / name, there / name)
    (there / ".venv").symlink_to(sys.prefix)
    mine = there / "path/to"
    mine.mkdir(parents=True)
    (mine / "my_env.py").write_text(MY_ENV)
    player = mine / "Build.x86_64"
    player.write_text(f'#!/bin/sh\nexec "{there}/unity/players/3DBall.x86_64" "$@"\n')
    player.chmod(0o755)
    (there / "my.toml").write_text("workers = 1\n")
    return there


def test_every_program_is_among_the_commands_of_the_first_five_minutes() -> None:
    told = commands()
    assert set(LEFT_OUT) < set(told)
    programs = {"train", "evaluate", "export", "plot", "check", "ctl", "watch", "audit"}
    assert set(re.findall(r"-m scripts\.(\w+)", "".join(told))) == programs


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_every_command_of_the_first_five_minutes_runs_as_it_stands_there(tmp_path: Path) -> None:
    told = commands()
    checkout, name = make_checkout(tmp_path / "sharl"), ""

    def words(command: str) -> list[str]:
        if "scripts.train ddpg" in command and "--help" not in command:
            command = f"{command} --steps {STEPS if name else FIRST_STEPS}"
        return [name if word == "NAME" else word for word in shlex.split(command)]

    def run(command: str) -> str:
        done = subprocess.run(words(command), cwd=checkout, capture_output=True, text=True, timeout=2 * PATIENCE_S)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    first, *others = (command for command in told if command not in LEFT_OUT)
    (name,) = re.findall(r"^run: runs/(.+)$", run(first), re.MULTILINE)
    (resume,) = (number for number, command in enumerate(others) if "--resume" in command)
    with ThreadPoolExecutor(2) as pool:  # begun in order, two at a time: none of them needs another one
        list(pool.map(run, others[:resume]))

    printed, watching = tmp_path / "printed", None
    with open(printed, "wb") as file:
        going_on = subprocess.Popen(words(others[resume]), cwd=checkout, stdout=file, stderr=file)
    try:  # "while it runs, it can be told what to do"
        records = checkout / "runs" / name / "metrics.jsonl"
        ready = '"worker": "worker-0", "event": "ready"'
        wait_until(lambda: records.read_text().count(ready) == 2 or going_on.poll() is not None, "its worker")
        (watch,) = (command for command in others if "scripts.watch" in command)
        watched = tmp_path / "watched"
        with open(watched, "wb") as file:
            watching = subprocess.Popen(words(watch), cwd=checkout, stdout=file, stderr=file)
        for command in [*others[resume + 1 :], STOP]:
            if command != watch:  # it ends with the run
                run(command)
        assert going_on.wait(PATIENCE_S) == 0, printed.read_text()
        assert watching.wait(PATIENCE_S) == 0, watched.read_text()
    finally:
        going_on.kill()
        if watching is not None:
            watching.kill()
