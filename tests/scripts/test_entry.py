from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from scripts.entry import code_of
from scripts.interrupts import Interrupts
from tests.process.runs import ROOT

_IN_AN_IMPORT = """
import os, signal
from scripts.entry import run_main

def main(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    except KeyboardInterrupt as error:
        raise RuntimeError("half an import") from error

run_main(main)
"""

_HUNG_UP = """
import os, signal
from scripts.entry import run_main

def main(arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    return 7

run_main(main)
"""


@pytest.mark.parametrize(
    ("program", "unbuffered"),
    [
        ("ctl", ""),
        *(
            pytest.param(*each, marks=pytest.mark.thorough)
            for each in (("ctl", "1"), ("train", ""), ("train", "1"), ("audit", ""), ("audit", "1"))
        ),
    ],
)
def test_who_reads_no_further_ends_a_program_without_a_word(program: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", f"scripts.{program}", "--help"],
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            timeout=30,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_ctrl_c_halfway_through_an_import_is_no_error() -> None:
    ended = subprocess.run([sys.executable, "-c", _IN_AN_IMPORT], cwd=ROOT, capture_output=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (130, b"")


@pytest.mark.parametrize(("before", "code"), [("", 130), ("trap '' HUP;", 7)])
def test_a_terminal_that_closes_ends_a_program_unless_it_is_to_outlive_it(before: str, code: int) -> None:
    """As nohup has it."""
    line = f"{before} exec {shlex.join([sys.executable, '-c', _HUNG_UP])}"
    ended = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (code, b"")


def test_a_terminal_that_closes_counts_once_however_often_it_is_told() -> None:
    interrupts = Interrupts()
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    assert interrupts.count == 2


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # >&-
    assert code_of(lambda arguments: 3) == 3


@pytest.mark.parametrize("program", ["check", "ctl", "evaluate", "export", "plot", "watch"])
def test_ctrl_c_during_the_slow_imports_ends_a_program_without_a_word(program: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-v", "-m", f"scripts.{program}", "--help"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        deadline = time.monotonic() + 30
        for line in process.stderr:  # of -v: what is imported
            assert time.monotonic() < deadline
            if "import 'dataclasses'" in line:
                break
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(30) == 130
        assert "Traceback" not in told
    finally:
        process.kill()
        process.wait(5)
