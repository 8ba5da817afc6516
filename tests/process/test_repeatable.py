"""In the modes sync and single the same seed gives the same weights, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.checkpoint import load_policy
from tests.process.runs import TOYS, Run, Start

# an update for each row, so that 2,000 of them do not take long
SMALL = ("--algo.hidden", 16, 16, "--algo.batch-size", 32, "--algo.replay-ratio", 32, "--algo.warmup", 100)
LONG = (*SMALL, "--steps", 2160, "--eval-every", 600, "--until-return", 50)
TO_A_RETURN = (*SMALL, "--env", f"{TOYS}:Improves", "--eval-every", 150, "--until-return", 4, "--workers", 2)

CASES = {
    "to a return, sync": (*TO_A_RETURN, "--mode", "sync"),
    "to a return, single": (*TO_A_RETURN, "--mode", "single"),
}
MORE = {
    "sync": (*LONG, "--mode", "sync", "--workers", 2),
    "sync again": (*LONG, "--mode", "sync", "--workers", 2),
    "to a return, another seed": (*TO_A_RETURN, "--mode", "single", "--seed", 2),
}
YET_MORE = {
    "sync, one worker": (*LONG, "--mode", "sync", "--workers", 1),
    "single, one worker": (*LONG, "--mode", "single", "--workers", 1),
    "single, two workers": (*LONG, "--mode", "single", "--workers", 2),
    "sync, two workers": (*LONG, "--mode", "sync", "--workers", 2),
}


def run_all(cases: Mapping[str, tuple[object, ...]], start: Start) -> dict[str, Run]:
    def act(name: str) -> Run:
        run = start(*cases[name], run="".join(filter(str.isalnum, name)))
        assert run.wait(60) == 0, run.stderr
        return run

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(act, cases), strict=True))


@pytest.fixture(scope="module")
def runs(start_once: Start) -> dict[str, Run]:
    return run_all(CASES, start_once)


@pytest.fixture(scope="module")
def more_runs(start_once: Start) -> dict[str, Run]:
    return run_all(MORE, start_once)


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_weights(more_runs: dict[str, Run]) -> None:
    runs = more_runs
    assert runs["sync"].summary["updates"] >= 2000
    assert len(_evaluations(runs["sync"])) == 4
    check_same(runs["sync"], runs["sync again"])


@pytest.mark.thorough
def test_another_seed_gives_other_weights(runs: dict[str, Run], more_runs: dict[str, Run]) -> None:
    one, other = runs["to a return, single"].summary, more_runs["to a return, another seed"].summary
    assert one["updates"] == other["updates"]
    assert one["weights_sha256"] != other["weights_sha256"]


def test_one_process_gives_the_same_weights_as_many_and_ends_at_the_same_evaluation(runs: dict[str, Run]) -> None:
    one = runs["to a return, sync"]
    check_same(one, runs["to a return, single"])
    assert one.summary["reason"] == "until_return"
    assert [record["return_mean"] for record in one.records("eval")] == [1, 2, 3, 4]
    assert one.summary["eval_return"] == 4 and 300 < one.summary["updates"] < 1000


@pytest.mark.slow
def test_one_process_gives_the_same_weights_as_many_after_thousands_of_updates(start: Start) -> None:
    runs = run_all(YET_MORE, start)
    check_same(runs["sync, one worker"], runs["single, one worker"])
    check_same(runs["sync, two workers"], runs["single, two workers"])


@pytest.mark.slow
def test_single_is_one_process(start: Start) -> None:
    run = start(*SMALL, "--mode", "single", "--workers", 2)
    run.wait_for("eval")
    assert not run.children("envproc.worker") and not run.children("envproc.evaluator")
    assert len(run.processes()) == 2, "the janitor is the second"


def check_same(one: Run, other: Run) -> None:
    for name in ("reason", "updates", "agent_steps", "weights_sha256", "eval_return"):
        assert one.summary[name] == other.summary[name], name
    assert _evaluations(one) == _evaluations(other)
    parameters = [load_policy(run.directory)[1] for run in (one, other)]
    assert (parameters[0] == parameters[1]).all()


def _evaluations(run: Run) -> list[tuple[int, int, float, float]]:
    return [
        (record["agent_steps"], record["updates"], record["return_mean"], record["length_mean"])
        for record in run.records("eval")
    ]
