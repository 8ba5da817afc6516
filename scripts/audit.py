"""Audit: `python -m scripts.audit RUN` reads what a run has kept and says whether it held what is promised.

Nothing of the run is needed but `metrics.jsonl`. A run that was resumed is several sessions in one file; what must hold
holds in each of them.
"""

from __future__ import annotations

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import tyro

from scripts.command_line import UsageError, read_command_line
from scripts.records import Record, read_records
from scripts.runs import find_run

CLEAN, BROKEN, USAGE = 0, 1, 2
_ENDS = ("failed", "died", "hangs", "does not fit", "leaves")
_GROWING = ("agent_steps", "updates", "env_steps")
_SLACK = 1.05
"""of a replay ratio, for a short run that ends in the middle of a step"""


@dataclass(frozen=True)
class Options:
    """Say whether a run held what is promised."""

    run: Annotated[str, tyro.conf.Positional]
    """name of the run, or its directory"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 all held, 1 something did not, 2 usage."""
    try:
        options = read_command_line(Options, arguments, "python -m scripts.audit")
        records = read_records(find_run(options.run, options.runs_dir))
        found, told = _read(records)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    for broken in found:
        print(broken)
    print(f"{len(records):,} records, {told}: {len(found)} violations")
    return BROKEN if found else CLEAN


def _read(records: list[Record]) -> tuple[list[str], str]:
    """What did not hold, and what happened. Raises UsageError if there are records which no run writes."""
    try:
        return [broken for session in sessions(records) for broken in violations(session)], counts(records)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"these are not the records of a run, or of another version's ({what})") from error


def sessions(records: list[Record]) -> list[list[Record]]:
    """Each begins with its configuration."""
    starts = [index for index, record in enumerate(records) if record["kind"] == "config"]
    return [records[start:end] for start, end in pairwise([*starts, len(records)])]


def counts(records: list[Record]) -> str:
    """What happened, how often."""
    events = Counter(each["event"] for each in records if each["kind"] == "worker")
    events["commands"] = sum(each["kind"] == "command" for each in records)
    events["checkpoints"] = sum(each["kind"] == "checkpoint" for each in records)
    return ", ".join(f"{count} {name}" for name, count in sorted(events.items()) if count)


def violations(session: list[Record]) -> Iterator[str]:
    """What did not hold, a line each."""
    yield from _order_in_time(session)
    yield from _one_writer_a_lane(session)
    yield from _one_answer_an_order(session)
    yield from _a_ratio_that_holds(session)
    yield from _an_end_in_order(session)


def _order_in_time(session: list[Record]) -> Iterator[str]:
    """Time and totals never go back."""
    for name in ("wall_s", *_GROWING):
        known = [(each[name], each["kind"]) for each in session if name in each and each["kind"] != "eval"]
        for (before, _), (after, kind) in pairwise(known):
            if after < before:
                yield f"{name} goes back from {before} to {after} in a record of kind {kind}"
    for each in session:
        if each["kind"] == "progress" and each["weights_lag"] is not None and each["weights_lag"] < 0:
            yield f"after {each['wall_s']} s workers act with weights that do not exist yet: lag {each['weights_lag']}"


def _one_writer_a_lane(session: list[Record]) -> Iterator[str]:
    """Nobody is started where somebody is, and a lane's epochs only grow."""
    there: dict[str, int | None] = {}
    last: dict[str, int] = {}
    for each in session:
        if each["kind"] != "worker":
            continue
        worker, event = each["worker"], each["event"]
        if event in ("started", "restarted", "joins"):
            epoch = each["epoch"]
            if worker in there:
                yield f"{worker} is started in epoch {epoch} while that of epoch {there[worker]} is still there"
            if epoch is not None and epoch < last.get(worker, 0):
                yield f"{worker} goes back from epoch {last[worker]} to {epoch}"
            there[worker] = epoch
            last[worker] = epoch or 0
        elif event in _ENDS:
            there.pop(worker, None)
        elif event == "ready" and worker not in there:
            yield f"{worker} is ready and was not started"


def _one_answer_an_order(session: list[Record]) -> Iterator[str]:
    """Each exactly once."""
    asked = [each["number"] for each in session if each["kind"] == "order"]
    answers = Counter(each["number"] for each in session if each["kind"] == "command")
    over = session[-1]["kind"] == "summary"
    for number in asked:
        if answers[number] > 1 or (over and not answers[number]):
            yield f"order {number} has {answers[number]} answers"
    if unknown := set(answers) - set(asked):
        yield f"there are answers to orders that nobody gave: {sorted(unknown)}"


def _a_ratio_that_holds(session: list[Record]) -> Iterator[str]:
    """The learner never samples more than was asked for."""
    for each in session:
        held, wanted = each.get("replay_ratio_held"), each.get("replay_ratio")
        if wanted is not None and held is not None and held > wanted * _SLACK:
            yield f"after {each['wall_s']} s the replay ratio held is {held:.2f}, asked for {wanted:g}"


def _an_end_in_order(session: list[Record]) -> Iterator[str]:
    """A summary is the last thing that is said, and there is a checkpoint before it."""
    kinds = [each["kind"] for each in session]
    if "summary" in kinds[:-1]:
        yield "something is told after the summary"
    if kinds[-1] == "summary" and session[-1]["reason"] != "interrupted" and "checkpoint" not in kinds:
        yield "the run ended without a checkpoint"


if __name__ == "__main__":
    run_main(main)
