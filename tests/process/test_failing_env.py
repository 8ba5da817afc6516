"""A worker that fails and is not replaced ends the run in order, and says who it was and why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.checkpoint import load_policy
from tests.process.runs import TOYS, Run, Start
from tests.process.toys import TROUBLE

CASES = {  # toy -> what the error says
    "Raises": ["worker-0", "toys.py", "in trouble", f"RuntimeError: {TROUBLE}"],
    "KillsItself": ["worker-0", "signal 9"],
}
MORE = {
    "Exits": ["worker-0", "toys.py", "in trouble", "SystemExit: 0"],
    "RaisesAtHome": ["worker-", "toys.py", "in __init__", f"RuntimeError: {TROUBLE}"],
    "RaisesALotBesideAThread": ["worker-0", "toys.py", "in trouble", f"RuntimeError: {TROUBLE}"],
}
YET_MORE = {
    "ExitsAtOnce": ["worker-0", "exit code 0"],
    "RaisesTheUnspeakable": ["worker-0", "toys.py", "in trouble", "Unspeakable: its text cannot be had"],
    "RaisesAndHangsInClose": ["worker-0", "toys.py", "in trouble", f"RuntimeError: {TROUBLE}"],
    "RaisesInTheEvaluator": ["evaluator", "toys.py", "in step", f"RuntimeError: {TROUBLE}"],
}


@pytest.fixture(scope="module")
def failed(start_once: Start) -> dict[str, Run]:
    """Runs that are over, by toy."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(lambda toy: fail(toy, start_once), CASES), strict=True))


def fail(toy: str, start: Start) -> Run:
    run = start(
        "--env", f"{TOYS}:{toy}", "--workers", 2, "--steps", 6000, "--eval-every", 1500, "--max-restarts", 0,
        "--min-workers", 2, run=toy,
    )  # fmt: skip
    run.wait()
    return run


@pytest.mark.parametrize("toy", CASES)
def test_a_lost_worker_ends_the_run_in_order(toy: str, failed: dict[str, Run]) -> None:
    check(failed[toy], CASES[toy])


@pytest.mark.parametrize(
    "toy",
    [
        *(pytest.param(toy, marks=pytest.mark.thorough) for toy in MORE),
        *(pytest.param(toy, marks=pytest.mark.slow) for toy in YET_MORE),
    ],
)
def test_a_process_lost_in_other_ways_ends_the_run_in_order(toy: str, start: Start) -> None:
    check(fail(toy, start), {**MORE, **YET_MORE}[toy])


def check(run: Run, says: list[str]) -> None:
    """Exit code 3, who it was and why, a summary and a checkpoint, and nothing else is left."""
    assert run.process.returncode == 3, run.stderr
    assert run.stderr.startswith("error: ")
    for part in says:
        assert part in run.stderr, run.stderr
    assert len(run.stderr) < 20_000 and "scripts/train.py" not in run.stderr, "the worker's story, not the learner's"
    assert (run.summary["reason"], run.summary["exit_code"]) == ("worker lost", 3)
    events = [record["event"] for record in run.records("worker")]
    assert set(events) & {"failed", "died"} and events[-1] == "given up"
    load_policy(run.directory)
    assert run.left() == []


def test_environments_are_closed_though_one_of_them_raised(failed: dict[str, Run]) -> None:
    marks = failed["Raises"].directory.parents[1] / "marks"
    assert sorted(path.name for path in marks.iterdir()) == ["evaluator", "worker-0", "worker-1"]


@pytest.mark.thorough
def test_a_run_in_one_process_does_not_end_as_if_all_were_well_when_the_environment_exits(start: Start) -> None:
    run = start("--env", f"{TOYS}:ExitsEverywhere", "--mode", "single", "--workers", 1)
    assert run.wait() == 4, run.stdout
    assert (run.summary["reason"], run.summary["exit_code"]) == ("error", 4)
    assert "SystemExit: 0" in run.stderr and "toys.py" in run.stderr
    load_policy(run.directory)
    run.assert_nothing_left()


@pytest.mark.slow
def test_a_run_in_one_process_ends_in_order_though_its_environment_cannot_begin(start: Start) -> None:
    run = start("--env", f"{TOYS}:RaisesInReset", "--mode", "single", "--workers", 1)
    assert run.wait() == 4, run.stdout
    assert (run.summary["reason"], run.summary["agent_steps"]) == ("error", 0)
    assert f"RuntimeError: {TROUBLE}" in run.stderr
    run.assert_nothing_left()


@pytest.mark.slow
def test_a_run_waits_for_an_evaluator_whose_process_is_slow_to_start(start: Start, tmp_path: Path) -> None:
    """Else an evaluation would be left out, and whether a run ends by its return would be luck."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif 'envproc.evaluator' in sys.orig_argv: time.sleep(1.5)\n"
    )
    options = ("--env", f"{TOYS}:Counting", "--workers", 1, "--steps", 600, "--eval-every", 100, "--mode", "sync")
    run = start(*options, "--algo.warmup", 50, "--algo.replay-ratio", 2, PYTHONPATH=str(tmp_path))
    assert run.wait() == 0, run.stderr
    assert [record["agent_steps"] for record in run.records("eval")] == [120, 224, 328, 432, 536, 600]
    assert run.summary["eval_return"] is not None
