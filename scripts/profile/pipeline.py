"""A whole run as it goes: how fast, who waits for whom, and what each process takes.

    python -m scripts.profile pipeline [ALGORITHM] [options of scripts.train]

starts scripts.train as it is, with these options and in a directory of its own, and looks at it for some seconds once
it is past its warm-up.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from algos import ALGORITHMS
from core.ring import LINK_PHASES
from core.waiting import num_cores, paced_by, who_waits
from scripts.command_line import UsageError, check_output
from scripts.options import Options, parse
from scripts.profile import advise
from scripts.profile.report import Report, option_parser
from scripts.profile.trial import MANY, WARM_UP_S, Seen, seen

DONE = 0
_MIB = 2**20
_MOST_WORKERS = 8
"""with a line each"""


def main(arguments: list[str]) -> int:
    """Returns the exit code. Raises UsageError."""
    if not sys.platform.startswith("linux"):
        raise UsageError("pipeline reads what Linux tells about processes, and this is another system")
    parser = option_parser("pipeline", __doc__)
    parser.allow_abbrev = False
    parser.add_argument("--seconds", type=float, default=10.0, help="to look at the run (default 10)")
    parser.add_argument("--advise", action="store_true", help="try other --workers, --copies and so on for a while")
    own, words = parser.parse_known_args(arguments)
    if own.json:
        check_output("--json", own.json)
    if not 0 < own.seconds < 1e6:
        raise UsageError(f"--seconds {own.seconds:g}; it must be above 0")
    words = words if words[:1] and words[0] in ALGORITHMS else ["ddpg", *words]
    _, options = parse(words)
    seconds, warm_up_s = (1.0, 0.0) if own.quick else (own.seconds, WARM_UP_S)
    report = Report("pipeline", own.json)
    if own.advise:
        advise.tell(report, words, options, quick=own.quick)
    else:
        report.note(f"scripts.train {' '.join(words)}")
        tell(report, seen(words, seconds, warm_up_s), options)
    report.write()
    return DONE


def tell(report: Report, run: Seen, options: Options[Any]) -> None:
    """All that was seen of a run, as tables."""
    last = run.last
    pace = report.table(f"pace, over {run.seconds:.1f} s", 40, "is", "asked for")
    pace.row("agent steps/s", run.agent_steps_per_s, None)
    pace.row("updates/s", run.updates_per_s, None)
    if "replay_ratio" in last:
        pace.row("replay ratio, since the warm-up", last["replay_ratio_held"], last["replay_ratio"])
        pace.row("age of sampled rows, in rows", run.row_age, None)
    pace.row("lag of the acting weights, in updates", run.weights_lag, None)
    pace.row("start to first update, s", run.start_s, None)
    pace.row("told to end until gone, s", run.stop_s, None)

    time = report.table("time: shares of the wall clock", 40, "%")
    for whose, shares in (("learner", run.learner), ("workers, mean", run.workers)):
        for phase, share in shares.items():
            time.row(f"{'  of env, ' if phase in LINK_PHASES else f'{whose}: '}{phase}", 100 * share)
        rest = 1 - sum(share for phase, share in shares.items() if phase not in LINK_PHASES)
        time.row(f"{whose}: the rest", 100 * max(rest, 0.0))

    processes = report.table("processes", 40, "cores", "PSS MiB")
    for name in _lines(run.cores):
        processes.row(name, *_of(name, run))
    processes.row("all", sum(run.cores.values()), sum(run.memory.values()) / _MIB)
    processes.row("others, not of this run", run.others, None)
    for block, size in sorted(run.shared.items()):
        processes.row(f"of it shared: {block}", None, size / _MIB)
    told = who_waits(
        run.learner, run.workers, last["workers"], num_cores(), paced_by(options.algo), options.lock_stepped
    )
    report.note(told)
    if run.others > MANY:
        report.note(
            f"others kept {run.others:.1f} of {num_cores()} cores busy meanwhile: on an idle machine it is faster, and "
            "the shares are others"
        )


def _lines(cores: Mapping[str, float]) -> list[str]:
    """What gets a line: every process, or, of very many, the workers together."""
    names = sorted(cores, key=lambda name: ("worker" in name, "player" in name, len(name), name))
    if sum(name.startswith("worker-") for name in names) <= _MOST_WORKERS:
        return names
    return [name for name in names if "worker-" not in name] + ["workers, mean"]


def _of(name: str, run: Seen) -> tuple[float, float]:
    """Its cores and MiB."""
    if name in run.cores:
        return run.cores[name], run.memory.get(name, 0) / _MIB
    workers = [each for each in run.cores if each.startswith("worker-")]
    num = len(workers)
    return sum(run.cores[each] for each in workers) / num, sum(run.memory.get(each, 0) for each in workers) / num / _MIB
