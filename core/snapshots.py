"""Snapshots: the checkpoints of a run while it goes on, and going on from one.

In lock-step a checkpoint is a break: the workers begin anew after it, every episode, seed and noise of theirs, in the
run that goes on as in one that is resumed from there. So both are the same, bit for bit. When learner and workers run
freely, nobody notices it.
"""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path

from core import checkpoint, ring_file
from core.checkpoint import SavedPolicy
from core.evaluations import Evaluations
from core.learner import Learner

_LARGEST_SHARE = 0.05
"""of the time may go into checkpoints, where nothing depends on when they are made"""


class Snapshots:
    """Of one run, into its directory."""

    def __init__(
        self,
        run: Path,
        policy: SavedPolicy,
        learner: Learner,
        evaluations: Evaluations,
        every: int,
        keep: int,
        breaks: bool,
    ) -> None:
        """`every`: agent steps between two, 0: none but the last; `keep`: the newest so many stay; `breaks`: each is a
        break of a run in lock-step."""
        self._run = run
        self.policy = policy
        """whose parameters change; all else about it stays"""
        self._learner, self._evaluations = learner, evaluations
        self._every, self._keep, self._breaks = every, keep, breaks
        self.took_s = 0.0
        """how long the last one took"""
        self._next = every
        self._not_before = 0.0

    def due(self, agent_steps: int) -> bool:
        """Whether it is time for one after so many."""
        if not self._every or agent_steps < self._next:
            return False
        return self._breaks or time.monotonic() >= self._not_before

    def take(self, wall_s: float, last: bool = False) -> Path:
        """Write a checkpoint, and delete the oldest.

        `last`: at the end of a run. In lock-step that is no break: nobody goes on from there, and it has no ring.

        Raises OSError if it cannot be written; the others are as before then.
        """
        begun = time.monotonic()
        state = {
            "learner": self._learner.state_dict(),
            "evaluations": self._evaluations.state_dict(),
            "wall_s": wall_s,
        }

        def add_ring(files: Path) -> None:
            if not (last and self._breaks):
                ring_file.save(self._learner.ring, files)

        try:
            directory = checkpoint.save(self._run, self.policy, self._evaluations.policy_to_keep(), state, add_ring)
            checkpoint.prune(self._run, self._keep + (last and self._breaks))
        finally:
            self._schedule()
            self.took_s = time.monotonic() - begun
            self._not_before = time.monotonic() + self.took_s / _LARGEST_SHARE
        return directory

    def restore(self, directory: Path) -> float:
        """Go on from the checkpoint in `directory`; returns the seconds that the run had taken until then.

        Raises ValueError if it is one of another kind of run.
        """
        state = checkpoint.load_state(directory)
        ring_file.load(self._learner.ring, directory)
        try:
            self._learner.load_state_dict(state["learner"])
        except RuntimeError as error:  # torch's, of tensors that do not fit
            told = f"the networks in {directory} are others than this run's --algo options say"
            raise ValueError(told + self._difference(directory)) from error
        self._evaluations.load_state_dict(state["evaluations"])
        self._schedule()
        wall_s: float = state["wall_s"]
        return wall_s

    def _difference(self, directory: Path) -> str:
        """In what the acting network there is another one."""
        there, here = checkpoint.read_policy(directory)[0].policy_spec.net, self.policy.policy_spec.net
        for name in (each.name for each in fields(there)):
            if getattr(there, name) != getattr(here, name):
                return f": {name} is {getattr(there, name)} there, and {getattr(here, name)} here"
        return ""

    def roll_back(self) -> str:
        """Networks and optimizers as in the newest checkpoint, all else as it is; returns its number.

        Raises ValueError if there is none.
        """
        directory, _ = checkpoint.newest(self._run)
        self._learner.roll_back(checkpoint.load_state(directory)["learner"]["algorithm"])
        return directory.name

    def _schedule(self) -> None:
        if self._every:
            self._next = (self._learner.agent_steps // self._every + 1) * self._every


def newest(run: Path) -> tuple[Path, list[str]]:
    """The newest checkpoint that the run can go on from, and why newer ones cannot be used. Raises ValueError if there
    is none."""
    return checkpoint.newest(run, holding=ring_file.WORDS)
