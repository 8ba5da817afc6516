"""Who is waited for, and what would change that."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from core.waiting import who_waits

RATIO, EPOCHS = "--algo.replay-ratio", "--algo.epochs"


class Case(NamedTuple):
    learner: tuple[float, float]
    """shares: waits, update"""
    workers: tuple[float, ...]
    """wait, act, env; and, of a player, exchange and decode as parts of env"""
    num_workers: int
    cores: int
    told: str
    paced_by: str = RATIO


CASES = [
    # the learner waits: for more cores' work, if there are cores, else for more in each step
    Case((0.7, 0.2), (0, 0.1, 0.85), 1, 8, "learner waits 70% for workers (env 85%): more --workers"),
    Case((0.7, 0.2), (0, 0.1, 0.85), 2, 2, "learner waits 70% for workers (env 85%): more --copies"),
    Case((0.7, 0.2), (0, 0.6, 0.3), 1, 1, "learner waits 70% for workers (act 60%): more --copies"),
    Case((0.2, 0.8), (0, 0.1, 0.9), 4, 2, "learner waits 20% for workers (env 90%): fewer --workers, more --copies"),
    # for players
    Case(
        (0.7, 0.2), (0, 0.1, 0.85, 0.7, 0.15), 1, 8,
        "learner waits 70% for players (exchange 70%): more --unity.players-per-worker",
    ),
    Case((0.7, 0.2), (0, 0.1, 0.85, 0.7, 0.15), 2, 2, "learner waits 70% for players (exchange 70%): more --copies"),
    Case((0.7, 0.2), (0, 0.1, 0.85, 0.2, 0.65), 1, 8, "learner waits 70% for workers (decode 65%): more --workers"),
    Case((0.6, 0.0), (0, 0, 0), 2, 2, "learner waits 60% for workers to begin"),
    # the workers wait
    Case((0.01, 0.9), (0.9, 0.02, 0.08), 4, 2, "workers wait 90% for learner (update 90%): --workers 1 would do"),
    Case((0.01, 0.9), (0.5, 0.1, 0.4), 4, 8, "workers wait 50% for learner (update 90%): --workers 3 would do"),
    Case((0.01, 0.9), (0.9, 0.02, 0.08), 1, 2, "workers wait 90% for learner (update 90%): lower --algo.replay-ratio"),
    Case((0.01, 0.9), (0.12, 0.1, 0.78), 4, 8, "workers wait 12% for learner (update 90%): lower --algo.replay-ratio"),
    # who learns from whole rollouts needs all workers while it waits for the next one
    Case((0.4, 0.5), (0.5, 0.1, 0.4), 4, 8, "workers wait 50% for learner (update 50%): lower --algo.epochs", EPOCHS),
    Case((0.4, 0.5), (0.5, 0.1, 0.4), 4, 8, "workers wait 50% for learner (update 50%)", ""),
    Case((0, 0.01), (0.99, 0, 0), 2, 2, "workers wait 99%, nothing is learned now"),
    # nobody waits
    Case((0.05, 0.9), (0.08, 0.1, 0.8), 1, 2, "nobody waits (learner update 90%; workers env 80%)"),
    Case((0, 0.95), (0, 0.1, 0.9), 4, 2, "nobody waits, but 5 processes share 2 cores: fewer --workers"),
]  # fmt: skip


def line(case: Case, in_turns: bool = False) -> str:
    learner = dict(zip(("waits", "update"), case.learner, strict=True))
    workers = dict(zip(("wait", "act", "env", "exchange", "decode"), case.workers, strict=False))
    return who_waits(learner, workers, case.num_workers, case.cores, case.paced_by, in_turns)


@pytest.mark.parametrize("case", CASES, ids=[case.told for case in CASES])
def test_it_is_told_who_waits_for_whom_and_what_would_change_that(case: Case) -> None:
    assert line(case) == case.told


def test_in_lock_step_waiting_is_no_fault() -> None:
    told = "nobody in vain, they take turns (learner update 40%; workers env 30%)"
    assert line(Case((0.5, 0.4), (0.6, 0.1, 0.3), 2, 2, told), in_turns=True) == told


def test_a_line_fits_beside_its_name_in_a_narrow_terminal() -> None:
    assert max(len(case.told) for case in CASES) <= 80
