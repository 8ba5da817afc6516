"""Replay by priority: Schaul et al. 2016, proportional (equation 1), with a sum tree over the slots of the ring
(core/priorities.py) that the learner alone touches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.gather import Gather, Where
from core.mirror import Mirror
from core.replay import Sampler
from core.ring import Ring
from core.types import IntArray, require

if TYPE_CHECKING:
    from core.priorities import Priorities

_SMALLEST = 1e-6
"""added to every TD error, so that no row is never drawn again"""


@dataclass(frozen=True)
class Prioritization:
    """How much priorities matter (Schaul et al. 2016, section 3.3 and 3.4)."""

    alpha: float = 0.6
    """0: uniform, 1: in proportion to the TD error"""
    beta: float = 0.4
    """how much of the bias importance weights take back at first; it grows to 1"""
    beta_steps: int = 100_000
    """agent steps until it is 1"""

    def __post_init__(self) -> None:
        require("--algo.alpha", self.alpha, 0 <= self.alpha <= 1, "from 0 to 1")
        require("--algo.beta", self.beta, 0 <= self.beta <= 1, "from 0 to 1")
        require("--algo.beta-steps", self.beta_steps, self.beta_steps >= 1, "at least 1")


class PrioritizedSampler(Sampler):
    """Draws a row in proportion to (its last TD error)^alpha; a new one with the highest so far, or its worker's."""

    def __init__(
        self, ring: Ring, batch_size: int, seed: int, how: Prioritization, gather: Gather | Mirror | None = None
    ) -> None:
        super().__init__(ring, batch_size, seed, gather)
        # only here: it imports numba, half a second that nobody else needs
        from core.priorities import Priorities

        self._how = how
        self._tree: Priorities = Priorities(ring.capacity)  # grows with the lanes that are used
        self._oldest = np.zeros(ring.num_lanes, np.int64)
        """(lanes,) rows below have no priority any more"""
        self._end = np.zeros(ring.num_lanes, np.int64)
        """(lanes,) rows from here on have none yet"""
        self._slots = np.zeros(batch_size, np.int64)  # of the last sample
        self._drawn_with = np.ones(batch_size)  # the priorities of its rows when they were drawn
        self._highest = 1.0
        self._strata = np.arange(batch_size)

    def draw(self) -> None:
        super().draw()
        self._weigh()

    def learned(self, td_error: Tensor | None) -> None:
        """The last sample's new priorities.

        Of what was overwritten since, as the tree will find out, the next draw's first step takes them away again.
        """
        assert td_error is not None, "prioritised replay needs the TD error of each row"
        priority = self._priority(td_error.numpy(force=True))
        lane, index = self._drawn
        held = index >= self._oldest[lane]  # not so what the tree lost while other rows were drawn again
        self._tree.put(self._slots[held], priority[held])

    def state_dict(self) -> dict[str, Any]:
        priorities = torch.from_numpy(self._tree[np.arange(self._tree.num_slots)])
        known = {"oldest": self._oldest.tolist(), "end": self._end.tolist(), "highest": self._highest}
        return {**super().state_dict(), "priorities": priorities, **known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._cover(len(state["priorities"]))
        self._tree.put(np.arange(self._tree.num_slots), state["priorities"].numpy())
        for words, known in ((self._oldest, state["oldest"]), (self._end, state["end"])):
            known = known[: len(words)]  # a run that goes on may have room for more lanes, or for fewer, than it did
            words[: len(known)] = known
        self._highest = state["highest"]

    def _draw(self, where: Where, count: int) -> tuple[IntArray, IntArray]:
        self._keep_up()  # each time: of what it knew a moment ago, everything may be overwritten by now
        if self._tree.total == 0:
            raise ValueError("the ring is empty")
        uniform = self._random.random(count)
        if count == len(self._strata):  # one from each of as many equal parts (appendix B.2.1)
            uniform += self._strata
            uniform /= count
        slots, priorities = self._tree.draw(uniform)
        self._slots[where], self._drawn_with[where] = slots, priorities
        lane = slots // self._ring.capacity
        newest = self._end[lane] - 1
        return lane, newest - (newest - slots) % self._ring.capacity  # a lane's first slot is 0 modulo its capacity

    def _weigh(self) -> None:
        """w = (N P(i))^-beta, over the largest in the batch (section 3.4)."""
        how = self._how
        beta = how.beta + (1 - how.beta) * min(self._ring.agent_steps / how.beta_steps, 1.0)
        # N and the sum of all priorities are the same for all: they go with the largest
        weight = self.gather.weight
        np.power(self._drawn_with, -beta, out=weight, casting="same_kind")
        weight /= weight.max()

    def _priority(self, td_error: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """p = (|delta| + epsilon)^alpha; what is not finite counts as nothing learned. The highest is kept."""
        priority: npt.NDArray[np.float64] = (np.abs(td_error, dtype=np.float64) + _SMALLEST) ** self._how.alpha
        highest = float(priority.max())
        if not highest < np.inf:
            priority[~np.isfinite(priority)] = _SMALLEST**self._how.alpha
            highest = float(priority.max())
        self._highest = max(self._highest, highest)
        return priority

    def _keep_up(self) -> None:
        """Give priorities to what was written since the last time, and take them from what is being overwritten."""
        oldest, end = self.gather.window()
        if oldest.tobytes() == self._oldest.tobytes() and end.tobytes() == self._end.tobytes():
            return  # as most of the time; numpy takes ten times as long to compare numbers
        changed = np.flatnonzero((end != self._end) | (oldest != self._oldest)).tolist()
        self._cover(self._ring.lanes_used * self._ring.capacity)
        for lane in changed:
            first, last = int(oldest[lane]), int(end[lane])
            for start, stop in self._stretches(max(first, int(self._end[lane])), last):
                slots = slice(lane * self._ring.capacity + start, lane * self._ring.capacity + stop)
                if self._ring.recording.priority:
                    priority = self._priority(self._ring.rows[lane]["priority"][start:stop])
                    self._tree.put(np.arange(slots.start, slots.stop), priority)
                else:
                    self._tree.fill(slots.start, slots.stop, self._highest)
            for start, stop in self._stretches(max(int(self._oldest[lane]), last - self._ring.capacity), first):
                self._tree.fill(lane * self._ring.capacity + start, lane * self._ring.capacity + stop, 0.0)
        self._oldest, self._end = oldest, end

    def _cover(self, num_slots: int) -> None:
        """Have a tree for so many slots, at least: levels that nobody needs would cost at each draw."""
        if num_slots > self._tree.num_slots:
            known, self._tree = self._tree, type(self._tree)(num_slots)
            slots = np.arange(known.num_slots)
            self._tree.put(slots, known[slots])

    def _stretches(self, first: int, last: int) -> list[tuple[int, int]]:
        """The slots of the rows from `first` to `last`, in at most two pieces."""
        capacity = self._ring.capacity
        if first >= last:
            return []
        start, count = first % capacity, min(last - first, capacity)
        if start + count <= capacity:
            return [(start, start + count)]
        return [(start, capacity), (0, start + count - capacity)]


def make_sampler(
    ring: Ring, batch_size: int, seed: int, how: Prioritization | None, gather: Gather | Mirror | None = None
) -> Sampler:
    """Uniform if `how` is None."""
    if how is None:
        return Sampler(ring, batch_size, seed, gather)
    return PrioritizedSampler(ring, batch_size, seed, how, gather)
