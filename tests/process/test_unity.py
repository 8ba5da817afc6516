"""The real program with the stand-in player: what its users see, also when the player breaks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core.checkpoint import load_policy
from tests.process.runs import ROOT, Run, Start, free_port, wait_until

BALL = ("--env", "unity:unity/players/3DBall", "--workers", 1)
SMALL = ("--algo.hidden", 16, 16, "--algo.batch-size", 32, "--algo.replay-ratio", 4, "--eval-every", 1000)

FAULTS = {  # arguments of the player -> what the error says
    "crash@50": ["PlayerDied", "SIGABRT", "Fatal: fault crash@50"],
    "hang@50": ["PlayerHangs", "no answer within 1 s", "--unity.answer-s", "fault hang@50"],
    "exit@50": ["PlayerDied", "exit code 3", "Fatal: fault exit@50"],
    "exit-between": ["PlayerDied", "exit code 3", "Fatal: fault exit-between"],
    "status400@50": ["PlayerDied", "status 400", "fault status400@50"],
    "slow-start@60": ["PlayerHangs", "no connection within 1.5 s", "--unity.launch-s"],
}


@pytest.mark.thorough
@pytest.mark.parametrize("fault", FAULTS)
def test_a_player_that_fails_ends_the_run_with_its_last_words(fault: str, start: Start) -> None:
    limits = {"hang@50": ("--unity.answer-s", 1), "slow-start@60": ("--unity.launch-s", 1.5)}.get(fault, ())
    run = start(*BALL, "--unity.args", f"--fault {fault}", "--max-restarts", 0, *limits)
    assert run.wait() == 3, run.stderr
    assert run.stderr.startswith("error: worker-0 failed: ")
    for part in FAULTS[fault]:
        assert part in run.stderr
    assert "Traceback" not in run.stderr, "where it was noticed explains nothing"
    assert run.left() == []


@pytest.mark.thorough
def test_a_nan_costs_its_agent_the_episode_and_the_run_goes_on(start: Start) -> None:
    nobody_learns = ("--algo.replay-ratio", 0, "--steps", 12_000)  # so nobody is evaluated, in whose player it is fatal
    run = start(*BALL, *nobody_learns, "--unity.args", "--fault nan@50")
    assert run.wait() == 0, run.stderr
    assert run.summary["agent_steps"] >= 12_000 and run.records("progress")[-1]["rows_refused"] == 1


@pytest.mark.slow
def test_a_message_of_more_than_4_mib_is_no_fault(start: Start) -> None:
    run = start(*BALL, *SMALL, "--unity.args", "--fault big@30", "--steps", 1200)
    assert run.wait() == 0, run.stderr


REFUSED = {
    "unity:unity/players/3DBal": ["did you mean", "unity/players/3DBall"],
    "unity:no/such/thing": ["no Unity player at no/such/thing"],
    "unity:": ["unity:"],
    "unity:README.md": ["chmod +x"],
    "unity:unity/players": ["3DBall.x86_64", "name the one to run"],
}


@pytest.mark.parametrize("env", REFUSED)
def test_a_player_that_cannot_be_is_refused_in_one_line(
    env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts.train import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert main(["ddpg", "--env", env, "--runs-dir", str(tmp_path / "runs")]) == 2
    for number, handler in handlers.items():
        signal.signal(number, handler)
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
    for part in REFUSED[env]:
        assert part in told
    assert not (tmp_path / "runs").exists()


UNFIT: dict[str, tuple[list[object], list[str]]] = {  # what only a running player can tell
    "another protocol": (["3DBall", "--unity.args", "--communication-version 2.0.0"], ["version 2.0.0", "rebuild"]),
    "unknown behaviour": (["3DBall", "--behavior", "Walker"], ["'Walker'", "there is 3DBall"]),
    "two behaviours": (["Two"], ["--behavior Runner or Chaser"]),
    "discrete actions": (["Grid"], ["DDPG takes continuous actions"]),
    "no room": (["3DBall", "--algo.capacity", 10], ["--algo.capacity 10"]),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", UNFIT)
def test_a_scene_that_does_not_fit_is_refused_in_one_line_and_leaves_nothing(case: str, start: Start) -> None:
    (scene, *options), says = UNFIT[case]
    run = start("--env", f"unity:unity/players/{scene}", *options, run="unfit")
    assert run.wait() == 2, run.stderr
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    for part in says:
        assert part in run.stderr
    assert not run.directory.exists() and run.left() == []


@pytest.mark.thorough
@pytest.mark.parametrize("hanging", [pytest.param(False, marks=pytest.mark.slow), True], ids=["at work", "hanging"])
@pytest.mark.parametrize("victim", ["main", pytest.param("worker", marks=pytest.mark.thorough)])
def test_no_player_outlives_its_worker(victim: str, hanging: bool, start: Start) -> None:
    args = ("--unity.args", "--fault hang@200 --fault ignore-quit") if hanging else ()
    run = start(*BALL, *SMALL, *args, "--steps", 10**7, "--max-restarts", 0)
    run.wait_for("progress")
    if hanging:
        log = run.directory / "logs/player-0.log"
        wait_until(lambda: "hanging" in log.read_text(), "the player to hang")
    os.kill(run.process.pid if victim == "main" else run.children("envproc.worker")[0], signal.SIGKILL)
    run.wait()
    run.assert_nothing_left()


@pytest.mark.thorough
def test_nothing_listens_beyond_this_machine_and_nothing_at_all_once_the_players_are_there(start: Start) -> None:
    run = start(*BALL, *SMALL, "--steps", 10**7, "--unity.args", "--fault slow-start@1")
    wait_until(lambda: len(_listening(run)) > 0, "the worker to listen")
    assert {address for address, _ in _listening(run)} == {"0100007F"}, "127.0.0.1 in the kernel's notation"
    run.wait_for("eval")
    assert _listening(run) == []
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130
    run.assert_nothing_left()


def _listening(run: Run) -> list[tuple[str, str]]:
    """(address, port) of each TCP socket on which a process of the run listens."""
    inodes = set()
    for pid in run.processes():
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link))
            except OSError:  # closed meanwhile
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append((fields[1].partition(":")[0], fields[1].partition(":")[2]))
    return found


@pytest.mark.slow
def test_one_of_a_workers_players_that_dies_is_replaced_with_all_of_them(start: Start) -> None:
    run = start(*BALL, *SMALL, "--unity.players-per-worker", 2, "--steps", 6000)
    run.wait_for("progress")
    os.kill(_player(run, "player-1.log"), signal.SIGKILL)
    assert run.wait(60) == 0, run.stderr
    told = {record["event"]: record for record in run.records("worker") if record["worker"] == "worker-0"}
    assert "(player-1) was killed by SIGKILL" in told["failed"]["detail"] and list(told)[-1] == "restarted"
    assert run.summary["agent_steps"] >= 6000
    names = {path.name for path in (run.directory / "logs").glob("player-*.log")}
    assert names == {"player-0.log", "player-1.log", "player-10.log", "player-11.log"}, "and the evaluator has two"
    run.assert_nothing_left()


def _player(run: Run, log: str) -> int:
    return next(pid for pid, line in run.processes().items() if log in line and "scripts.player" in line)


@pytest.mark.slow
def test_two_runs_at_once_do_not_meet(start: Start) -> None:
    runs = [start(*BALL, *SMALL, "--steps", 1500, run=f"run{number}") for number in range(2)]
    for run in runs:
        assert run.wait() == 0, run.stderr
        assert run.summary["agent_steps"] >= 1500


@pytest.mark.slow
def test_ports_can_be_told_and_a_taken_one_is_named(start: Start) -> None:
    port = free_port()
    run = start(*BALL, *SMALL, "--unity.base-port", port, "--steps", 10**7, run="first")
    run.wait_for("progress")
    assert f"port {port}" in (run.directory / "logs/player-0.log").read_text()
    wait_until((run.directory / "logs/player-1.log").exists, "the evaluator's player")
    wait_until(lambda: f"port {port + 1}" in (run.directory / "logs/player-1.log").read_text(), "its port")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = start(*BALL, "--unity.base-port", taken.getsockname()[1], run="second")
        assert other.wait() == 2
        assert "cannot be had" in other.stderr and "--unity.base-port" in other.stderr


@pytest.fixture(scope="module")
def run(start_once: Start) -> Run:
    run = start_once(*BALL, *SMALL, "--steps", 9000, "--workers", 2, "--env-params", "gravity=9", run="unity-3dball")
    assert run.wait() == 0, run.stderr
    return run


class TestARun:
    def test_it_ends_as_any_other(self, run: Run) -> None:
        assert run.summary["agent_steps"] >= 9000 and run.summary["eval_episodes"] >= 96
        assert run.left() == []

    def test_the_players_logs_are_kept(self, run: Run) -> None:
        logs = {path.name for path in (run.directory / "logs").iterdir()}
        numbers = (0, 1, 6)  # the evaluator's comes after the workers' and the room for four more
        assert {f"player-{number}.{end}" for number in numbers for end in ("log", "out")} <= logs

    def test_what_the_scene_records_is_kept(self, run: Run) -> None:
        stats = run.records("env")
        assert {record["worker"] for record in stats} == {"worker-0", "worker-1"}
        assert all(record["values"]["Ball/Fallen"] >= 1 for record in stats)

    def test_its_policy_can_be_evaluated_in_a_fresh_player(self, run: Run) -> None:
        policy, _ = load_policy(run.directory)
        assert policy.env["name"] == f"unity:{ROOT}/unity/players/3DBall" and policy.env_spec.num_agents == 12
        command = [sys.executable, "-m", "scripts.evaluate", str(run.directory), "--episodes", "24"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "over 24 episodes" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("players", [1, 3])
def test_the_same_seed_gives_the_same_weights_over_the_wire_too(players: int, start: Start) -> None:
    """The stand-in player draws from its seed alone; a real one as far as its scene does."""
    args = ("--unity.players-per-worker", players, "--steps", 3000)
    runs = [start(*BALL, *SMALL, "--mode", mode, *args, run=mode) for mode in ("sync", "single")]
    for run in runs:
        assert run.wait(60) == 0, run.stderr
    assert runs[0].summary["weights_sha256"] == runs[1].summary["weights_sha256"]


@pytest.mark.thorough
def test_the_editor_is_waited_for(start: Start) -> None:
    port = free_port()
    run = start("--env", "unity:editor", "--unity.base-port", port, *SMALL, "--steps", 2000)
    wait_until(lambda: len(_listening(run)) > 0, "it to listen")
    player = subprocess.Popen(
        [sys.executable, "-m", "scripts.player", "3DBall", "--mlagents-port", str(port)], cwd=ROOT
    )
    try:
        assert run.wait() == 0, run.stderr
        assert player.wait(10) == 0, "play mode ends with the run"
    finally:
        player.kill()
        player.wait()
    assert run.summary["agent_steps"] >= 2000 and run.summary["eval_return"] is None
    load_policy(run.directory)
