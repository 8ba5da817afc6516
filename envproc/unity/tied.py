"""Run a command that the kernel kills when the process that started it dies: `python tied.py PARENT COMMAND...`.

Players start in a session of their own and may hang; nothing else would end them after a SIGKILL of their worker.
"""

import ctypes
import os
import signal
import sys

if __name__ == "__main__":
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)  # kept over exec
    if os.getppid() != int(sys.argv[1]):  # it went before we had asked
        sys.exit(1)
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[2]}: {error.strerror}; it must be a program for this machine")
