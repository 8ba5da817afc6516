"""A real run for some seconds, seen from outside: by what it writes down, and by what its processes take."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from core.ring import LINK_PHASES, WORKER_PHASES
from scripts.command_line import UsageError
from scripts.profile.processes import Family, family
from scripts.records import Record, read_records

WARM_UP_S = 2.0
"""from the first update; caches, allocators and the feeling of both sides for each other come to rest"""
MANY = 0.3
"""cores that others keep busy, above which figures are to be doubted"""
_START_S, _RECORD_S, _STOP_S = 120.0, 30.0, 60.0
_LOOK_EVERY_S = 0.05
_NAME = "profile"
_PHASES = sorted(WORKER_PHASES | LINK_PHASES, key=lambda name: (name == "record", name in LINK_PHASES))
"""of workers; what are parts of the step behind it"""


class TrialFailed(UsageError):
    """The run could not be started, or has ended by itself; the message is its own."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a run while nothing about it changed. Rates and shares are means of that time."""

    seconds: float
    agent_steps_per_s: float
    env_steps_per_s: float
    updates_per_s: float
    last: Record
    """the last progress record: what is a total"""
    weights_lag: float
    row_age: float | None
    learner: dict[str, float]
    workers: dict[str, float]
    cores: dict[str, float]
    """of each process: what it used of a core"""
    others: float
    """cores that were kept busy by what is not of this run"""
    memory: dict[str, int]
    """of each process: PSS in bytes"""
    shared: dict[str, int]
    """of each block of shared memory: bytes"""
    start_s: float
    """from its start to its first update"""
    stop_s: float
    """from being told to end until it was gone"""


def seen(arguments: Sequence[str], seconds: float, warm_up_s: float = WARM_UP_S) -> Seen:
    """Train with these arguments, in a directory that is gone afterwards. Raises TrialFailed."""
    with tempfile.TemporaryDirectory(prefix="sharl-profile-") as home, _running(list(arguments), Path(home)) as run:
        begun = time.monotonic()
        run.wait(_learns, _START_S, "first update")
        start_s = time.monotonic() - begun
        rest_from = time.monotonic() + warm_up_s
        first = run.next_record(rest_from)
        before = family(run.process.pid)
        last = run.next_record(time.monotonic() + seconds)
        after = family(run.process.pid)
        records = run.progress()
        stop_s = run.stop()
    window = [each for each in records if first["wall_s"] <= each["wall_s"] <= last["wall_s"]]
    return summarized(window, before, after, start_s, stop_s)


class _Run:
    def __init__(self, process: subprocess.Popen[bytes], directory: Path, errors: Path) -> None:
        self.process, self._directory, self._errors = process, directory, errors

    def progress(self) -> list[Record]:
        try:
            records = read_records(self._directory)
        except UsageError:  # none yet
            return []
        return [each for each in records if each["kind"] == "progress"]

    def wait(self, until: Callable[[list[Record]], bool], within_s: float, what: str) -> None:
        deadline = time.monotonic() + within_s
        while not until(self.progress()):
            if self.process.poll() is not None:
                said = self._errors.read_text(errors="replace").strip().splitlines()
                errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
                raise TrialFailed((errors or said or [f"exit code {self.process.returncode}"])[-1])
            if time.monotonic() > deadline:
                raise TrialFailed(f"no {what} within {within_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)

    def next_record(self, at: float) -> Record:
        """The first one that is written from then on."""
        while time.monotonic() < at:
            time.sleep(min(_LOOK_EVERY_S, max(at - time.monotonic(), 0)))
        count = len(self.progress())
        self.wait(lambda records: len(records) > count, _RECORD_S, "record of its progress")
        return self.progress()[-1]

    def stop(self) -> float:
        """As Ctrl-C does, once; a trace is written then. Returns how long it took."""
        told = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired as error:
            raise TrialFailed(f"it did not end within {_STOP_S:.0f} s") from error
        return time.monotonic() - told


@contextlib.contextmanager
def _running(arguments: list[str], home: Path) -> Iterator[_Run]:
    # last: what stands there counts
    own = ["--runs-dir", str(home / "runs"), "--run", _NAME, "--steps", str(10**12), "--until-return", "None"]
    with open(home / "errors", "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.train", *arguments, *own],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )  # fmt: skip
    try:
        yield _Run(process, home / "runs" / _NAME, home / "errors")
    finally:
        process.kill()  # its children die with it
        process.wait(_STOP_S)


def _learns(records: list[Record]) -> bool:
    return any(each["updates"] or (each.get("replay_ratio") == 0 and each["agent_steps"]) for each in records)


def summarized(window: list[Record], before: Family, after: Family, start_s: float, stop_s: float) -> Seen:
    """`window`: the progress records, of which the first only says when it begins."""
    first, last = window[0], window[-1]
    seconds = last["wall_s"] - first["wall_s"]

    def rate(name: str) -> float:
        return float((last[name] - first[name]) / seconds)

    def mean(name: str) -> float | None:
        """Over the time; a record without it does not count."""
        spans = [other["wall_s"] - one["wall_s"] for one, other in pairwise(window)]
        known = [(span, each[name]) for span, each in zip(spans, window[1:], strict=True) if each.get(name) is not None]
        return float(np.average([value for _, value in known], weights=[span for span, _ in known])) if known else None

    learner = {name.removeprefix("learner_"): mean(name) or 0.0 for name in last if name.startswith("learner_")}
    workers = {name: mean(f"workers_{name}") for name in _PHASES}
    return Seen(
        seconds=seconds,
        agent_steps_per_s=rate("agent_steps"),
        env_steps_per_s=rate("env_steps"),
        updates_per_s=rate("updates"),
        last=last,
        weights_lag=mean("weights_lag") or 0.0,
        row_age=mean("row_age"),
        learner=learner,
        workers={name: share for name, share in workers.items() if share is not None},
        cores=after.cores(before),
        others=after.others(before),
        memory=after.memory(),
        shared=after.shared,
        start_s=start_s,
        stop_s=stop_s,
    )
