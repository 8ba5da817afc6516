from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.runs import Run, Start


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
        return started[-1]

    yield start
    for run in started:
        run.end()
