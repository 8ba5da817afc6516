"""A run that listens, and collectors that join it: real processes, a real socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from core.collectors import LAST_WORDS_S
from scripts.running import ask, find_running
from tests.process.callers import make_keys
from tests.process.runs import PATIENCE_S, ROOT, Record, Run, Start, free_port, kill, marked, wait_until

ENDLESS = ("--workers", 1, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0)


class Collector:
    """`python -m scripts.worker --join ...`, and all that belongs to it."""

    def __init__(self, address: str, keys: Path, workers: int = 1, **environment: str) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="toy-", dir="/tmp"))
        self._mark = f"SHARL_TEST_RUN={uuid.uuid4()}"
        key, _, value = self._mark.partition("=")
        command = ["-m", "scripts.worker", "--join", address, "--keys", str(keys), "--workers", str(workers)]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {key: value, "TMPDIR": str(self.temporary)} | environment,
            start_new_session=True,
        )

    def wait(self) -> tuple[int, str]:
        """Exit code, and all that it printed. Nothing of it is left."""
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        wait_until(lambda: not marked(self._mark) and not [*self.temporary.glob("sharl-*")], "nothing to be left", 10)
        return self.process.returncode, printed

    def send(self, number: signal.Signals) -> None:
        """To the collector itself, not to its workers."""
        self.process.send_signal(number)

    def processes(self) -> list[int]:
        """pids of all that belong to it."""
        return list(marked(self._mark))

    def end(self) -> None:
        kill(self.processes())
        self.process.communicate(timeout=PATIENCE_S)
        for file in sorted(self.temporary.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        self.temporary.rmdir()


class Listening:
    """A run at whose gate somebody with a key of bob's may join."""

    def __init__(self, start: Start, home: Path, *options: object, **more: Any) -> None:
        self.keys = make_keys(home / "keys", "bob")
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.collectors: list[Collector] = []
        more_options = ("--listen", self.address, "--listen-keys", self.keys)
        self.run: Run = start(*ENDLESS, *options, *more_options, **more)
        self.run.wait_for("progress")

    def join(self, workers: int = 1, keys: Path | None = None, **environment: str) -> Collector:
        if self.collectors:  # who was here before may have left a lane that is to be the next one's
            time.sleep(1.5 * LAST_WORDS_S)
        self.collectors.append(Collector(self.address, keys or self.keys / "for-bob", workers, **environment))
        return self.collectors[-1]

    def order(self, *words: object) -> str:
        """Its answer. AssertionError if it was refused."""
        (job,) = find_running(str(self.run.directory), self.run.directory.parent)
        reply = ask(job.address, list(map(str, words)))
        assert reply is not None and reply.done, reply
        return reply.what

    def lanes(self) -> list[dict[str, Any]]:
        lanes: list[dict[str, Any]] = json.loads(self.order("status"))["workers"]
        return lanes

    def await_steps(self, *lanes: int, more: int = 20) -> None:
        """Each of these lanes' workers makes some more from now on."""
        before = {each["worker"]: each["steps"] for each in self.lanes()}

        def have_stepped() -> bool:
            now = {each["worker"]: each["steps"] for each in self.lanes()}
            return all(now.get(lane, 0) >= before.get(lane, 0) + more for lane in lanes)

        wait_until(have_stepped, f"steps on lanes {lanes}")

    def events(self, worker: str) -> list[Record]:
        return [each for each in self.run.records("worker") if each["worker"] == worker]

    def await_event(self, worker: str, event: str) -> Record:
        """The first one of that kind."""
        wait_until(lambda: any(each["event"] == event for each in self.events(worker)), f"{worker}: {event}")
        return next(each for each in self.events(worker) if each["event"] == event)

    def stop(self) -> None:
        """In order, and so it does: nobody but collectors was ever lost."""
        self.order("stop")
        assert self.run.wait() == 0, self.run.stderr
        assert [each["event"] for each in self.events("worker-0")] == ["started", "ready"]
        self.run.assert_nothing_left()

    def end(self) -> None:
        for each in self.collectors:
            each.end()
