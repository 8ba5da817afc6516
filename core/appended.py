"""Appended: a file that only grows, by whole records. A disk that is full costs records, and not the run."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path


class Appended:
    """Opened once: who deletes or renames it meanwhile does not matter to who writes."""

    def __init__(self, file: Path) -> None:
        """Raises OSError if it cannot be opened."""
        self._name = file.name
        self._file = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        self._has_failed = False

    def write(self, record: bytes) -> None:
        """The whole record, or nothing. The first one that is missing is told."""
        try:
            size = os.fstat(self._file).st_size
            if os.write(self._file, record) < len(record):
                os.ftruncate(self._file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                print(f"note: {self._name} lacks records from here on, for now: {error}", file=sys.stderr)

    def close(self) -> None:
        os.close(self._file)
