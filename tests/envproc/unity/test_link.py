"""The link with real players: beside the stock UnityEnvironment, and with players that fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envproc.unity import launch
from envproc.unity.launch import Player, PlayerDied, PlayerHangs, PlayerRefused, find_player
from envproc.unity.link import Link
from envproc.unity.rpc import PlayerServer
from tests.envproc.unity.play import PACKAGE, PATIENCE, PLAYERS, Row, heard_at_random, stock

ROOT = Path(__file__).parents[3]


@contextmanager
def linked(scene: str | Path, *flags: str, logs: Path | str = "", **options: Any) -> Iterator[tuple[Any, Player]]:
    """A link and its player; `options` are the link's."""
    with closing(PlayerServer()) as server:
        program = find_player(str(PLAYERS / scene))
        with (
            closing(Player(program, server.port, 0, str(logs), True, flags)) as player,
            closing(Link(server, player, **{"launch_s": PATIENCE, "answer_s": PATIENCE, **options})) as link,
        ):
            yield link, player


def assert_same(ours: list[Row], theirs: list[Row]) -> None:
    plain = [[each._replace(obs=[], mask=None) for each in rows] for rows in (ours, theirs)]
    assert plain[0] == plain[1]
    for mine, stocks in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.mask, stocks.mask)
        for one, other in zip(mine.obs, stocks.obs, strict=True):
            assert one.dtype == other.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("scene", "exchanges", "flags"),
    [
        ("3DBall", 120, ()),
        pytest.param("Grid", 120, (), marks=pytest.mark.thorough),
        pytest.param("Two", 150, (), marks=pytest.mark.thorough),
        ("Spawn", 100, ()),
        pytest.param("Renew", 100, (), marks=pytest.mark.thorough),
        ("Visual", 40, ("--stack-images",)),
        pytest.param("Visual", 40, ("--raw-images",), marks=pytest.mark.thorough),
    ],
)
def test_it_hears_what_the_stock_environment_hears(scene: str, exchanges: int, flags: tuple[str, ...]) -> None:
    areas = 3 if scene == "3DBall" else 1
    with stock(scene, *flags, seed=-5, num_areas=areas) as env:
        theirs = heard_at_random(env, exchanges)
    with linked(scene, *PACKAGE, *flags, seed=-5, areas=areas) as (link, _):
        ours = heard_at_random(link, exchanges)
    assert sum(map(len, ours)) > exchanges
    for mine, stocks in zip(ours, theirs, strict=True):
        assert_same(mine, stocks)


# --- players that fail


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With players that will not quit anyway."""
    monkeypatch.setattr(launch, "_GRACE_S", 0.2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("exit-between", PlayerDied, "ended with exit code 3"),
        ("exit@1", PlayerDied, "ended with exit code 3"),
        ("exit@3", PlayerDied, "ended with exit code 3"),
        ("crash@2", PlayerDied, "was killed by SIGABRT"),
        pytest.param(
            "status400@2",
            PlayerDied,
            "(told us to stop .status 400.|ended with exit code 0)",
            marks=pytest.mark.thorough,
        ),
        ("hang@2", PlayerHangs, r"no answer within 0\.6 s \(--unity\.answer-s allows more\) from the player 3DBall"),
    ],
)
def test_a_player_that_fails_is_named_with_its_end_and_its_last_line(
    fault: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    # slower than this the player may be, where it is not to hang
    seconds = 0.6 if fault.startswith("hang") else PATIENCE
    player = linked("3DBall", "--fault", fault, logs=tmp_path, answer_s=seconds)
    with pytest.raises(error) as raised, player as (link, _):
        for _ in range(4):
            link.step()
    assert re.search(said, str(raised.value)), raised.value
    assert "3DBall.x86_64" in str(raised.value)
    assert re.search(rf"its last lines:(.|\n)*fault {fault} was asked for", str(raised.value))


def test_a_player_that_is_killed_between_two_calls_is_named_with_the_signal() -> None:
    with linked("3DBall") as (link, player):
        link.reset()
        os.kill(player.pid, signal.SIGKILL)
        with pytest.raises(PlayerDied, match="was killed by SIGKILL"):
            for _ in range(2):  # one answer may still be taken by the system
                link.step()


@pytest.mark.usefixtures("impatient")
def test_a_player_that_does_not_call_hangs() -> None:
    with (
        pytest.raises(PlayerHangs, match=r"no connection within 0\.3 s .*--unity\.launch-s.* from the player 3DBall"),
        linked("3DBall", "--fault", "slow-start@60", launch_s=0.3),
    ):
        pass


def test_a_program_that_is_no_player_has_died(tmp_path: Path) -> None:
    (tmp_path / "Ball").write_text("#!/bin/sh\necho I am no player\nexit 4\n")
    (tmp_path / "Ball").chmod(0o755)
    with (
        pytest.raises(PlayerDied, match=r"the player Ball ended with exit code 4; its last lines:\nI am no player"),
        linked(tmp_path / "Ball"),
    ):
        pass


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("version", "named"), [("2.0.0", "2.0.0"), ("0.9.0", "0.9.0"), ("", "(none)")])
def test_a_player_of_another_version_is_refused(version: str, named: str) -> None:
    said = f"speaks version {named} of ML-Agents' protocol (package 2.2.1-exp.1)"
    with (
        pytest.raises(PlayerRefused, match=re.escape(said)) as raised,
        linked("3DBall", f"--communication-version={version}"),
    ):
        pass
    assert "\n" not in str(raised.value)


IN_VAIN = """
import envproc.unity.messages
from tests.envproc.unity.test_link import PlayerRefused, linked
try:
    with linked("3DBall", "--communication-version", "2.0.0"):
        pass
except PlayerRefused:
    print("refused")
"""


@pytest.mark.thorough
def test_after_an_attempt_in_vain_the_interpreter_ends_in_silence() -> None:
    """mlagents-envs closes each environment once more at exit."""
    done = subprocess.run(
        [sys.executable, "-c", IN_VAIN], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


def test_messages_above_the_limit_of_grpc_and_numbers_that_are_not_finite_pass(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with linked("3DBall", "--fault", "big@2", "--fault", "nan@3") as (link, _):
        link.reset()
        link.step()
        assert len(link._talk.received) > 5 << 20
        link.step()
        assert np.isnan(link.get_steps("3DBall?team=0")[0].obs[0]).sum() == 1
    told = capfd.readouterr()
    assert "Unknown side channel" not in told.out + told.err


def test_close_lets_the_player_quit_before_the_first_reset_and_after() -> None:
    for resets in (0, 1):
        with linked("3DBall") as (link, player):
            for _ in range(resets):
                link.reset()
        assert player.how_it_ended == "ended with exit code 0"
