"""The stand-in player as a process: what it says message by message, how it ends, and the faults it is asked for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from mlagents_envs.exception import UnityCommunicatorStoppedException, UnityEnvironmentException
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel

from envproc.unity.player.channels import RESET as RESET_CHANNEL
from envproc.unity.player.channels import ints
from envproc.unity.player.faults import Fault
from tests.envproc.unity.play import PATIENCE, QUIT, RESET, STEP, Bare, bare, side_channel, stock

ROOT = Path(__file__).parents[3]


def infos(message: Any) -> dict[str, list[tuple[int, bool]]]:
    """Behaviour key -> (id, done) in the order of the message."""
    told = message.unity_output.rl_output.agentInfos
    return {key: [(info.id, info.done) for info in told[key].value] for key in told}


def test_it_introduces_itself_then_waits_then_tells_what_its_agents_see_and_can_do() -> None:
    with bare("Two") as trainer:
        hello = trainer.call()
        myself = hello.unity_output.rl_initialization_output
        assert hello.header.status == 200
        assert (myself.communication_version, myself.package_version) == ("1.5.0", "2.2.1-exp.1")
        assert (
            all(value for _, value in myself.capabilities.ListFields()) and len(myself.capabilities.ListFields()) == 7
        )
        assert not myself.brain_parameters
        trainer.welcome()
        second = trainer.call()
        assert second.header.status == 200 and not second.HasField("unity_output")
        trainer.answer(command=RESET)

        first = trainer.call()
        described = first.unity_output.rl_initialization_output.brain_parameters
        assert [each.brain_name for each in described] == ["Runner?team=0", "Chaser?team=1"]
        assert list(described[0].action_spec.discrete_branch_sizes) == [3]
        assert infos(first) == {
            "Runner?team=0": [(n, False) for n in (0, 1, 2)],
            "Chaser?team=1": [(3, False), (4, False)],
        }
        trainer.answer(command=STEP)
        second = trainer.call()
        assert not second.unity_output.HasField("rl_initialization_output"), "a behaviour is described once"
        # a key for everybody known, with nothing to tell too
        assert infos(second) == {"Runner?team=0": [], "Chaser?team=1": [(3, False), (4, False)]}


def test_an_end_stands_before_the_next_decision_of_the_same_agent() -> None:
    with bare("Grid") as trainer:
        trainer.begin()
        for _ in range(100):
            trainer.answer(command=STEP)
            message = trainer.call()
        assert infos(message)["Grid?team=0"] == [(n, True) for n in range(9)] + [(n, False) for n in range(9)]
        told = message.unity_output.rl_output.agentInfos["Grid?team=0"].value
        assert all(info.max_step_reached == info.done for info in told)


def interrupt(request: int, *agents: int) -> bytes:
    """A side channel blob for our reset channel."""
    payload = ints(1, request, len(agents), *agents)
    return RESET_CHANNEL.bytes_le + ints(len(payload)) + payload


def test_a_second_end_before_the_next_decision_is_not_told() -> None:
    with bare("3DBall") as trainer:
        trainer.begin()
        for request in (0, 1):
            trainer.answer(command=STEP, side_channel=interrupt(request, 4))
            message = trainer.call()
            # the first ends it, at a decision; the second finds it between its end and its next decision
            assert infos(message)["3DBall?team=0"] == ([(4, True)] if request == 0 else [(n, False) for n in range(12)])
            done = [payload for _, payload in side_channel(message.unity_output.rl_output.side_channel)]
            assert ints(3, request, 1, 4, 0) in done


def test_an_agent_that_is_interrupted_does_not_act_in_that_step() -> None:
    with bare("Grid") as trainer:
        trainer.begin()
        trainer.answer(command=STEP, side_channel=interrupt(0, 4))
        told = trainer.call().unity_output.rl_output.agentInfos["Grid?team=0"].value
    rewards = {(info.id, info.done): round(info.reward, 6) for info in told}
    assert rewards.pop((4, True)) == 0.0 and rewards.pop((4, False)) == 0.0
    assert set(rewards.values()) == {-0.01} and len(rewards) == 8


def test_a_request_to_reset_agents_that_nobody_was_told_of_is_answered_and_nonsense_is_not() -> None:
    with bare("3DBall") as trainer:
        trainer.call()
        trainer.welcome()
        trainer.call()
        nonsense = [
            RESET_CHANNEL.bytes_le + ints(4 * len(words), *words)
            for words in ([], [1], [2, 0, 0], [1, 0], [1, 0, 3, 4, 5])
        ]
        trainer.answer(
            command=RESET, side_channel=interrupt(7, 4) + b"".join(nonsense) + RESET_CHANNEL.bytes_le + ints(1) + b"x"
        )
        message = trainer.call()
    assert infos(message)["3DBall?team=0"] == [(n, False) for n in range(12)]
    here, done = side_channel(message.unity_output.rl_output.side_channel)
    assert here[1][:4] == ints(2) and done[1] == ints(3, 7, 0, 1, 4)


@pytest.mark.parametrize("end", ["a status of 400", "QUIT", "the end of the connection", "400 before the first reset"])
def test_it_ends_with_exit_code_0_when_the_trainer_wants_it_or_is_gone(end: str) -> None:
    with bare("3DBall") as trainer:
        if end == "400 before the first reset":
            trainer.call()
        else:
            trainer.begin()
        if end == "QUIT":
            trainer.answer(command=QUIT)
        elif end == "the end of the connection":
            trainer.server.stop(None).wait()
        else:
            trainer.stop()
        assert trainer.process.wait(PATIENCE) == 0


def test_it_ends_when_its_trainer_is_killed(tmp_path: Path) -> None:
    script = """
