"""Reading the ring in order: every row once, the rows of each agent in their order, where they lie.

The writer never overwrites what was not used: it may be `capacity` rows ahead of `done`, and it makes no step that the
learner did not allow. A rollout is due when there are `horizon` rows an agent, over all lanes. While it is learned
from, the workers wait (`ahead` 0), or go on for up to `ahead` rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from core.atomic import fence_release
from core.gather import Gather
from core.ring import Ring, Word
from core.types import Batch, BoolArray, FloatArray, IntArray, Learned, Rows

_AT_ONCE = 1024
"""rows, the most that are gathered at a time when a whole rollout is gone through"""


def capacity_for(num_agents: int, num_lanes: int, horizon: int, ahead: int) -> int:
    """Rows that the ring must hold: a lane may be a rollout and `ahead` more further than what was used, and a step."""
    return num_lanes * num_agents * (horizon * (1 + ahead) + 8)


class Rollout:
    """Some rows of the ring, in place. Valid until `update` returns: then their room is the workers' again."""

    def __init__(
        self, ring: Ring, lane: IntArray, index: IntArray, device: torch.device, rooms: dict[int, Gather] | None = None
    ) -> None:
        """`lane`, `index`: (n,) the rows, those of an agent one after the other, in time order.

        `rooms`: where batches were gathered before, by size, to be used again.
        """
        self._ring, self._lane, self._index, self._device = ring, lane, index, device
        self._rooms = {} if rooms is None else rooms
        self.agent_steps = ring.agent_steps
        """of the run so far: what schedules go by"""
        self.lengths: tuple[int, ...] = (len(lane),)
        """rows of this one, and of those that other learners learn from at the same time"""
        rows = self._rows
        self.agent: IntArray = lane * ring.spec.num_agents + rows["agent"]
        """(n,) whose row it is, numbered over all lanes"""
        self.reward: FloatArray = rows["reward"]
        """(n,)"""
        self.discount: FloatArray = rows["discount"]
        """(n,) gamma, or 0 after a true end"""
        self.log_prob: FloatArray = rows["log_prob"]
        """(n,) of what was done, under the policy that did it"""
        self.decision: IntArray = rows["decision"]
        """(n,) its number in its episode, from 0"""
        self.follows: BoolArray = np.zeros(len(lane), np.bool_)
        """(n,) whether the next row is the same episode's next decision"""
        same_agent, next_one = self.agent[1:] == self.agent[:-1], self.decision[1:] == self.decision[:-1] + 1
        self.follows[:-1] = same_agent & next_one

    def __len__(self) -> int:
        return len(self._lane)

    @property
    def _rows(self) -> Rows:
        slots = self._index % self._ring.capacity
        rows: Rows = self._ring.rows[["agent", "reward", "discount", "log_prob", "decision"]][self._lane, slots]
        return rows

    def take(self, which: IntArray) -> Batch:
        """The rows at these places of the rollout, as tensors. Valid until the next call."""
        count = len(which)
        size = 1 << (count - 1).bit_length()
        if size not in self._rooms:
            self._rooms[size] = Gather(self._ring, size, self._device)
        self._rooms[size].copy(self._lane[which], self._index[which], slice(count))
        return self._rooms[size].batch(self._device, count)

    def in_pieces(self, which: IntArray | None = None) -> Iterator[tuple[IntArray, Batch]]:
        """These rows, or all, in this order, some at a time, and where in the rollout they stand."""
        which = np.arange(len(self)) if which is None else which
        for start in range(0, len(which), _AT_ONCE):
            piece = which[start : start + _AT_ONCE]
            yield piece, self.take(piece)

    def shuffled(self, size: int, random: np.random.Generator) -> Iterator[tuple[IntArray, Batch]]:
        """Every row exactly once, in a random order, in equal parts of about `size`; other learners have as many."""
        mean = sum(self.lengths) / len(self.lengths)
        parts = max(round(mean / size), 1)  # a small part at the end would move as much, with more noise
        parts = min(parts, *self.lengths)
        for which in np.array_split(random.permutation(len(self)), parts):
            yield which, self.take(which)


class InOrder:
    """What an algorithm that reads in order learns from: all rows since the last time, once there are enough."""

    publish_every = 1

    def __init__(self, ring: Ring, horizon: int, ahead: int, device: torch.device) -> None:
        """`horizon`: rows of each agent in one rollout, on average."""
        self._ring, self._device = ring, device
        self._per_lane = horizon * ring.spec.num_agents
        self._limit = self._per_lane * (1 + ahead)
        self._done = np.zeros(ring.num_lanes, np.int64)
        self._taken = self._done
        self._rooms: dict[int, Gather] = {}
        self.num_rollouts = 0

    def allow(self, updates: int) -> None:
        """Tell each worker how far it may go: until its lane has `limit` rows that were not used."""
        decisions = self._ring.load(Word.DECISIONS)  # before what they completed
        self._ring.allow(decisions + np.maximum(self._left(), 0))

    def takes_part(self) -> BoolArray:
        """Lanes whose rows are not up to the limit: their agents may decide more often than those of others."""
        takes_part: BoolArray = self._ring.at_work & (self._left() > 0)
        return takes_part

    def next(self, updates: int) -> Rollout | None:
        """What to learn from now, if there is enough."""
        published = self._ring.load(Word.PUBLISHED)
        if (published - self._done).sum() < self._per_lane * max(int(self._ring.at_work.sum()), 1):
            return None
        self._taken = published
        lanes, indices = [], []
        for lane, (first, last) in enumerate(zip(self._done.tolist(), published.tolist(), strict=True)):
            index = np.arange(first, last)
            agent = self._ring.rows[lane]["agent"][index % self._ring.capacity]
            indices.append(index[np.argsort(agent, kind="stable")])
            lanes.append(np.full(len(index), lane))
        return Rollout(self._ring, np.concatenate(lanes), np.concatenate(indices), self._device, self._rooms)

    def due(self, updates: int) -> int:
        """One: the next rollout is made with another policy."""
        return 1

    def begin_at(self, updates: int) -> None:
        """Nothing depends on what was learned before."""

    def learned(self, learned: Learned) -> None:
        """All that was taken is used."""
        self._done = self._taken
        fence_release()
        self._ring.words[:, Word.DONE] = self._done
        self.num_rollouts += 1

    def _left(self) -> IntArray:
        """(lanes,) rows up to the limit."""
        left: IntArray = self._limit - (self._ring.load(Word.PUBLISHED) - self._done)
        return left

    def configure(self, config: Any, updates: int) -> None:
        """Nothing of it can be changed."""

    def state_dict(self) -> dict[str, Any]:
        return {"rollouts": self.num_rollouts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_rollouts = state["rollouts"]
        self._done = self._taken = self._ring.load(Word.DONE)

    def figures(self, updates: int) -> dict[str, float]:
        """For the progress record."""
        return {"rollouts": self.num_rollouts, "rows_used": int(self._done.sum())}
