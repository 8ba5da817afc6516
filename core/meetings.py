"""Meetings: the learners of a group say how far they are, and go on together or not at all.

Each rank's workers collect by themselves, but an update is everybody's: its gradients are averaged. So before it all
meet, and the meeting grants as many updates as each of them can make by now; a rank that cannot make any yet comes
now and then all the same, so that the others hear of it. Whoever leaves, as rank 0 does at the end of the run, says so
in a meeting, after the updates that were granted: all leave after the same one.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.digest import digest
from core.group import Group
from core.ring import Word
from core.rollout import Rollout

if TYPE_CHECKING:
    from core.learner import Learner

_COME_EVERY_S = 0.1
_MOST_GRANTED = 8
"""updates: until the next meeting nobody can leave"""
_COMPARE_EVERY = 500
"""updates"""
_OF_ONE_RANK = ("returns",)
"""entries of an algorithm's state that are about this rank's own agents"""
_REASONS = ("", "steps", "until_return", "stopped", "interrupted")
"""to leave; a rank says the number"""


class Said(IntEnum):
    """What a rank says in a meeting; all but the first three are totals of this round."""

    LEAVES = 0
    DUE = 1
    ROWS = 2  # of the rollout that it has ready
    AGENT_STEPS = 3
    ENV_STEPS = 4
    WORKERS = 5
    EPISODES = 6
    RETURNS = 7
    LENGTHS = 8


class Meetings:
    """Of one rank, with the others of its group."""

    def __init__(self, group: Group, learner: Learner) -> None:
        """All begin with what rank 0's learner knows; it has been restored, if the run goes on. The rings of the others
        are empty: they are filled anew."""
        self._group, self._learner = group, learner
        self.reason = ""
        """why all leave; empty while they do not"""
        self.episodes: list[float] = [0.0, 0.0, 0.0]
        """of this rank so far: how many ended, the sums of their returns and of their lengths"""
        state = {"algorithm": learner.algorithm.state_dict(), "updates": learner.updates, "steps": learner.agent_steps}
        state = group.share(state)
        if not group.leads:
            learner.begin_at(state["algorithm"], state["updates"])
        self._before = state["steps"] - int(group.sum(torch.tensor(learner.ring.agent_steps)))
        """agent steps of earlier rounds whose rows are in no ring"""
        self._granted, self._has_left = 0, False
        self._agent_steps = state["steps"]
        self._compared_at = learner.updates
        self._said = torch.zeros(group.size, len(Said), dtype=torch.float64)
        self._last = time.monotonic()
        self._compare()
        self._meet(0, 0)

    @property
    def leads(self) -> bool:
        return self._group.leads

    def may_learn(self, experience: Any | None) -> bool:
        """Whether all learn now, this rank from `experience`; None: it has nothing to learn from yet."""
        if self.reason:
            return False
        if not self._granted:
            if experience is None:
                self.attend()
                return False
            learner = self._learner
            rows = len(experience) if isinstance(experience, Rollout) else 0
            self._meet(learner.feed.due(learner.updates), rows)
            if not self._granted:
                return False
            if learner.updates >= self._compared_at + _COMPARE_EVERY:
                self._compare()
        if experience is None:
            return False
        self._granted -= 1
        experience.agent_steps = self._agent_steps
        if isinstance(experience, Rollout):
            experience.lengths = tuple(self._said[:, Said.ROWS].int().tolist())
        return True

    def attend(self) -> None:
        """Come to a meeting, if the last one is long ago, after the updates that it granted."""
        if time.monotonic() < self._last + _COME_EVERY_S or self.reason:
            return
        self._use_up()
        self._meet(0, 0)

    def leave(self, reason: str) -> None:
        """All leave now, after the same update; they have the same parameters, or Differs is raised. To leave again is
        nothing."""
        if self._has_left:
            return
        self._has_left = True
        if not self.reason:
            self._use_up()
            self._meet(0, 0, _REASONS.index(reason))
        self._compare()

    def total(self, what: Said) -> float:
        """Over all ranks, as of the last meeting."""
        return float(self._said[:, what].sum())

    def _use_up(self) -> None:
        while self._granted:
            self._learner.learn()

    def _meet(self, due: int, rows: int, leaves: int = 0) -> None:
        learner = self._learner
        ring = learner.ring
        own = [leaves, due, rows, ring.agent_steps, int(ring.load(Word.STEPS).sum()), int(ring.at_work.sum())]
        said: Tensor = self._group.gather(torch.tensor([*own, *self.episodes], dtype=torch.float64))
        self._said, self._last = said, time.monotonic()
        self._agent_steps = self._before + int(self.total(Said.AGENT_STEPS))
        learner.elsewhere = self._agent_steps - int(own[Said.AGENT_STEPS])
        self.reason = _REASONS[int(said[:, Said.LEAVES].max())]
        if not self.reason:
            self._granted = min(int(said[:, Said.DUE].min()), _MOST_GRANTED)

    def _compare(self) -> None:
        learner = self._learner
        self._compared_at = learner.updates
        self._group.compare(digest(learner.algorithm.state_dict(), _OF_ONE_RANK), learner.updates)
