"""The processes of `python -m scripts.check`: fresh interpreters that are watched, each with a deadline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.supervisor import Supervisor
from envproc import EnvConfig
from envproc.prober import LEAVING, Began, Line, Offers, ProberConfig, Refused, Speed
from envproc.probes import Finding

_MODULE = "envproc.prober"
_NAP_S = 0.01
_START_S = 30.0
"""that Python may take at least, on a machine with much else to do: patience is with the environment"""
_GRACE_S = 0.2
_SECONDS = 1.0
"""of one measurement of speed"""


class Lost(Exception):
    """A prober died, hung or failed; the message is one line that says where and how."""


class Heard:
    """What one prober writes down. Raises Lost if it is silent for longer than `patience_s`, or dies."""

    def __init__(self, file: Path, patience_s: float) -> None:
        self._file, self._patience_s = file, patience_s
        self._read = 0
        self.doing = "starting Python"
        """what it said last that it would do"""
        self._decoder = msgspec.json.Decoder(Line)
        self._deadline = time.monotonic() + max(patience_s, _START_S)

    def lines(self) -> list[Line]:
        """What is new."""
        written = self._file.read_bytes()[self._read :] if self._file.exists() else b""
        whole = written[: written.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = [self._decoder.decode(each) for each in whole.splitlines()]
        for line in lines:
            if isinstance(line, Began):
                self.doing = line.what
        if lines:
            self.wait_anew()
        elif time.monotonic() > self._deadline:
            raise Lost(f"{self.doing}: no answer for {self._patience_s:g} s; --patience allows more")
        return lines

    def wait_anew(self) -> None:
        """It has been waiting itself until now."""
        self._deadline = time.monotonic() + self._patience_s

    def died(self, reason: str, log: str) -> Lost:
        last = log.splitlines()[-1][:300] if log else "it printed nothing"
        return Lost(f"{self.doing}: the process is gone ({reason}; {last})")


@contextlib.contextmanager
def _supervisor(directory: Path) -> Iterator[Supervisor]:
    """Whoever is left at the end hangs, or is not needed any more: nobody was asked to go, so nobody is waited for."""
    supervisor = Supervisor(directory)
    try:
        yield supervisor
    finally:
        supervisor.stop(grace_s=_GRACE_S)


def examined(env: EnvConfig, directory: Path, patience_s: float) -> Iterator[Line]:
    """What one prober says about the environment, as it says it. Raises Lost."""
    with _supervisor(directory) as supervisor:
        config = ProberConfig("prober", env, str(directory / "prober.jsonl"))
        supervisor.start(config.name, _MODULE, config)
        heard = Heard(Path(config.out), patience_s)
        while True:
            deaths = supervisor.deaths()  # before the last look at what it wrote
            yield from heard.lines()
            for death in deaths:
                if death.reason != "exit code 0" or heard.doing != LEAVING:
                    raise heard.died(death.reason, death.log)
                return
            time.sleep(_NAP_S)


def measured(env: EnvConfig, num: int, directory: Path, patience_s: float) -> list[Speed]:
    """Of `num` processes that run at the same time. Raises Lost."""
    go = directory / f"go-{num}"
    with _supervisor(directory) as supervisor:
        heard: dict[str, Heard] = {}
        for index in range(num):
            name = f"speed-{num}-{index}"
            config = ProberConfig(name, env, str(directory / f"{name}.jsonl"), index, _SECONDS, str(go))
            supervisor.start(name, _MODULE, config)
            heard[name] = Heard(Path(config.out), patience_s)
        ready: set[str] = set()
        found: dict[str, Speed] = {}
        while len(found) < num:
            deaths = supervisor.deaths()
            for name, each in heard.items():
                for line in each.lines() if name not in ready or go.exists() else []:
                    match line:
                        case Offers():
                            ready.add(name)
                        case Speed():
                            found[name] = line
                        case Finding("BAD", what) | Refused(what):
                            raise Lost(f"{num} at a time: {what}")
            for death in deaths:
                if death.name not in found:
                    raise heard[death.name].died(death.reason, death.log)
            if len(ready) == num and not go.exists():
                for each in heard.values():
                    each.wait_anew()
                go.touch()
            time.sleep(_NAP_S)
        return list(found.values())
