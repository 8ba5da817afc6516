"""The real program as real processes: start a run, find all that belongs to it, read what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOYS = "tests/process/toys.py"
PATIENCE_S = 60.0
"""for what takes three seconds on an idle machine"""
_PORTS_IN_A_ROW = 8
_RECORDS_TOLD = 30

Record = dict[str, Any]


class Run:
    """`python -m scripts.train ...`, with a run directory and a temporary directory of its own below `home`."""

    def __init__(
        self,
        home: Path,
        *options: object,
        run: str = "run",
        resume: bool = False,
        algorithm: str = "ddpg",
        learners: int = 0,
        **environment: str,
    ) -> None:
        """`learners`: started by torchrun, so many of them on this machine."""
        self.directory = home / "runs" / run
        # short: the path of a Unix socket has 107 letters at most, and `home` may be long
        self.temporary = Path(tempfile.mkdtemp(prefix="toy-", dir="/tmp"))
        self._mark = f"SHARL_TEST_RUN={uuid.uuid4()}"
        self._shm = set(os.listdir("/dev/shm"))
        key, _, value = self._mark.partition("=")
        self._output = home / f"{run}.out"
        self._error = home / f"{run}.err"
        what = ["--resume", run] if resume else [algorithm, "--run", run]
        torchrun = ["torch.distributed.run", "--nproc-per-node", str(learners), "--max-restarts", "2", "-m", "--"]
        program = [*torchrun, "scripts.train"] if learners else ["scripts.train"]
        command = [sys.executable, "-m", *program, *what, "--runs-dir", str(home / "runs")]
        with open(self._output, "wb") as out, open(self._error, "wb") as err:
            self.process = subprocess.Popen(
                [*command, *map(str, options)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=os.environ | {key: value, "TMPDIR": str(self.temporary)} | environment,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def learner(self, rank: int) -> int:
        """pid of the learner of this rank, one of several."""
        for pid in self.children("scripts.train"):
            if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
        raise AssertionError(f"there is no rank {rank}: {self.processes()}")

    def of_rank(self, rank: int) -> list[Record]:
        """The records that a learner other than rank 0 keeps."""
        file = self.directory / "ranks" / str(rank) / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    @property
    def stdout(self) -> str:
        return self._output.read_text()

    @property
    def stderr(self) -> str:
        return self._error.read_text()

    def records(self, kind: str = "") -> list[Record]:
        """All complete ones so far, or those of one kind."""
        file = self.directory / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in records if kind in ("", record["kind"])]

    def story(self) -> str:
        """What it said and recorded last, and who is still there: for whoever has to find out what went wrong."""
        records = self.records()
        told = [record for record in records if record["kind"] != "progress"][-_RECORDS_TOLD:] + records[-1:]
        there = [f"{pid}: {line}" for pid, line in self.processes().items()]
        return "\n".join([str(self.process.args), self.stderr[-2000:], *map(json.dumps, told), *there])

    @property
    def summary(self) -> Record:
        """The last record. AssertionError if the run did not come that far."""
        last = self.records()[-1]
        assert last["kind"] == "summary", (last, self.stderr)
        return last

    def wait_for(self, kind: str, timeout_s: float = PATIENCE_S) -> Record:
        """The first record of that kind, once it is there."""
        wait_until(lambda: bool(self.records(kind)) or self.process.poll() is not None, f"a {kind} record", timeout_s)
        assert self.records(kind), f"the run ended without a {kind} record: {self.stderr}"
        return self.records(kind)[0]

    def wait_for_record(self, wanted: Callable[[Record], bool], timeout_s: float = PATIENCE_S) -> None:
        """Until there is such a record."""
        wait_until(lambda: any(map(wanted, self.records())), "a record", timeout_s)

    def processes(self) -> dict[int, str]:
        """pid -> command line of each living process of this run."""
        return marked(self._mark)

    def children(self, module: str) -> list[int]:
        """pids of the processes that run `module`."""
        return [pid for pid, line in self.processes().items() if f"-m {module} " in line]

    def left(self) -> list[str]:
        """Whatever of this run is still on the machine: processes, temporary files, shared memory."""
        # (torch makes an empty torchinductor_USER wherever it is imported)
        files = list(map(str, self.temporary.glob("sharl-*")))
        if shm := {f"/dev/shm/{each}" for each in set(os.listdir("/dev/shm")) - self._shm}:
            files += sorted(shm - in_use())  # what somebody who lives has there is his, or he is told as a process
        return [*(f"process {pid}: {line}" for pid, line in self.processes().items()), *files]

    def assert_nothing_left(self, within_s: float = 10.0) -> float:
        """Returns after how many seconds it was so: a fraction of one, where nothing else keeps the machine busy."""
        start = time.monotonic()
        while left := self.left():
            assert time.monotonic() - start < within_s, f"after {within_s} s there is still {left}"
            time.sleep(0.005)
        return time.monotonic() - start

    def end(self) -> None:
        """Kill whatever is left of this run: only processes that carry its mark."""
        kill(self.processes())
        self.process.wait(PATIENCE_S)
        for directory in self.temporary.glob("torchelastic_*"):
            shutil.rmtree(directory)
        for file in self.temporary.glob("*/*"):
            file.unlink()
        for directory in [*self.temporary.iterdir(), self.temporary]:
            directory.rmdir()


Start = Callable[..., Run]


def kill(pids: Iterable[int]) -> None:
    """All of them that are still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def marked(mark: str) -> dict[int, str]:
    """pid -> command line of each living process that has `mark`, as NAME=VALUE, in its environment."""
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if mark.encode() in (directory / "environ").read_bytes().split(b"\0"):
                    line = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(directory.name)] = line.decode()[:200]
            except OSError:  # it is gone, or nobody's
                continue
    return found


def in_use() -> set[str]:
    """Files in /dev/shm that are in the memory of some living process."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            found.update(re.findall(r"/dev/shm/\S+", maps.read_text()))
        except OSError:  # it is gone, or nobody's
            continue
    return found


def commit() -> str:
    """That is checked out, for a figure's line."""
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, timeout=10)
    return said.stdout.decode().strip()


def free_port() -> int:
    """A TCP port that nobody has at this moment, nor the next ones; and which the system gives to nobody by itself."""
    while True:
        first = random.SystemRandom().randrange(10_000, 30_000)  # tests that run beside this one must not find the same
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
            for port in range(first, first + _PORTS_IN_A_ROW):
                opened.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """AssertionError, naming `what`, if `condition` does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        if condition():
            return
        answered = time.monotonic()
        assert answered < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.005 + 4 * (answered - asked))  # looking must not take the time of what is looked at
