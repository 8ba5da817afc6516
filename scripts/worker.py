"""Worker: `python -m scripts.worker --join tcp://HOST:PORT --keys DIR` brings workers to a run on another machine.

What they run, the run says. They leave at Ctrl-C, when the run ends or tells them to, or when the link breaks.
"""

from __future__ import annotations

from scripts.entry import INTERRUPTED, end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import sys
from dataclasses import dataclass
from pathlib import Path

from core.types import require
from core.waiting import num_cores
from envproc.collector import REFUSED, Collector, Ended
from scripts.audience import audience_may_leave
from scripts.command_line import UsageError, read_command_line
from scripts.interrupts import Interrupts


@dataclass(frozen=True)
class Options:
    """Bring environment workers to a run that goes on elsewhere."""

    join: str
    """where it listens (train --listen): tcp://HOST:PORT"""
    keys: Path
    """directory of your keys for it (python -m scripts.keys), for-NAME"""
    workers: int = 0
    """how many; 0: one less than there are cores"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 the run has ended or told them to leave, 2 usage, or refused, 3 the link or all workers
    were lost, 130 interrupted."""
    try:
        options = read_command_line(Options, arguments, "python -m scripts.worker")
        workers = options.workers or max(num_cores() - 1, 1)
        require("--workers", options.workers, options.workers >= 0, "at least 0")
    except (UsageError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    with audience_may_leave():
        return bring(options, workers)


def bring(options: Options, workers: int) -> int:
    """So many workers, until they leave. Returns the exit code."""
    interrupts = Interrupts()
    try:
        collector = Collector(options.join, options.keys, workers, interrupts.asked)
        print(f"joined {options.join} as {', '.join(collector.workers)}", flush=True)
        try:
            collector.run()
        finally:
            collector.close()
    except Ended as ended:
        code, why = (INTERRUPTED, "interrupted") if interrupts.asked() else (ended.code, str(ended))
        print(f"{'left' if code in (0, INTERRUPTED) else 'error'}: {why}", file=sys.stderr if code else sys.stdout)
        return code
    except (OSError, ValueError, MemoryError) as error:
        print(f"error: --join {options.join}, --keys {options.keys}: {error}", file=sys.stderr)
        return REFUSED


if __name__ == "__main__":
    run_main(main)
