"""ReplayRatio: what learning and collecting owe each other.

After the first `warmup` decisions, each shall be sampled `ratio` times on average. Both sides wait: the learner while
it has sampled more than was collected for, the workers while they are more than a small `lead` ahead of the learner.
(A ratio that stops only the learner lets free-running workers eat the machine; one that stops only the workers lets
the learner train on nothing new. Reverb's rate limiter works like this.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """agent steps before the first update that is counted"""
    updates_before: int = 0
    """updates that are not: those made by an earlier ratio"""

    def __post_init__(self) -> None:
        require(
            "--algo.replay-ratio", self.ratio, self.ratio == 0 or _LEAST <= self.ratio < inf, f"0, or at least {_LEAST}"
        )

    def lead(self, agents: int) -> int:
        """How many decisions the workers may be ahead: enough that there is no moment at which neither side may move,
        and that they can make one more step while the updates that the last one pays for are under way.

        `agents`: decisions that one step of all workers brings."""
        return 2 * agents + ceil(2 * self.batch_size / self.ratio)

    def changed(self, ratio: float, agent_steps: int, updates: int) -> ReplayRatio:
        """Another ratio from now on; what was collected and learned until now is settled."""
        return replace(self, ratio=ratio, warmup=max(self.warmup, agent_steps), updates_before=updates)

    def due(self, agent_steps: int, updates: int) -> bool:
        """Whether the learner may do one more update."""
        made = updates + 1 - self.updates_before
        return self.ratio > 0 and self.batch_size * made <= self.ratio * (agent_steps - self.warmup)

    def num_due(self, agent_steps: int, updates: int) -> int:
        """How many updates it may do."""
        paid = self.ratio * (agent_steps - self.warmup) // self.batch_size
        return max(int(paid) - (updates - self.updates_before), 0)

    def limit(self, updates: int, agents: int) -> int:
        """How many decisions the workers may have made by now."""
        if self.ratio == 0:
            return FOREVER
        made = updates - self.updates_before
        return self.warmup + self.lead(agents) + int(self.batch_size * made / self.ratio)

    def held(self, agent_steps: int, updates: int) -> float:
        """The ratio so far."""
        return self.batch_size * (updates - self.updates_before) / max(agent_steps - self.warmup, 1)


def share(limit: int, decisions: IntArray, lanes: int) -> IntArray:
    """(lanes,) how far each lane may go so that `lanes` of them together stay below `limit` decisions.

    What is left is split evenly and split again at each call, so that a slow lane's share does not stay unused.
    """
    left = max(limit - int(decisions.sum()), 0)
    result: IntArray = decisions + -(-left // max(lanes, 1))
    return result
