"""Ctrl-C, SIGTERM and SIGHUP during a run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from core.watch import Interrupted
from scripts.entry import ASK_TO_END, HANGUP, INTERRUPTED


class Interrupts:
    """Ctrl-C, SIGTERM, SIGHUP: once, the run ends and is saved; twice, it ends without saving; three times, at once."""

    def __init__(self) -> None:
        self.count = 0
        self._raise = False
        for number in ASK_TO_END:
            signal.signal(number, self._on_signal)

    def asked(self) -> bool:
        return self.count > 0

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """In here, Interrupted is raised at once."""
        self._raise = True
        try:
            yield
        finally:
            self._raise = False

    def _on_signal(self, number: int, _: object) -> None:
        if self.count and number == HANGUP:  # of one terminal's end both the kernel and the shell tell
            return
        self.count += 1
        if self.count >= 3:
            os._exit(INTERRUPTED)  # the workers follow: they die with this process
        if self._raise:
            raise Interrupted
