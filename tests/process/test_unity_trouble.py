"""The real program with Unity players that do not fit, and a user in a hurry."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.process.runs import ROOT, Start, free_port, wait_until
from tests.process.test_unity import BALL, SMALL

PLAYERS = ROOT / "unity/players"


SLOW = pytest.mark.slow
FEWER = """
import sys
sys.path.insert(0, {root!r})
from envproc.unity.player import ball
from scripts.player import main
ball.AGENTS_PER_AREA = 7
sys.argv.insert(1, "3DBall")
main()
"""


@pytest.mark.parametrize(
    ("other", "who"),
    [
        pytest.param("Renew", 1, marks=pytest.mark.thorough),
        pytest.param("fewer", 1, marks=SLOW),
        pytest.param("Grid", 1, marks=SLOW),
        pytest.param("Renew", 6, marks=SLOW),
    ],
)
def test_a_process_with_another_scene_than_the_first_is_noticed(
    other: str, who: int, start: Start, tmp_path: Path
) -> None:
    """Player 1 is the second worker's, player 6 the evaluator's. Three times in a row, and it is given up."""
    program, fewer = tmp_path / "Changeling", tmp_path / "fewer.py"
    fewer.write_text(FEWER.format(root=str(ROOT)))
    command = f"{sys.executable} {fewer}" if other == "fewer" else f"{PLAYERS}/{other}.x86_64"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *player-{who}.log*) sleep 1; exec {command} "$@";; esac\n'
        f'exec {PLAYERS}/3DBall.x86_64 "$@"\n'
    )
    program.chmod(0o755)
    run = start("--env", f"unity:{program}", "--workers", 2, "--min-workers", 2, *SMALL, "--steps", 10**6)
    assert run.wait(60) == 3
    name = "evaluator" if who == 6 else "worker-1"
    assert f"{name} does not fit" in run.stderr and "the first one ready had" in run.stderr
    assert "Traceback" not in run.stderr
    run.assert_nothing_left()


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["async", pytest.param("single", marks=pytest.mark.thorough)])
def test_ctrl_c_while_the_player_starts_leaves_nothing(mode: str, start: Start) -> None:
    run = start(*BALL, "--mode", mode, "--unity.args", "--fault slow-start@60")
    wait_until(lambda: len(run.children("scripts.player")) > 0, "the player to start")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130
    run.assert_nothing_left(2.0)
    assert run.stderr == "interrupted before the environment was up\n"
    assert not run.directory.exists()


@pytest.mark.slow
def test_a_port_that_the_evaluator_cannot_have_is_named_in_one_line(start: Start) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        run = start(*BALL, *SMALL, "--unity.base-port", port)
        assert run.wait() == 3
    assert f"evaluator failed: PlayerRefused: port {port + 1} cannot be had" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.thorough
def test_a_policy_for_others_that_there_is_not_is_refused_in_one_line(start: Start) -> None:
    run = start("--env", "unity:unity/players/Two", "--behavior", "Runner", "--unity.others", "Chaser=/nowhere")
    assert run.wait() == 2
    assert run.stderr.count("\n") == 1 and "/nowhere is no run" in run.stderr
    assert not run.directory.exists()


def test_what_a_scene_records_is_json_whatever_it_is(tmp_path: Path) -> None:
    import json

    from rich.console import Console

    from core.metrics import Metrics

    with Metrics(tmp_path, Console(quiet=True)) as metrics:
        metrics.write("env", agent_steps=1, worker="worker-0", values={"a": float("nan"), "b": 2.0})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["values"] == {"a": None, "b": 2.0}
