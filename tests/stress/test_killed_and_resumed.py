"""The whole job killed again and again, at random moments, and resumed each time: `make stress`."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from core.checkpoint import newest
from tests.process.runs import Run, Start, wait_until
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 20
SEED = 1
OPTIONS = {
    "sync": ("--mode", "sync", "--workers", 2, "--steps", 60_000, "--checkpoint-every", 2000, "--eval-every", 5000),
    "async": ("--workers", 2, "--steps", 10**9, "--checkpoint-every", 2000, "--eval-every", 20_000),
}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_it_goes_on_from_its_newest_checkpoint_every_time(mode: str, start: Start) -> None:
    begun, chance = time.monotonic(), random.Random(SEED)
    run = start(*OPTIONS[mode], run="run")
    run.wait_for("checkpoint")
    slowest, kills = 0.0, 0
    for _ in range(KILLS):
        time.sleep(chance.uniform(0, 3))
        if run.process.poll() is not None:
            break  # in lock-step it may have come to its end
        kills += 1
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait(10)
        run.assert_nothing_left()
        run, seconds = resume(start, run)
        slowest = max(slowest, seconds)
    if mode == "sync":
        whole = start(*OPTIONS[mode], run="whole")
        assert run.wait(200) == whole.wait(200) == 0
        assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]
    tell(
        f"D5 killed and resumed, {mode}", begun, faults=kills, violations=0, figure=round(slowest, 2),
        unit="s to the next update, at most", seed=SEED,
    )  # fmt: skip


def resume(start: Start, killed: Run) -> tuple[Run, float]:
    """The run that goes on, and the seconds from its start to a record of its next update."""
    _, rejected = newest(killed.directory, holding="words.npz")
    assert not rejected, "no finished checkpoint is damaged"
    records, begun = len(killed.records()), time.monotonic()
    run = start(run="run", resume=True)

    def learns() -> bool:
        mine = run.records()[records:]
        at = next((each["updates"] for each in mine if each["kind"] == "resumed"), None)
        return at is not None and any(each["kind"] == "progress" and each["updates"] > at for each in mine)

    wait_until(learns, "an update after it was resumed")
    return run, time.monotonic() - begun
