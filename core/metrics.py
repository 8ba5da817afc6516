"""Metrics: one JSON object a line first; trackers, the live display and the plain lines show the same records."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from core.appended import Appended
from core.tracking import Tracker, tagged

Record = dict[str, Any]

_PLAIN_PROGRESS_EVERY_S = 2.0


class Metrics:
    """The records of one run, in its directory, on the screen and with its trackers."""

    def __init__(
        self, directory: Path, console: Console, trackers: Sequence[Tracker] = (), before_s: float = 0.0
    ) -> None:
        """`trackers` are closed with it; `before_s`: how long the run has taken already, if it goes on."""
        self._before_s = before_s
        self._file = Appended(directory / "metrics.jsonl")
        _end_the_last_line(directory / "metrics.jsonl")
        self._trackers = trackers
        self._screen = LiveScreen(console) if console.is_terminal else PlainScreen(console)

    def write(self, kind: str, losses: dict[str, float] | None = None, /, **fields: Any) -> None:
        """Append one record; `losses`: fields that the algorithm names. Numbers that are not finite become null: JSON
        has no others."""
        losses = losses or {}
        record = {"kind": kind, "wall_s": round(self.wall_s(), 3), **fields, **losses}
        clean = {name: finite(value) for name, value in record.items()}
        self._file.write(json.dumps(clean).encode() + b"\n")
        if numbers := tagged(clean, losses):
            for tracker in self._trackers:
                tracker.write(numbers, clean["agent_steps"])
        self._screen.show(clean)

    def wall_s(self) -> float:
        """Seconds that the run has taken: since Enter, imports included, and before that if it was resumed."""
        return self._before_s + time.monotonic() - _STARTED

    def close(self) -> None:
        self._screen.close()
        for tracker in self._trackers:
            tracker.close()
        self._file.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def finite(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end_the_last_line(file: Path) -> None:
    """A run that was killed may have left half a record; what comes next must not become part of it."""
    whole = file.read_bytes().rpartition(b"\n")[0]
    os.truncate(file, len(whole) + 1 if whole else 0)


def describe(record: Record) -> str:
    """One line for people; empty for what is not worth one."""
    match record["kind"]:
        case "progress":
            return (
                f"{record['wall_s']:6.1f} s"
                f"  {record['agent_steps']:>9,} agent steps ({record['agent_steps_per_s']:,.0f}/s)"
                f"  {record['updates']:>7,} updates ({record['updates_per_s']:,.0f}/s)"
                f"{_pace(record)}"
                f"  return {_number(record['return_mean'])} ({record['episodes']} episodes)  {record['waiting']}"
            )
        case "eval":
            return (
                f"{record['wall_s']:6.1f} s  evaluation after {record['updates']:,} updates: return "
                f"{_number(record['return_mean'])} +- {_number(record['return_std'])} "
                f"over {record['episodes']} episodes"
            )
        case "worker" if record["event"] not in ("started", "ready"):
            return (
                f"{record['wall_s']:6.1f} s  {record['worker']}: {record['event']} {record.get('detail', '')}".rstrip()
            )
        case "rank":
            return f"{record['wall_s']:6.1f} s  rank {record['rank']}: {record['event']}: {record['detail']}"
        case "resumed":
            newer = "".join(f"; {why}" for why in record["rejected"])
            return (
                f"{record['wall_s']:6.1f} s  goes on after {record['agent_steps']:,} agent steps and "
                f"{record['updates']:,} updates{newer}"
            )
        case "checkpoint" if "failed" in record:
            return f"{record['wall_s']:6.1f} s  no checkpoint could be written: {record['failed']}"
        case "command":
            done = "" if record["done"] else "refused: "
            return f"{record['wall_s']:6.1f} s  {' '.join(record['words'])}: {done}{record['what']}"
        case "rollback":
            return f"{record['wall_s']:6.1f} s  back to checkpoint {record['number']}: {record['detail']}"
        case "export":
            return f"{record['wall_s']:6.1f} s  note: this run's policy cannot be exported: {record['refusal']}"
        case "summary":
            best = record["eval_return"]
            kept = "no evaluation" if best is None else f"the best evaluation, {_number(best)}, is kept"
            return (
                f"{record['wall_s']:6.1f} s  ended ({record['reason']}): {record['agent_steps']:,} agent steps, "
                f"{record['updates']:,} updates; {kept}"
            )
    return ""


def _pace(record: Record) -> str:
    """Of replay, how often each row was sampled; of rows read in order, how many rollouts there were."""
    if "replay_ratio" in record:
        return f"  ratio {_number(record['replay_ratio_held'])} of {record['replay_ratio']:g}"
    return f"  {record['rollouts']:,} rollouts"


class PlainScreen:
    """A line each: for files, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_progress = 0.0

    def show(self, record: Record) -> None:
        if record["kind"] == "progress":
            if record["wall_s"] < self._next_progress:
                return
            self._next_progress = record["wall_s"] + _PLAIN_PROGRESS_EVERY_S
        line = describe(record)
        if line:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        return


class LiveScreen:
    """A table that is redrawn in place; evaluations and events scroll by above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()
        self._return: float | None = None
        self._evaluation: Record | None = None

    def show(self, record: Record) -> None:
        if record["kind"] == "progress":
            self._return = self._return if record["return_mean"] is None else record["return_mean"]
            self._live.update(self._table(record), refresh=True)
        elif line := describe(record):
            self._evaluation = record if record["kind"] == "eval" else self._evaluation
            self._live.console.print(line, markup=False, highlight=False)

    def _table(self, record: Record) -> Table:
        table = Table.grid(padding=(0, 3))
        best = self._evaluation
        rows = [
            ("time", f"{record['wall_s']:.0f} s"),
            ("agent steps", f"{record['agent_steps']:,}   {record['agent_steps_per_s']:,.0f}/s"),
            ("updates", f"{record['updates']:,}   {record['updates_per_s']:,.0f}/s"),
            ("training return", _number(self._return)),
            ("evaluation", f"{best['return_mean']:.2f} +- {best['return_std']:.2f}" if best else "-"),
            ("workers", f"{record['workers']} at work"),
            ("weights' lag", f"{record['weights_lag']:.1f} updates"),
            ("waiting", record["waiting"]),
        ]
        if "replay_ratio" in record:
            held, age = _number(record["replay_ratio_held"]), record["row_age"] or 0
            rows.insert(3, ("replay ratio", f"{held} held, {record['replay_ratio']:g} asked for"))
            rows.insert(-1, ("sampled rows' age", f"{age:,.0f} rows; {record['rows_lapped']} overtaken, redrawn"))
        else:
            rows.insert(3, ("rollouts", f"{record['rollouts']:,}"))
        for name, value in rows:
            # no markup: the table is drawn once more with each line that is printed above it, and those have none
            table.add_row(Text(name, "bold"), Text(value))
        return table

    def close(self) -> None:
        self._live.stop()


def _started() -> float:
    """When the kernel started this process, by time.monotonic(): other clocks are set. Where it does not tell, now."""
    now = time.monotonic()
    if not sys.platform.startswith("linux"):
        return now
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


_STARTED = _started()


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.2f}"
