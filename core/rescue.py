"""Rescue: what is done when losses or gradients stay non-finite, so that nothing is learned any more.

The optimizers skip such a step, so nothing is lost by one. Several in a row will not end by themselves: the newest
checkpoint's networks are taken back, once; if that does not help, the run stops.
"""

from __future__ import annotations

from core.learner import Learner
from core.metrics import Metrics
from core.snapshots import Snapshots

MOST_SKIPPED = 10
"""gradient steps in a row"""
_WAY_OUT = (
    "go on with a lower learning rate, with clipped gradients (--algo.max-grad-norm 0.5), or with rewards and "
    "observations of another size (scripts.check shows them)"
)


class Diverged(Exception):
    """Nothing finite can be learned any more; the message says what and what to do."""


class Rescue:
    """Of one run."""

    def __init__(self, learner: Learner, snapshots: Snapshots, metrics: Metrics) -> None:
        self._learner, self._snapshots, self._metrics = learner, snapshots, metrics
        self._went_back_to = ""

    def attend(self) -> None:
        """Go back to the newest checkpoint, if it is time to. Raises Diverged."""
        skipped = self._learner.skipped
        if skipped.in_a_row < MOST_SKIPPED:
            return
        story = f"{skipped.in_a_row} gradient steps in a row were skipped: {self._learner.what_is_not_finite()}"
        if self._learner.meetings is not None:  # all have skipped the same steps, and end alike
            raise Diverged(f"{story}; the group goes on from the newest checkpoint in its next round, if it has one")
        if self._went_back_to:
            raise Diverged(f"{story}, once more after going back to checkpoint {self._went_back_to}; {_WAY_OUT}")
        try:
            self._went_back_to = self._snapshots.roll_back()
        except ValueError as error:
            raise Diverged(f"{story}, and there is no checkpoint to go back to ({error}); {_WAY_OUT}") from error
        learner = self._learner
        self._metrics.write(
            "rollback",
            agent_steps=learner.agent_steps,
            updates=learner.updates,
            number=self._went_back_to,
            detail=story,
        )
