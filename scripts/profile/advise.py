"""Which settings are fastest on this machine: short real runs, one setting changed at a time.

What counts is agent steps a second while the learner holds its replay ratio: samples a second, divided by the ratio
that was asked for. So no setting wins by learning less from each row.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from core.waiting import num_cores
from scripts.options import Options
from scripts.profile.report import Report, Table
from scripts.profile.trial import MANY, Seen, TrialFailed, seen

_SECONDS, _WARM_UP_S = 4.0, 1.0
"""of a trial, after its first update"""
_MOST_TRIALS, _FEW_TRIALS, _MOST_S = 16, 3, 300.0
"""then it is decided with what is known"""
_BETTER = 1.05
"""times as fast, or it is not worth a change"""
_ROUNDS = 2
"""of what was given and what was found, in turns: the machine may have been slower during one of them"""
_WORKERS = _THREADS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_COPIES = (1, 2, 4, 8, 16, 32, 64)
_TIMES = (1, 2, 4, 8)
"""batch sizes, over the one that was asked for"""

Settings = dict[str, int]
"""option -> value"""


class Trials(Protocol):
    """What the search asks."""

    @property
    def are_over(self) -> bool: ...

    def speed(self, settings: Settings) -> float: ...


@dataclass
class _Trials:
    """What was tried so far."""

    words: Sequence[str]
    options: Options[Any]
    table: Table
    seconds: float
    most: int
    speeds: dict[tuple[int, ...], list[float]] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    others: float = 0.0
    """the most cores that somebody else kept busy during one of them"""

    @property
    def are_over(self) -> bool:
        return sum(map(len, self.speeds.values())) >= self.most or time.monotonic() > self.begun + _MOST_S

    def run(self, settings: Settings) -> None:
        """One more trial with these, told in the table; of one that fails, the speed is 0."""
        speeds = self.speeds.setdefault(tuple(settings.values()), [])
        try:
            run = seen([*self.words, *as_words(settings)], self.seconds, _WARM_UP_S)
        except TrialFailed as failed:
            speeds.append(0.0)
            self.table.row(_name(settings), *[None] * 5)
            print(f"  {failed}", flush=True)
            return
        speeds.append(run.agent_steps_per_s)
        held = self._held(run, settings)
        used = sum(run.cores.values())
        self.table.row(_name(settings), run.agent_steps_per_s, run.updates_per_s, held, used, run.others)
        self.others = max(self.others, run.others)

    def speed(self, settings: Settings) -> float:
        """Agent steps/s, as far as it was tried the median; tried now if it was not."""
        if tuple(settings.values()) not in self.speeds:
            self.run(settings)
        return median(self.speeds[tuple(settings.values())])

    def _held(self, run: Seen, settings: Settings) -> float | None:
        """The replay ratio during the trial."""
        if "replay_ratio" not in run.last:
            return None
        samples = settings.get("--algo.batch-size", self.options.algo.batch_size)
        samples *= getattr(self.options.algo, "stride", 1)
        return float(samples * run.updates_per_s / max(run.agent_steps_per_s, 1e-9))


def tell(report: Report, words: Sequence[str], options: Options[Any], quick: bool) -> None:
    """Try, and tell what was found."""
    cores = num_cores()
    workers = options.workers or max(cores - 1, 1)
    given = {
        "--workers": workers,
        "--copies": options.copies,
        "--threads": options.threads or max(cores - workers, 1),
    }
    report.note(f"trials of {_SECONDS:.0f} s: agent steps/s while the replay ratio is held")
    table = report.table("tried", 44, "steps/s", "updates/s", "ratio", "cores", "others")
    trials = _Trials(words, options, table, *((1.0, _FEW_TRIALS) if quick else (_SECONDS, _MOST_TRIALS)))
    found = dict(given)
    trials.run(given)
    if not options.in_editor:
        found = climb(trials, found, "--workers", [each for each in _WORKERS if each <= cores])
        found = climb(trials, found, "--copies", list(_COPIES))
        found = climb(trials, found, "--workers", [each for each in _WORKERS if each <= cores])
    if options.device == "cpu":
        found = climb(trials, found, "--threads", [each for each in _THREADS if each <= cores])
    if found != given:
        for _ in range(1 if quick else _ROUNDS):
            trials.run(given)
            trials.run(found)
        if trials.speed(found) < _BETTER * trials.speed(given):
            found = given
    if trials.others > MANY:
        report.note(f"\nothers kept up to {trials.others:.1f} of {cores} cores busy: try again on an idle machine")
    gain = trials.speed(found) / max(trials.speed(given), 1e-9)
    by_itself = {**given, "--threads": options.threads or max(cores - found["--workers"], 1)}
    command = shlex.join([".venv/bin/python", "-m", "scripts.train", *words, *as_words(found, by_itself)])
    report.note(f"best: {command}")
    report.note("nothing that was tried is worth a change" if found == given else f"{gain:.2f} times the agent steps/s")
    if hasattr(options.algo, "batch_size"):
        _tell_of_batches(report, trials, found)


def climb(trials: Trials, settings: Settings, option: str, values: list[int]) -> Settings:
    """The best value of one option, by steps up or down from where it stands, as long as each is worth it."""
    values = sorted({*values, settings[option]})
    place = values.index(settings[option])
    for step in (1, -1):
        moved = False
        while 0 <= place + step < len(values) and not trials.are_over:
            other = {**settings, option: values[place + step]}
            if trials.speed(other) < _BETTER * trials.speed(settings):
                break
            settings, place, moved = other, place + step, True
        if moved:
            break
    return settings


def _tell_of_batches(report: Report, trials: _Trials, settings: Settings) -> None:
    """Larger batches are another matter: as many samples in fewer updates are not the same learning."""
    size = trials.options.algo.batch_size
    sizes = [size * times for times in _TIMES]
    plain = {**settings, "--algo.batch-size": size}
    trials.speeds[tuple(plain.values())] = trials.speeds[tuple(settings.values())]
    found = climb(trials, plain, "--algo.batch-size", sizes)
    if found != plain:
        gain, times = trials.speed(found) / max(trials.speed(plain), 1e-9), found["--algo.batch-size"] // size
        report.note(
            f"with {shlex.join(as_words(found, plain))} as well, {gain:.2f} times the samples/s, in "
            f"{gain / times:.2f} times the updates/s: faster only if an update of {times} times the samples learns more"
        )


def as_words(settings: Settings, but: Settings | None = None) -> list[str]:
    """As they stand on a command line, without what is the same in `but`."""
    return [word for name, value in settings.items() if value != (but or {}).get(name) for word in (name, str(value))]


def _name(settings: Settings) -> str:
    return ", ".join(f"{value} {name.rpartition('-')[2]}" for name, value in settings.items())
