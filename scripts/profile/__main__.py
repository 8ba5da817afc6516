"""Profile: `python -m scripts.profile PART` measures a part of what training does, beside what would do it instead."""

from __future__ import annotations

import os

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: one thread, as in a worker

import importlib
import sys

from scripts.command_line import UsageError

DONE, USAGE = 0, 2
PARTS = {
    "ring": ("scripts.profile.ring", "rows into shared memory and out of it, beside memcpy and packaged buffers"),
    "act": ("scripts.profile.act", "a worker's policy in numpy, beside the same network in torch"),
    "learner": ("scripts.profile.learner", "updates, beside bare matrix products, plain torch and Stable-Baselines3"),
    "worker": ("scripts.profile.worker", "words, weights, rows of a step, 3DBall, a worker's birth"),
    "link": ("scripts.profile.link", "exchanges with a Unity player, beside ML-Agents' own"),
    "joined": ("scripts.profile.joined", "rows of a collector, from its lane into the run's ring"),
    "control": ("scripts.profile.control", "how long a running job takes to answer orders"),
    "group": ("scripts.profile.group", "several learners: sums over all of them, updates together"),
    "pipeline": ("scripts.profile.pipeline", "a run as it goes: who waits for whom"),
}
"""name -> module, imported only when it is asked for, with `main(arguments: list[str]) -> int`, and its line of help"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage, else the part's own."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m scripts.profile PART [options]; --help behind a part has its options\n")
        print("\n".join(_lines()))
        return DONE if arguments else USAGE
    try:
        if arguments[0] not in PARTS:
            raise UsageError(f"there is no part {arguments[0]!r}; the parts are {', '.join(PARTS)}")
        return int(importlib.import_module(PARTS[arguments[0]][0]).main(arguments[1:]))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def _lines() -> list[str]:
    return [f"  {name:9} {line}" for name, (_, line) in PARTS.items()]


if __name__ == "__main__":
    run_main(main)
