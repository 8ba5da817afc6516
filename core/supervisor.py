"""Supervisor: starts the worker processes, notices when one dies, and sees them out.

Children are fresh interpreters (never forks of a process with threads), each in a session of its own so that a
terminal's Ctrl-C reaches the main process alone, which then ends them in order. Start them from the main thread: the
kernel ties a child's life to the thread that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

_LOG_LINES, _LOG_BYTES = 10, 2**14
_LEAVE_S = 5.0


class Death(NamedTuple):
    """A process that is gone without having been asked to go."""

    name: str
    reason: str
    """'exit code 1', 'killed by signal 9'"""
    was_killed: bool
    log: str
    """the last lines that it printed"""


class Supervisor:
    """All child processes of one run."""

    def __init__(self, log_dir: Path | None = None) -> None:
        self._log_dir = log_dir
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._leaving: dict[str, float] = {}  # who was told to, and until when it may take

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self, name: str, module: str, config: object) -> None:
        """Start `python -m module CONFIG`, where CONFIG is `config` as JSON.

        What it prints goes to <log_dir>/<name>.log, or to our own output without a log_dir. Raises OSError if it cannot
        be started.
        """
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            # a worker has one thread; more would take the cores from the other workers and from the learner
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "SHARL_PARENT": str(os.getpid()),
        }
        command = [sys.executable, "-m", module, msgspec.json.encode(config).decode()]
        with contextlib.ExitStack() as opened:
            log = None
            if self._log_dir is not None:
                self._log_dir.mkdir(parents=True, exist_ok=True)  # somebody may have tidied up
                log = opened.enter_context(open(self._log_dir / f"{name}.log", "wb"))
            self._children[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )

    def has(self, name: str) -> bool:
        """Whether there is such a process."""
        return name in self._children

    def dismiss(self, name: str) -> None:
        """This process was told to leave, or said that it does: its death is none, and it is killed if it stays."""
        if name in self._children:
            self._leaving.setdefault(name, time.monotonic() + _LEAVE_S)

    def kill(self, name: str) -> None:
        """Now, whatever it does. Its death is one."""
        if name in self._children:
            self._children[name].kill()

    def deaths(self) -> list[Death]:
        """Who has died since the last call without having been told to leave."""
        for name, deadline in self._leaving.items():
            if time.monotonic() > deadline:
                self._children[name].kill()
        gone = [name for name, child in self._children.items() if child.poll() is not None]
        deaths = {name: self._bury(name) for name in gone}
        return [death for name, death in deaths.items() if self._leaving.pop(name, None) is None]

    def _bury(self, name: str) -> Death:
        child = self._children.pop(name)
        _clear_up(child)
        code = child.returncode
        reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        log = ""
        if self._log_dir is not None:
            log = _end_of(self._log_dir / f"{name}.log")
        return Death(name, reason, code < 0, log)

    def stop(self, grace_s: float = 2.0, ask: Callable[[str], bool] = lambda name: True) -> None:
        """End all of them: ask each until it hears, wait together, then terminate, then kill. None is left then."""
        deadline = time.monotonic() + grace_s
        deaf = set(self._children)  # who has just been started cannot hear yet
        while deaf and time.monotonic() < deadline:
            deaf = {name for name in deaf if self._children[name].poll() is None and not ask(name)}
            time.sleep(0.01)
        for end in (lambda child: None, subprocess.Popen.terminate, subprocess.Popen.kill):
            for child in self._children.values():
                if child.poll() is None:
                    end(child)
            for child in self._children.values():
                _wait(child, deadline)
            deadline = time.monotonic() + 0.5
        for child in self._children.values():
            _clear_up(child)
        self._children.clear()


def _end_of(file: Path) -> str:
    """Its last lines; not all is read, an environment may have printed for days. Of a log that is gone, none."""
    try:
        with open(file, "rb") as log:
            log.seek(max(file.stat().st_size - _LOG_BYTES, 0))
            printed = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(printed.splitlines()[-_LOG_LINES:])


def _clear_up(child: subprocess.Popen[bytes]) -> None:
    """Kill what this process, which has ended, left behind: whoever is in its group."""
    with contextlib.suppress(OSError):  # mostly there is nobody
        os.killpg(child.pid, signal.SIGKILL)


def _wait(child: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        child.wait(timeout=max(deadline - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
        return
