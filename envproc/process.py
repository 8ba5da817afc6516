"""What every process of envproc does around its work: die with its parent, and tell why it failed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from core.control import Client, Failed

_PARENT = os.getppid()
_LONGEST_TRACEBACK = 12_000
"""characters; its end is what matters"""
_LONGEST_ERROR = 500


class Config(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def control(self) -> str: ...


class Work(Protocol):
    def run(self) -> None: ...
    def close(self) -> None: ...


def serve(config_type: type[Config], work_type: Callable[[Any, Client], Work]) -> int:
    """Do the work that the command line's JSON describes. Returns the exit code: 1 if anything was raised.

    Anything: environments belong to users, and a SystemExit of theirs is as much a failure as an exception.
    """
    _die_with_parent()
    config = msgspec.json.decode(sys.argv[1], type=config_type)
    client = Client(config.control, config.name)
    try:
        work = work_type(config, client)
        work.run()
        work.close()
    except BaseException as error:  # noqa: BLE001 - told to the main process, whatever it is
        told = traceback.format_exc()[-_LONGEST_TRACEBACK:]
        client.send(Failed(config.name, f"{type(error).__name__}: {error}"[:_LONGEST_ERROR], told))
        return 1
    finally:
        client.close()
    return 0


def parent_is_gone() -> bool:
    """Whether the main process has died. A worker that does not hang sees it here on every system."""
    return os.getppid() != _PARENT


def _die_with_parent() -> None:
    """On Linux the kernel kills this process when its parent goes, however it goes and whatever hangs here."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if parent_is_gone():  # it went before we had asked
            sys.exit(1)
