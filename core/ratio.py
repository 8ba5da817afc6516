"""ReplayRatio: what learning and collecting owe each other.

After the first `warmup` decisions, each shall be sampled `ratio` times on average. Both sides wait: the learner while
it has sampled more than was collected for, the workers while they are more than a small `lead` ahead of the learner.
(A ratio that stops only the learner lets free-running workers eat the machine; one that stops only the workers lets
the learner train on nothing new. Reverb's rate limiter works like this.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from core.ring import FOREVER
from core.types import IntArray, require

_LEAST = 1e-6
"""a smaller ratio is one update in a hundred million steps: a slip of the hand"""


@dataclass(frozen=True)
class ReplayRatio:
    """All counts are totals since the run began: agent steps over all lanes, updates of the learner."""

    ratio: float
    """samples per decision; 0: the learner never updates and the workers never wait"""
    batch_size: int
    """decisions that one update samples"""
    warmup: int
    """agent steps before the first update"""
    agents: int
    """decisions that one step of all workers brings"""

    def __post_init__(self) -> None:
        require(
            "--algo.replay-ratio", self.ratio, self.ratio == 0 or _LEAST <= self.ratio < inf, f"0, or at least {_LEAST}"
        )

    @property
    def lead(self) -> int:
        """How many decisions the workers may be ahead: enough that there is no moment at which neither side may move,
        and that they can make one more step while the updates that the last one pays for are under way."""
        return 2 * self.agents + ceil(2 * self.batch_size / self.ratio)

    def due(self, agent_steps: int, updates: int) -> bool:
        """Whether the learner may do one more update."""
        return self.ratio > 0 and self.batch_size * (updates + 1) <= self.ratio * (agent_steps - self.warmup)

    def limit(self, updates: int) -> int:
        """How many decisions the workers may have made by now."""
        if self.ratio == 0:
            return FOREVER
        return self.warmup + self.lead + int(self.batch_size * updates / self.ratio)

    def held(self, agent_steps: int, updates: int) -> float:
        """The ratio so far."""
        return self.batch_size * updates / max(agent_steps - self.warmup, 1)


def share(limit: int, decisions: IntArray) -> IntArray:
    """(lanes,) how far each lane may go so that all together stay below `limit` decisions.

    What is left is split evenly and split again at each call, so that a slow lane's share does not stay unused.
    """
    left = max(limit - int(decisions.sum()), 0)
    result: IntArray = decisions + -(-left // len(decisions))
    return result
