"""Who waits for whom in a run, and what would change that: one line for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import ceil

_LITTLE = 0.1
"""share of the time that nobody minds"""
_FREE, _TOO_MUCH = 0.75, 0.25
"""cores that learner and workers leave, and that they want and have not"""
_FULL = 0.9
"""how busy a worker can well be"""


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def paced_by(algo: object) -> str:
    """Which of the algorithm's options says how much is learned from each row; empty: none does."""
    names = {"replay_ratio": "--algo.replay-ratio", "epochs": "--algo.epochs"}
    return next((option for name, option in names.items() if hasattr(algo, name)), "")


def who_waits(
    learner: Mapping[str, float],
    workers: Mapping[str, float],
    num_workers: int,
    cores: int,
    pace: str,
    in_turns: bool = False,
) -> str:
    """`learner`, `workers`: shares of their time by phase, as in the progress record, of the workers the mean.

    `pace`: the option that paced_by() names. `in_turns`: learner and
    workers never go on at the same time.
    """
    learner_waits, workers_wait = learner["waits"], workers["wait"]
    learning, working = _without(learner, "waits"), _without(workers, "wait", "exchange", "decode")
    parts = _without(workers, "wait", "env") if "exchange" in workers else working
    learner_does, workers_do = _most(learning), _most(parts)
    if in_turns:
        return f"nobody in vain, they take turns (learner {learner_does}; workers {workers_do})"
    wanted = sum(learning.values()) + num_workers * sum(working.values())
    is_crowded = wanted > cores + _TOO_MUCH
    if max(learner_waits, workers_wait) < _LITTLE:
        if is_crowded:
            return f"nobody waits, but {num_workers + 1} processes share {cores} cores: fewer --workers"
        return f"nobody waits (learner {learner_does}; workers {workers_do})"
    if learner_waits > workers_wait:
        is_link = workers_do.startswith("exchange")
        told = f"learner waits {learner_waits:.0%} for {'players' if is_link else 'workers'}"
        if sum(working.values()) < _LITTLE:
            return f"{told} to begin"
        if is_crowded:
            advice = "fewer --workers, more --copies"
        elif cores - wanted >= _FREE:
            advice = "more --unity.players-per-worker" if is_link else "more --workers"
        else:
            advice = "more --copies"
        return f"{told} ({workers_do}): {advice}"
    if sum(learning.values()) < _LITTLE:
        return f"workers wait {workers_wait:.0%}, nothing is learned now"
    told = f"workers wait {workers_wait:.0%} for learner ({learner_does})"
    enough = max(ceil(num_workers * sum(working.values()) / _FULL), 1)
    if learner_waits < _LITTLE and enough < num_workers:
        return f"{told}: --workers {enough} would do"
    return f"{told}: lower {pace}" if pace else told


def _without(shares: Mapping[str, float], *names: str) -> dict[str, float]:
    return {phase: share for phase, share in shares.items() if phase not in names}


def _most(shares: Mapping[str, float]) -> str:
    """The phase that takes most of the time."""
    phase, share = max(shares.items(), key=lambda each: each[1])
    return f"{phase} {share:.0%}"
