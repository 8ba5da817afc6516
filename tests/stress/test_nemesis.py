"""Every fault, at random moments from a seed, on the 3DBall job: it ends solved, and the audit finds nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from scripts import audit
from scripts.running import Running, ask, find_running
from tests.process.runs import Run
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SECONDS = float(os.environ.get("SHARL_NEMESIS_S", "600"))
KEEPS = 0.7
"""of the undisturbed throughput"""
JOB = ("--workers", 2, "--steps", 10**9, "--eval-every", 20_000, "--max-restarts", 10_000)


class Nemesis:
    """Does something bad to a run, again and again."""

    def __init__(self, run: Run, job: Running, seed: int) -> None:
        self._run, self._job, self._dice = run, job, random.Random(seed)
        self.done: dict[str, int] = {}
        self._deeds: list[Callable[[], None]] = [
            self.kill_a_worker, self.kill_a_worker, self.kill_the_evaluator, self.stop_a_worker,
            self.stop_the_main_process, self.reset_somebody, self.pause_and_resume, self.add_and_remove,
            self.snapshot, self.talk_nonsense, self.set,
        ]  # fmt: skip

    def strike(self) -> None:
        deed = self._dice.choice(self._deeds)
        deed()
        self.done[deed.__name__] = self.done.get(deed.__name__, 0) + 1

    def _processes(self, part: str) -> list[int]:
        return [pid for pid, line in self._run.processes().items() if part in line]

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        if pids:
            os.kill(self._dice.choice(pids), number)

    def kill_a_worker(self) -> None:
        self._signal(self._processes("envproc.worker"), signal.SIGKILL)

    def kill_the_evaluator(self) -> None:
        self._signal(self._processes("envproc.evaluator"), signal.SIGKILL)

    def stop_a_worker(self) -> None:
        pids = self._processes("envproc.worker")
        self._stop_for(pids[:1], self._dice.uniform(0.1, 1))

    def stop_the_main_process(self) -> None:
        self._stop_for([self._run.process.pid], self._dice.uniform(0.1, 0.5))

    def _stop_for(self, pids: list[int], seconds: float) -> None:
        for number, pause in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(pause)

    def reset_somebody(self) -> None:
        ask(self._job.address, ["reset", str(self._dice.randrange(3)), str(self._dice.randrange(14))])

    def pause_and_resume(self) -> None:
        ask(self._job.address, ["pause"])
        time.sleep(self._dice.uniform(0, 0.3))
        ask(self._job.address, ["resume"])

    def add_and_remove(self) -> None:
        ask(self._job.address, ["workers", self._dice.choice(["+1", "-1", "+2", "-2", "+9"])])

    def snapshot(self) -> None:
        ask(self._job.address, ["snapshot"])

    def set(self) -> None:
        ask(self._job.address, ["set", "algo.actor_lr", self._dice.choice(["1e-3", "9e-4", "nan", "2"])])

    def talk_nonsense(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(self._job.address)
        socket.send(self._dice.randbytes(self._dice.randrange(2000)))
        context.destroy(linger=100)


def throughput(run: Run, seconds: float) -> float:
    """Agent steps a second over so many, from the first update on."""
    run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
    first = run.records("progress")[-1]
    time.sleep(seconds)
    last = run.records("progress")[-1]
    return float((last["agent_steps"] - first["agent_steps"]) / (last["wall_s"] - first["wall_s"]))


def end(run: Run) -> dict[str, Any]:
    run.process.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, run.stderr
    assert run.left() == [] and "Traceback" not in run.stderr
    return run.summary


@pytest.mark.parametrize("seed", [1])
def test_a_job_under_every_fault_ends_solved_with_most_of_its_speed(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = Run(tmp_path, *JOB, run="undisturbed")
    try:
        before = throughput(undisturbed, 30)
        end(undisturbed)
    finally:
        undisturbed.end()
    run = Run(tmp_path, *JOB, "--seed", seed, run="nemesis")
    try:
        run.wait_for_record(lambda record: record["kind"] == "progress" and record["updates"] > 0)
        (job,) = find_running("nemesis", run.directory.parent)
        nemesis, dice = Nemesis(run, job, seed), random.Random(seed)
        began, first = time.monotonic(), run.records("progress")[-1]
        while time.monotonic() < began + SECONDS:
            nemesis.strike()
            time.sleep(dice.uniform(0.5, 2.5))
            assert run.process.poll() is None, run.stderr
        last = run.records("progress")[-1]
        run.wait_for_record(lambda record: record["kind"] == "eval" and record["wall_s"] > last["wall_s"], 120)
        summary = end(run)
    finally:
        run.end()
    after = (last["agent_steps"] - first["agent_steps"]) / (last["wall_s"] - first["wall_s"])
    broken = audit.main([str(run.directory)])
    print("\n" + capsys.readouterr().out.strip())
    tell(
        "B17 nemesis", began, faults=nemesis.done, violations=broken, figure=round(after / before, 2),
        unit="of the undisturbed throughput", seed=seed, best_return=summary["eval_return"],
    )  # fmt: skip
    assert broken == 0
    assert summary["eval_return"] >= 99
    assert after >= KEEPS * before
