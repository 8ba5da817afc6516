"""A run that was killed goes on; one that cannot, or is going on already, is refused and left as it is."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from core.checkpoint import newest
from scripts.running import ask, find_running
from scripts.runs import kept_policy
from scripts.train import main
from tests.process.runs import Record, Run, Start, wait_until

SYNC = ("--mode", "sync", "--workers", 2, "--steps", 4000, "--checkpoint-every", 1000, "--eval-every", 1500)
SHORT = "--mode single --steps 300 --eval-every 1000 --eval-episodes 24 --algo.warmup 100"


def kill(run: Run, checkpoint: str) -> None:
    """SIGKILL, as soon as it has this checkpoint. All that belongs to it is gone then."""
    run.wait_for_record(lambda record: record["kind"] == "checkpoint" and record["number"] >= checkpoint)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(10)
    run.assert_nothing_left()


def workers_ready(records: list[Record]) -> list[str]:
    return [each["worker"] for each in records if each["kind"] == "worker" and each["event"] == "ready"]


@pytest.mark.thorough
def test_a_run_whose_directory_was_deleted_ends_in_order_and_goes_on_from_there(start: Start) -> None:
    run = start("--workers", 1, "--steps", 10**9, run="deleted")
    run.wait_for("progress")
    shutil.rmtree(run.directory)
    time.sleep(1.5)  # it has time to fall over a record
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130 and run.stderr == ""
    start(run="deleted", resume=True).wait_for("progress")


@pytest.mark.thorough
def test_in_lock_step_a_killed_run_ends_with_the_weights_of_one_that_was_not(start: Start) -> None:
    whole, killed = start(*SYNC, run="whole"), start(*SYNC, run="killed")
    kill(killed, "000002")
    resumed = start(run="killed", resume=True)
    assert whole.wait(60) == 0 and resumed.wait(60) == 0, resumed.stderr
    assert whole.summary["weights_sha256"] == resumed.summary["weights_sha256"]
    assert whole.summary["last_eval_return"] == resumed.summary["last_eval_return"]


@pytest.mark.thorough
def test_running_freely_it_goes_on_where_its_newest_checkpoint_was_with_all_rows(start: Start) -> None:
    killed = start("--steps", 10**9, "--checkpoint-every", 1000, run="killed")
    kill(killed, "000003")
    before = killed.records()
    resumed = start("--steps", before[-1]["agent_steps"] + 2000, run="killed", resume=True)
    assert resumed.wait(60) == 0, resumed.stderr
    records = resumed.records()
    assert records[: len(before)] == before, "nothing of the record is lost"
    at = next(record for record in records if record["kind"] == "resumed")
    checkpoint = [record for record in before if record["kind"] == "checkpoint"][-1]
    assert (at["agent_steps"], at["updates"]) >= (checkpoint["agent_steps"], checkpoint["updates"])
    assert records.index(at) == len(before) + 1
    after = records[len(before) + 2 :]
    assert all(record["agent_steps"] >= at["agent_steps"] for record in after if "agent_steps" in record)
    times = [record["wall_s"] for record in after]
    assert times == sorted(times) and times[0] > checkpoint["wall_s"]
    progress = next(record for record in after if record["kind"] == "progress" and record["updates"] > at["updates"])
    assert progress["row_age"] > 500, "it learns from rows of before"


@pytest.mark.thorough
def test_what_was_changed_while_it_went_on_stays_changed(start: Start) -> None:
    run = start("--workers", 2, "--steps", 10**9, "--checkpoint-every", 0, run="run")
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
    (job,) = find_running("run", run.directory.parent)
    for words in (["workers", "+2"], ["set", "algo.replay_ratio", "8"], ["set", "env.gravity", "4"]):
        reply = ask(job.address, words)
        assert reply is not None and reply.done
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["workers"] == 4)
    for words in (["workers", "-1"], ["snapshot"]):
        reply = ask(job.address, words)
        assert reply is not None and reply.done
    before = len(run.records())
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(10)

    resumed = start(run="run", resume=True)
    wait_until(lambda: len({*workers_ready(resumed.records()[before:])} - {"evaluator"}) == 3, "three workers")
    # (what is in the record from before may tell of three workers, too)
    wait_until(lambda: any(record.get("workers") == 3 for record in resumed.records()[before:]), "their progress")
    records = resumed.records()[before:]
    config = next(record for record in records if record["kind"] == "config")
    assert config["algo"]["replay_ratio"] == 8 and config["env_params"] == ["gravity=4"]
    assert {*workers_ready(records)} - {"evaluator"} == {"worker-0", "worker-1", "worker-2"}
    held = [record for record in records if record["kind"] == "progress"][-1]
    assert held["replay_ratio"] == 8 and 0 <= held["replay_ratio_held"] < 9, "nobody makes up for the old ratio"


def test_damaged_checkpoints_are_named_and_an_older_one_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ddpg", *SHORT.split(), "--checkpoint-every", "100", "--runs-dir", str(tmp_path), "--run", "run"]) == 0
    run = tmp_path / "run"
    last, _ = newest(run)
    (last / "policy.npy").write_bytes(b"not this")
    older, rejected = newest(run)
    assert older < last and rejected == [f"{last} is damaged: policy.npy not as saved"]
    (older / "state.pt").unlink()
    oldest, rejected = newest(run)
    assert oldest < older and len(rejected) == 2 and "cannot be read" in rejected[1]
    capsys.readouterr()
    kept_policy(run)
    told = capsys.readouterr().err
    assert f"{last} is damaged" in told and told.count(f"{oldest.name} is taken instead") == 2
    assert main(["--resume", "run", "--runs-dir", str(tmp_path)]) == 0
    assert f"{older} cannot be read" in capsys.readouterr().out


@pytest.fixture(scope="module")
def done(start_once: Start) -> Path:
    """The directory of runs, where one, `run`, has made its 300 steps."""
    run = start_once(*SHORT.split(), "--mode", "async", run="run")
    assert run.wait(60) == 0, run.stderr
    return run.directory.parent


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--resume", "name the run"),
        ("--resume nobody", "there is no run"),
        ("--resume run", "give it more --steps"),
        ("--resume run --steps 400 --algo.capacity 9999", "must be those of before"),
        ("--resume run --steps 400 --algo.n-step 2", "--algo.n-step must be those of before"),
        (
            "--resume run --steps 400 --algo.hidden 32",
            "--algo options say: hidden is (64, 64) there, and (32,) here",
        ),
        ("--resume run --steps 400 --env envproc.toys:Hybrid", "the run has '3dball'"),
        ("ddpg --run run", "--resume run"),
        ("ddpg --run run --force --algo.capacity 1", "--algo.capacity 1"),
        ("sac --init-from run", "another algorithm"),
        ("ddpg --init-from nobody", "there is no run"),
    ],
)
def test_what_cannot_go_on_is_refused_in_one_line_and_left_as_it_is(
    arguments: str, says: str, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in done.glob("**/*.json*"))
    names = sorted(os.listdir(done))
    assert main([*arguments.split(), "--runs-dir", str(done)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in done.glob("**/*.json*")) == before
    assert sorted(os.listdir(done)) == names


@pytest.mark.thorough
def test_nobody_resumes_or_replaces_a_run_that_is_going_on(start: Start, tmp_path: Path) -> None:
    going_on = start("--steps", 10**9, run="run")
    going_on.wait_for("progress")
    for arguments in (["--resume", "run"], ["ddpg", "--run", "run", "--force"]):
        assert main([*arguments, "--runs-dir", str(tmp_path / "runs")]) == 2
    assert going_on.process.poll() is None


def test_a_run_is_replaced_only_by_force_and_begins_with_what_another_learned(tmp_path: Path) -> None:
    where = ["--runs-dir", str(tmp_path)]
    assert main(["ddpg", *SHORT.split(), *where, "--run", "one"]) == 0
    (tmp_path / "one" / "mine.txt").write_text("of the first")
    assert (
        main(["ddpg", *SHORT.split(), *where, "--run", "other", "--init-from", "one", "--algo.replay-ratio", "0"]) == 0
    )
    kept = [newest(tmp_path / name)[0] / "policy.npy" for name in ("one", "other")]
    assert kept[0].read_bytes() == kept[1].read_bytes()
    assert main(["ddpg", *SHORT.split(), *where, "--run", "one", "--force"]) == 0
    assert not (tmp_path / "one" / "mine.txt").exists() and sorted(os.listdir(tmp_path)) == ["one", "other"]
