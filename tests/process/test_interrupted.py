"""Ctrl-C and SIGTERM, at whatever moment: an orderly end within 5 s, exit code 130, no traceback, nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from core.checkpoint import load_policy
from core.control import worker_name
from core.watch import Interrupted
from scripts.crew import Processes
from tests.process.runs import TOYS, Run, Start, wait_until

SOON_S = 5.0
LONG = ("--workers", 2, "--steps", 10**9)
MANY = ("--workers", 30, "--steps", 10**9)
SHORT = ("--workers", 2, "--steps", 2000)


class Case(NamedTuple):
    options: tuple[object, ...]
    moment: Callable[[Run], bool]
    number: signal.Signals = signal.SIGINT
    times: int = 1


def importing(run: Run) -> bool:
    """Torch is being loaded."""
    with open(f"/proc/{run.process.pid}/maps") as maps:
        return "libtorch" in maps.read()


def starting(run: Run) -> bool:
    return bool(run.children("envproc.evaluator"))


def first_started(run: Run) -> bool:
    return bool(run.records("worker"))


def training(run: Run) -> bool:
    return bool(run.records("progress"))


def hung(run: Run) -> bool:
    """A worker has had the time to."""
    return len(run.records("progress")) > 2


def evaluating(run: Run) -> bool:
    return training(run) and run.records("progress")[-1]["agent_steps"] >= 2000


CASES = {
    "SIGINT during the imports": Case(LONG, importing),
    "SIGINT during the run": Case(LONG, training),
    # with a worker that hangs, so that the second one comes while the run is still waiting for it
    "SIGINT twice": Case((*LONG, "--env", f"{TOYS}:Hangs", "--checkpoint-every", 0), hung, times=2),
}
MORE = {
    "SIGTERM during the imports": Case(LONG, importing, signal.SIGTERM),
    "SIGTERM during the run": Case(LONG, training, signal.SIGTERM),
    "SIGINT while workers start": Case(LONG, starting),
    "SIGTERM while many workers start": Case(MANY, first_started, signal.SIGTERM),
    "SIGINT during the final evaluation": Case((*SHORT, "--env", f"{TOYS}:LongEvaluations"), evaluating),
}
YET_MORE = {
    "SIGINT while environments take long to launch": Case((*LONG, "--env", f"{TOYS}:SlowToLaunch"), starting),
    "SIGINT while a worker hangs": Case((*LONG, "--env", f"{TOYS}:Hangs"), hung),
    "SIGINT in a run of one process": Case((*LONG, "--mode", "single"), training),
}


class Outcome(NamedTuple):
    run: Run
    code: int
    seconds: float


def interrupt(run: Run, case: Case) -> Outcome:
    wait_until(lambda: case.moment(run), "the moment")
    for _ in range(case.times):
        with contextlib.suppress(ProcessLookupError):  # it may just have ended by itself
            os.killpg(run.process.pid, case.number)  # to the whole group, as a terminal does it
        time.sleep(0.05)
    start = time.monotonic()
    return Outcome(run, run.wait(), time.monotonic() - start)


@pytest.fixture(scope="module")
def outcomes(start_once: Start) -> dict[str, Outcome]:
    def act(name: str) -> Outcome:
        return interrupt(start_once(*CASES[name].options, run=name.replace(" ", "-")), CASES[name])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(act, CASES), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_interrupted_ends_in_order(name: str, outcomes: dict[str, Outcome]) -> None:
    check(outcomes[name], saves=CASES[name].times == 1)


@pytest.mark.thorough
@pytest.mark.parametrize("name", MORE)
def test_a_run_that_is_interrupted_at_another_moment_ends_in_order(name: str, start: Start) -> None:
    check(interrupt(start(*MORE[name].options), MORE[name]), saves=True)


def test_when_the_run_is_to_end_no_worker_is_started_any_more() -> None:
    hired: list[str] = []
    supervisor: Any = SimpleNamespace(start=lambda name, *_: hired.append(name))
    config_of: Any = lambda lane, epoch: SimpleNamespace(name=worker_name(lane))  # noqa: E731
    nobody: Any = None
    crew = Processes(supervisor, nobody, config_of, interrupted=lambda: len(hired) >= 2)
    with pytest.raises(Interrupted):
        for lane in range(30):
            crew.hire(lane, 0)
    assert hired == ["worker-0", "worker-1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", YET_MORE)
def test_a_run_that_is_interrupted_in_a_bad_state_ends_in_order(name: str, start: Start) -> None:
    check(interrupt(start(*YET_MORE[name].options), YET_MORE[name]), saves=True)


def test_the_second_ctrl_c_skips_the_checkpoint(outcomes: dict[str, Outcome]) -> None:
    assert not (outcomes["SIGINT twice"].run.directory / "checkpoints").exists()
    assert (outcomes["SIGINT during the run"].run.directory / "checkpoints").exists()


@pytest.mark.slow
def test_the_third_ctrl_c_ends_it_at_once(start: Start) -> None:
    case = Case((*LONG, "--env", f"{TOYS}:Hangs"), hung, times=3)
    outcome = interrupt(start(*case.options), case)
    assert outcome.code == 130 and outcome.seconds < 1
    assert "Traceback" not in outcome.run.stderr
    outcome.run.assert_nothing_left()


def check(outcome: Outcome, *, saves: bool, at_last: int = 130) -> None:
    run, code, seconds = outcome
    assert seconds < SOON_S
    assert code in (130, at_last), run.stderr
    assert "Traceback" not in run.stderr + run.stdout and "rror" not in run.stderr
    run.assert_nothing_left()
    if run.records():
        reason = "interrupted" if code == 130 else "steps"
        assert (run.summary["reason"], run.summary["exit_code"]) == (reason, code)
        if saves:
            policy, parameters = load_policy(run.directory)
            assert parameters.any() and policy.env_spec.num_agents > 0


@pytest.mark.thorough
def test_an_evaluation_in_one_process_ends_too(start: Start) -> None:
    small = ("--algo.warmup", 50, "--algo.batch-size", 32, "--algo.replay-ratio", 2, "--eval-every", 100)
    run = start("--env", f"{TOYS}:Endless", "--mode", "single", "--workers", 1, *small)
    run.wait_for("config")
    time.sleep(1.0)  # the evaluation begins after a few milliseconds, and would last for ever
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130
    assert "Traceback" not in run.stderr
    run.assert_nothing_left()
