from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.runs import Run, Start

_there: list[Run] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Beside what a test says that failed: what its runs did. They are gone before anybody can look."""
    report = yield
    if report.failed:
        report.sections += [(f"what {run.directory.name} did", run.story()) for run in _there]
    return report


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts runs that are gone when the test is over, whatever became of it."""
    yield from starter(tmp_path)


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """The same, for runs that several tests look at."""
    yield from starter(tmp_path_factory.mktemp("once"))


def starter(home: Path) -> Iterator[Start]:
    started: list[Run] = []
    numbers = itertools.count(1)
    (home / "marks").mkdir()  # for toys that leave some

    def start(*options: object, run: str = "", resume: bool = False, learners: int = 0, **environment: str) -> Run:
        environment = {"TOY_MARKS": str(home / "marks"), **environment}
        name = run or f"run-{next(numbers)}"
        started.append(Run(home, *options, run=name, resume=resume, learners=learners, **environment))
        _there.append(started[-1])
        return started[-1]

    yield start
    for run in started:
        run.end()
        _there.remove(run)
