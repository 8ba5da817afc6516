"""Who looks at a run may stop reading, or go: the run goes on without an audience.

What it shows is written by a thread. A piece that terminal, pipe or file refuses is lost. Where none is taken, the run
waits once, for a second; what it shows from then on is lost, until the one that was not taken is.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PATIENCE_S = 1.0


@contextlib.contextmanager
def audience_may_leave() -> Iterator[None]:
    """In here, standard output and standard error never fail, and never keep anybody waiting for long."""
    with contextlib.redirect_stdout(_patient(sys.stdout)), contextlib.redirect_stderr(_patient(sys.stderr)):
        yield


def _patient(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed by who started us: >&-
        return open(os.devnull, "w")
    try:
        file = stream.fileno()
    except OSError:  # it is none: somebody collects what is written
        return stream
    return io.TextIOWrapper(_Aside(file, stream.name), stream.encoding, stream.errors, write_through=True)


class _Aside(io.BufferedIOBase):
    """A file written to by a thread of its own, one piece at a time."""

    def __init__(self, file: int, name: str) -> None:
        self._file, self.name = file, name
        self._pieces = queue.SimpleQueue[tuple[bytes, threading.Event] | None]()  # None: that was all
        self._taken = threading.Event()
        """whether the last piece is"""
        self._taken.set()
        # a daemon: a write that nobody takes must not keep the process
        threading.Thread(target=self._write_on, daemon=True).start()

    def write(self, piece: ReadableBuffer) -> int:
        data = bytes(piece)
        if self._taken.is_set():
            taken = threading.Event()
            self._pieces.put((data, taken))
            self._taken = taken
            taken.wait(_PATIENCE_S)
        return len(data)

    def _write_on(self) -> None:
        while found := self._pieces.get():  # no limit: the run may be quiet; its close() ends this
            data, taken = found
            with contextlib.suppress(OSError):
                while data:
                    data = data[os.write(self._file, data) :]
            taken.set()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file

    def isatty(self) -> bool:
        return os.isatty(self._file)

    def close(self) -> None:
        if not self.closed:
            self._pieces.put(None)
        super().close()
