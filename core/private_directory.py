"""A directory that only this user can enter, and that is gone when this process is, however it went."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile

import zmq


class PrivateDirectory:
    """With a path that is short enough for a unix socket."""

    def __init__(self) -> None:
        self.path = _short_directory()
        # Removes the directory when this process's end of the pipe closes, even if that is because of a SIGKILL;
        # in a session of its own, so that a signal to our process group passes it by.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; rm -rf -- "$1"', "sh", self.path],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._janitor.wait(timeout=1)


def _short_directory() -> str:
    """A new directory of mode 0700, near the root if the usual place has too long a path for a unix socket."""
    usual = tempfile.mkdtemp(prefix="sharl-")
    if len(f"{usual}/control") < zmq.IPC_PATH_MAX_LEN:
        return usual
    os.rmdir(usual)
    return tempfile.mkdtemp(prefix="sharl-", dir="/tmp")
