"""Many more workers than cores: they start, run and stop without being in each other's way."""

from __future__ import annotations

import signal
import time

import pytest

from scripts.options import num_cores
from tests.process.runs import Start, wait_until
from tests.stress.figures import tell

WORKERS = 64
START_S, LOOK_S = 300.0, 15.0
TROUBLE = {"failed", "died", "hangs", "restarted", "given up", "does not fit"}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_64_workers_start_run_and_stop(start: Start) -> None:
    began = time.monotonic()
    run = start("--workers", WORKERS, "--steps", 10**9, "--algo.replay-ratio", 1)
    wait_until(
        lambda: any(each["workers"] == WORKERS for each in run.records("progress")[-1:]), "all to be at work", START_S
    )
    start_s = time.monotonic() - began
    first = run.records("progress")[-1]
    time.sleep(LOOK_S)
    records = run.records("progress")
    last = records[-1]
    seconds = last["wall_s"] - first["wall_s"]
    steps_per_s = (last["agent_steps"] - first["agent_steps"]) / seconds
    shares = {name: last[f"workers_{name}"] for name in ("wait", "fetch", "act", "env", "record")}
    told = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, run.stderr
    stop_s = time.monotonic() - told
    run.assert_nothing_left()
    events = [each for each in run.records("worker") if each["event"] in TROUBLE]
    tell(
        "many workers", began, faults={"workers": WORKERS, "cores": num_cores()}, violations=len(events),
        figure=round(steps_per_s), unit="agent steps/s", start_s=round(start_s, 1), stop_s=round(stop_s, 1),
        weights_lag=last["weights_lag"], held=last["replay_ratio_held"], shares=shares, waiting=last["waiting"],
    )  # fmt: skip
    assert not events
    assert steps_per_s > 0 and last["messages_refused"] == 0