import os, sys
import envproc.unity.messages
from tests.envproc.unity.play import stock
with stock("3DBall", "--no-reset-channel", log_folder=sys.argv[1]) as env:
    env.reset()
    os.kill(os.getpid(), 9)
"""
    trainer = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, timeout=60, check=False)
    assert trainer.returncode == -signal.SIGKILL
    wait_for(tmp_path / "Player-0.log", "quit: the connection ended")


def test_flags_come_in_any_order_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log"
    with bare("Renew", "-batchmode", "--what", "1", "-logFile", str(log), "-nographics", "--quality=3") as trainer:
        trainer.begin()
        assert "scene Renew, port" in log.read_text()


def wait_for(log: Path, line: str) -> None:
    for _ in range(PATIENCE * 20):
        if log.exists() and line in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{line!r} was not logged: {log.read_text() if log.exists() else 'no log'}")


@pytest.mark.parametrize(("fault", "code"), [("crash@3", -signal.SIGABRT), ("exit@3", 3)])
def test_a_player_that_dies_does_so_in_place_of_that_exchange_and_logs_why(
    tmp_path: Path, fault: str, code: int
) -> None:
    log = tmp_path / "log"
    with bare("3DBall", "--fault", fault, "-logFile", str(log)) as trainer:
        trainer.begin()
        trainer.answer(command=STEP)
        trainer.call()
        trainer.answer(command=STEP)
        assert trainer.process.wait(PATIENCE) == code
        assert f"Fatal: fault {fault} was asked for" in log.read_text().splitlines()[-1]
        with pytest.raises(TimeoutError):
            trainer.call(patience=0)


def test_a_player_can_die_between_the_first_two_calls_and_hang_and_stay_when_told_to_quit(tmp_path: Path) -> None:
    with bare("3DBall", "--fault", "exit-between") as trainer:
        trainer.call()
        trainer.welcome()
        assert trainer.process.wait(PATIENCE) == 3
    log = tmp_path / "log"
    with bare("3DBall", "--fault", "hang@1", "-logFile", str(log)) as trainer:
        enter(trainer)
        wait_for(log, "fault hang@1")
        trainer.server.stop(None).wait()
        assert trainer.process.poll() is None
    with bare("3DBall", "--fault", "slow-start@0.1", "--fault", "ignore-quit", "-logFile", str(log)) as trainer:
        trainer.begin()
        trainer.stop()
        wait_for(log, "fault ignore-quit was asked for: staying")
        assert trainer.process.poll() is None


def enter(trainer: Bare) -> None:
    trainer.call()
    trainer.welcome()
    trainer.call()
    trainer.answer(command=RESET)


@pytest.mark.thorough
def test_the_stock_trainer_meets_the_faults_as_it_meets_them_in_a_real_player() -> None:
    def play(*flags: str) -> None:
        with stock("3DBall", *flags, timeout_wait=10, side_channels=[RawBytesChannel(RESET_CHANNEL)]) as env:
            env.reset()
            env.step()

    with pytest.raises(UnityCommunicatorStoppedException, match="Communicator has exited"):
        play("--fault", "status400@2")
    with pytest.raises(RuntimeError, match="NaN"):
        play("--fault", "nan@2")
    with pytest.raises(UnityEnvironmentException, match="return code 0"):
        play("--fault", "big@2")
    with pytest.raises(UnityEnvironmentException, match="not compatible"):
        play("--communication-version", "2.0.0")


def test_a_message_over_4_mib_is_refused_and_ends_the_player(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with bare("3DBall", "--fault", "big@1", "-logFile", str(log)) as trainer:
        enter(trainer)
        assert trainer.process.wait(PATIENCE) == 0
        assert grpc.StatusCode.RESOURCE_EXHAUSTED.name in log.read_text()


def test_an_unknown_fault_or_scene_is_refused_with_those_that_there_are() -> None:
    for text in ("crash", "crash@0", "exit-between@3", "slow-start@", "burn@1"):
        with pytest.raises(
            ValueError, match=r"no fault .*; there are crash@N, .*slow-start@SECONDS, slow-step@SECONDS, exit-between"
        ):
            Fault.parse(text)
    for wrong, hint in (
        (["4DBall"], "3DBall"),
        (["3DBall", "--fault", "burn@1"], "no fault 'burn@1'; there are crash@N"),
    ):
        command = [sys.executable, "-m", "scripts.player", *wrong]
        refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 2 and hint in refused.stderr
