"""How a program begins and ends. Ctrl-C, its terminal's end, and a reader of its output that goes away (`| head`), are
no errors.

Nothing slow is imported here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED, UNREAD = 130, 141
"""exit codes, as a shell has them after SIGINT and SIGPIPE"""
HANGUP = getattr(signal, "SIGHUP", None)
"""a terminal closes; not on Windows"""
ASK_TO_END = [signal.SIGINT, signal.SIGTERM]
if HANGUP and signal.getsignal(HANGUP) is not signal.SIG_IGN:  # or else this is to outlive it: nohup
    ASK_TO_END.append(HANGUP)


def end_at_once() -> None:
    """From now on at Ctrl-C, SIGTERM and SIGHUP. For the time of the slow imports: nothing has been started yet."""
    for number in ASK_TO_END:
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))


def run_main(main: Callable[[list[str]], int]) -> NoReturn:
    """Do what the command line says, and end the program with the exit code."""
    sys.exit(code_of(main))


def code_of(main: Callable[[list[str]], int]) -> int:
    """What `main` returns, or how it was ended. Raises SystemExit after help that was asked for."""
    interrupted = False

    def interrupt(*_: object) -> None:  # not at once: what was opened is closed, the terminal left as it was
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    for number in ASK_TO_END:
        signal.signal(number, interrupt)
    try:
        try:
            return main(sys.argv[1:])
        finally:
            if sys.stdout:  # or it was closed by who started us: >&-
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
        return UNREAD
    except BaseException:
        if interrupted:  # whatever else has become of it: an import makes another error of it
            return INTERRUPTED
        raise
