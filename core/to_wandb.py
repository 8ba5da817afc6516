"""To Weights & Biases: both ends of the way there.

A process of its own (`python -m core.to_wandb`) talks to it, with what a pipe brings: one JSON object a line, what the
run is first, then numbers; when the pipe is closed, that was all. If that process fails or does not go on, it is told
once, and the run goes on without it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_BACKLOG = 1000
"""records, some eight minutes of them"""
_LONGEST_FINISH_S = 20.0
_LONGEST_DEATH_S = 1.0


def check_wandb() -> None:
    """Raises ValueError if the package is missing."""
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # a directory of this name, which other programs may have left, has none
        raise ValueError("--wandb needs wandb, which is missing: pip install wandb")


class WandB:
    """The run's end: a Tracker (core/tracking.py) that never waits before it is closed."""

    def __init__(self, project: str, directory: Path, config: dict[str, Any]) -> None:
        """The run has the name of its `directory` there, too. What the process prints goes into its logs."""
        self._log = directory / "logs" / "wandb.log"
        self._given_up = False
        self._unsent: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()  # None: that was all
        with open(self._log, "a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "core.to_wandb"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,  # a terminal's Ctrl-C is for the run
            )
        name = directory.name
        self._unsent.put(
            {"project": project, "id": name, "name": name, "resume": "allow", "dir": str(directory), "config": config}
        )
        # a thread: a pipe that is full would stop the run; a daemon: nor must it keep the process
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def write(self, numbers: dict[str, float], step: int) -> None:
        if not self._given_up:
            self._unsent.put({"agent_steps": step, **numbers})
            if self._unsent.qsize() > _BACKLOG:
                self._give_up(f"{_BACKLOG} records wait to be taken")

    def close(self) -> None:
        self._unsent.put(None)
        self._thread.join(_LONGEST_FINISH_S)
        if self._thread.is_alive():
            self._give_up(f"it was not done {_LONGEST_FINISH_S:.0f} s after the run")

    def _send(self) -> None:
        # it may be gone before it has read all; that shows in its exit code
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:  # type: ignore[union-attr]
            while (line := self._unsent.get()) is not None:  # no limit: the run may be quiet; its close() ends this
                pipe.write(json.dumps(line) + "\n")
                pipe.flush()
        if code := self._process.wait():  # no limit: it is killed if it is not done soon after the run
            last = "".join(self._log.read_text(errors="replace").splitlines()[-1:])
            self._give_up(f"exit code {code}, {last}")

    def _give_up(self, why: str) -> None:
        if not self._given_up:
            self._given_up = True
            print(f"note: Weights & Biases gets no more of this run: {why} (see {self._log})", file=sys.stderr)
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel has not let go of it: nor need we wait
                self._process.wait(_LONGEST_DEATH_S)


def main() -> None:
    """The other end."""
    import wandb

    with wandb.init(**json.loads(sys.stdin.readline()), settings={"console": "off"}) as run:
        run.define_metric("*", step_metric="agent_steps")
        for line in sys.stdin:
            run.log(json.loads(line))
        # the run is over, and perhaps killed: nobody waits any longer than this
        faulthandler.dump_traceback_later(_LONGEST_FINISH_S, exit=True)


if __name__ == "__main__":
    main()
