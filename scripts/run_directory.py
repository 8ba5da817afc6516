"""The directory of a run: a new one, or that of a run which goes on. One process at a time has it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.door import Door
from scripts.runs import CONTROL

_LOCK = ".lock"


class RunDirectory:
    """Ours until `close`; of a new run, nothing is left if `give_up` is called before `settle`."""

    def __init__(self, path: Path, *, resumed: bool = False, force: bool = False) -> None:
        """Raises ValueError if there is a run already and it is neither resumed nor, by force, replaced, or if another
        process has it."""
        self.path, self._resumed = path, resumed
        self._replaced = path.with_name(f".{path.name}.replaced")
        if path.exists() and not resumed:
            if not force:
                raise ValueError(
                    f"there is a run {path} already; go on with it (--resume {path.name}), replace it (--force), "
                    "or give another --run"
                )
            if not any((path / mark).is_file() for mark in ("config.json", _LOCK)):
                raise ValueError(f"{path} is no run, and --force replaces nothing else; give another --run")
            with _locked(path):  # nobody replaces a run that goes on
                shutil.rmtree(self._replaced, ignore_errors=True)
                path.rename(self._replaced)
        for each in [path, *path.glob("*")] if resumed else []:
            if not os.access(each, os.W_OK):
                raise ValueError(f"{each} may not be written to, and the run would; see to its permissions")
        (path / "logs").mkdir(parents=True, exist_ok=True)
        self._opened = contextlib.ExitStack()
        self._opened.enter_context(_locked(path))

    def settle(self, config: dict[str, Any]) -> None:
        """The run can begin, with this configuration; what it replaces is deleted."""
        unfinished = self.path / ".config.json.unfinished"
        unfinished.write_text(json.dumps(config, indent=1))
        os.replace(unfinished, self.path / "config.json")
        shutil.rmtree(self._replaced, ignore_errors=True)

    def listens(self, address: str, door: Door | None) -> None:
        """Tell this user where the run takes orders, as long as it goes on, and with which token."""
        told: dict[str, Any] = {"address": address, "pid": os.getpid()}
        if door is not None:
            told |= {"door": door.address, "token": door.token}
        file = self.path / CONTROL
        file.unlink(missing_ok=True)
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(opened, json.dumps(told).encode())
        os.close(opened)
        self._opened.callback(file.unlink, missing_ok=True)

    def give_up(self) -> None:
        """The run cannot begin: all is as before."""
        if self._resumed:
            return
        shutil.rmtree(self.path)
        if self._replaced.exists():
            self._replaced.rename(self.path)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class RankDirectory:
    """Where a learner that is not rank 0 keeps its logs and records, below the run's directory; made anew by each."""

    def __init__(self, run: Path, rank: int) -> None:
        self.path = run / "ranks" / str(rank)
        (self.path / "logs").mkdir(parents=True, exist_ok=True)

    def settle(self, config: dict[str, Any]) -> None:
        """Rank 0 does."""

    def listens(self, address: str, door: Door | None) -> None:
        """Nobody is to know."""

    def give_up(self) -> None:
        """Rank 0 does."""

    def __enter__(self) -> RankDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is open."""


def is_taken(directory: Path) -> bool:
    """Whether a process has it, as far as that can be known."""
    try:
        import fcntl

        with open(directory / _LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return True
    return False


def name_of(algorithm: str, env: str) -> str:
    """For a run that was given no name."""
    env = "".join(letter if letter.isalnum() else "-" for letter in env.rstrip("/").rpartition("/")[2].lower())
    return f"{algorithm}-{env[:32]}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """The kernel lets go of the lock when this process is gone, however it went."""
    with open(directory / _LOCK, "a") as file:
        with contextlib.suppress(ImportError):  # not on Windows
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(f"the run {directory} is going on in another process") from error
        yield
