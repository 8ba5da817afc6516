"""What a part has found: tables in the terminal, line by line as they come, and the same figures as JSON.

report = Report("ring", options.json)
table = report.table("append", 30, "us", "memcpy us", "times")
table.row("12 rows of 3DBall", 2.45, 0.49, 5.0)
report.note("cpprb is not installed")
report.write()
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from scripts.command_line import check_output
from scripts.options import num_cores

WIDTH = 100
"""columns of a terminal"""
_LEAST = 8
"""columns of a figure"""
_ROOT = Path(__file__).parents[2]

Figure = float | int | str | None
"""None: was not measured"""


@dataclass(frozen=True)
class Machine:
    """What a figure is worth little without."""

    cores: int
    """that this process may use"""
    cpu: str
    python: str
    numpy: str
    torch: str
    commit: str
    """of the directory that this file stands in; "-dirty": with changes that no commit has"""

    def __str__(self) -> str:
        versions = f"Python {self.python}, numpy {self.numpy}, torch {self.torch}"
        return f"{self.cores} cores, {self.cpu}, {versions}, commit {self.commit}"


def machine() -> Machine:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpus = [line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")] or [platform.processor()]
    try:
        git = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(git, cwd=_ROOT, capture_output=True, text=True, timeout=10).stdout.strip()
    except OSError:  # no git
        commit = ""
    versions = platform.python_version(), version_of("numpy"), version_of("torch")
    return Machine(num_cores(), cpus[0], *versions, commit or "unknown")


def version_of(package: str) -> str:
    """Without importing it; empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class Table:
    """Rows under headings, the first column text, the others figures, aligned; each row is printed when it is there."""

    def __init__(self, title: str, width: int, headings: tuple[str, ...]) -> None:
        self._headings = headings
        self._widths = [width, *(max(len(each), _LEAST) for each in headings)]
        assert sum(self._widths) + 2 * len(headings) <= WIDTH, f"{title!r} does not fit {WIDTH} columns"
        self.title = title
        self.rows: list[dict[str, Figure]] = []
        print(f"\n{title}")
        self._print(["", *headings])

    def row(self, what: str, *figures: Figure) -> None:
        """One figure for each heading."""
        assert len(figures) == len(self._headings), f"{len(figures)} figures for {len(self._headings)} headings"
        self.rows.append({"what": what, **dict(zip(self._headings, figures, strict=True))})
        self._print([what, *map(shown, figures)])

    def _print(self, cells: list[str]) -> None:
        first, *others = cells
        aligned = [f"{each:>{width}}" for each, width in zip(others, self._widths[1:], strict=True)]
        print("  ".join([f"{first:{self._widths[0]}}", *aligned]).rstrip(), flush=True)


class Report:
    """All that one part has found. Prints the machine first."""

    def __init__(self, part: str, file: Path | None) -> None:
        self._part, self._file, self._machine = part, file, machine()
        self._tables: list[Table] = []
        self._notes: list[str] = []
        print(self._machine, flush=True)

    def table(self, title: str, width: int, *headings: str) -> Table:
        """`width`: columns of the text that each row begins with; a heading names the unit of its figures."""
        self._tables.append(Table(title, width, headings))
        return self._tables[-1]

    def note(self, text: str) -> None:
        """What must be known of the figures."""
        self._notes.append(text)
        print(text, flush=True)

    def write(self) -> None:
        """The file, if one was wished for."""
        if self._file:
            tables = [{"title": each.title, "rows": each.rows} for each in self._tables]
            found: dict[str, Any] = {"part": self._part, "machine": asdict(self._machine), "tables": tables}
            self._file.write_text(json.dumps({**found, "notes": self._notes}, indent=1) + "\n")


def shown(figure: Figure) -> str:
    """Three digits that count, or the whole number."""
    if figure is None:
        return "-"
    if isinstance(figure, str):
        return figure
    digits = 0 if isinstance(figure, int) or abs(figure) >= 99.95 else 1 if abs(figure) >= 9.995 else 2
    return f"{figure:,.{digits}f}"


def option_parser(part: str, description: str | None) -> argparse.ArgumentParser:
    """With the options that every part has."""
    parser = argparse.ArgumentParser(f"python -m scripts.profile {part}", description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--quick", action="store_true", help="some seconds, to see that it works; no figures to keep")
    return parser


def read_options(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Raises UsageError, before anything is measured, if the file cannot be written."""
    options = parser.parse_args(arguments)
    if options.json:
        check_output("--json", options.json)
    return options
