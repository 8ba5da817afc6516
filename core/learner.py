"""The learner: is an update due? sample, update, publish. And the two orders in which learning and collecting go.

`free_running` (async): workers and learner run side by side within the replay ratio. `lock_step` (sync, single): one
step of every worker, then the updates that it pays for, then the next; the same seed gives the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from core.ratio import ReplayRatio, share
from core.ring import Ring, Sampler, Word
from core.types import Algorithm, Batch, FloatArray
from core.weights import Weights

_PUBLISH_EVERY = 4
"""updates; publishing costs 1 to 2 % of an update of a small network"""
_NAP_S = 0.0001


class Learner:
    """One algorithm, fed from one ring, publishing its policy."""

    def __init__(
        self, algorithm: Algorithm, ring: Ring, weights: Weights, ratio: ReplayRatio, seed: int, device: str = "cpu"
    ) -> None:
        self.algorithm = algorithm
        self.ring = ring
        self.ratio = ratio
        self.sampler = Sampler(ring, ratio.batch_size, seed)
        self.updates = 0
        self.num_refused = 0
        """publications refused because a parameter was not finite"""
        self.metrics: dict[str, Tensor] = {}
        """of the last update; still tensors, for reading one waits for the device"""
        self.waited_s = 0.0
        """time in which no update was due"""
        self._weights = weights
        self._published_at = 0
        self._device = torch.device(device)
        self._raw = torch.from_numpy(self.sampler.rows.view("u1").reshape(ratio.batch_size, -1))
        self._batch = as_batch(self._raw, ring.layout)  # on the CPU its tensors are the sampled rows themselves

    @property
    def rows(self) -> int:
        """Rows published so far, over all lanes: agent steps."""
        return int(self.ring.load(Word.PUBLISHED).sum())

    def step(self) -> None:
        """Side by side with the workers: tell each how far it may go, then one update if it is due, else a nap."""
        self.ring.allow(share(self.ratio.limit(self.updates), self.ring.load(Word.PUBLISHED)))
        if not self.learn():
            before = time.monotonic()
            time.sleep(_NAP_S)
            self.waited_s += time.monotonic() - before

    def learn(self) -> bool:
        """One update, if one is due."""
        if not self.ratio.due(self.rows, self.updates):
            return False
        self.sampler.sample()
        batch = self._batch
        if self._device.type != "cpu":
            batch = as_batch(self._raw.to(self._device), self.ring.layout)  # all fields in one transfer
        self.metrics = self.algorithm.update(batch)
        self.updates += 1
        if self.updates - self._published_at >= _PUBLISH_EVERY:
            self.publish()
        return True

    def publish(self) -> None:
        """Give the workers the policy as it is now, if it changed since the last time."""
        if self._published_at == self.updates:
            return
        if not self._weights.publish(self.policy(), self.updates):
            self.num_refused += 1
        self._published_at = self.updates

    def policy(self) -> FloatArray:
        """(P,) the policy as it is now; on the CPU a view of parameters that the next update changes."""
        parameters: FloatArray = self.algorithm.policy_parameters().cpu().numpy()
        return parameters


def free_running(learner: Learner, finished: Callable[[], bool], attend: Callable[[], None]) -> None:
    """Workers and learner at once, each as fast as the replay ratio lets it."""
    while not finished():
        attend()
        learner.step()


def lock_step(
    learner: Learner, finished: Callable[[], bool], attend: Callable[[], None], turn: Callable[[], None]
) -> None:
    """In rounds: every lane grows by one step (`turn` waits for that, or does it), then the updates it pays for."""
    while not finished():
        attend()
        goal = learner.ring.load(Word.PUBLISHED) + 1
        learner.ring.allow(goal)
        before = time.monotonic()
        while (learner.ring.load(Word.PUBLISHED) < goal).any():
            turn()
            attend()
        learner.waited_s += time.monotonic() - before
        while learner.learn():
            attend()
        learner.publish()


def as_batch(raw: Tensor, layout: np.dtype[np.void]) -> Batch:
    """The fields of (n, row bytes) `raw`, without copying."""

    def take(fields: np.dtype[np.void], name: str, offset: int = 0) -> Tensor:
        assert fields.fields is not None
        dtype, place = fields.fields[name][:2]
        start = offset + place
        kind = torch.from_numpy(np.empty(0, dtype.base)).dtype
        flat = raw[:, start : start + dtype.itemsize].view(kind)
        return flat.view(len(raw), *dtype.shape)

    def take_obs(name: str) -> dict[str, Tensor]:
        assert layout.fields is not None
        dtype, place = layout.fields[name][:2]
        return {field: take(dtype, field, place) for field in dtype.names or ()}

    return Batch(
        take_obs("obs"), take(layout, "action"), take(layout, "reward"), take(layout, "discount"), take_obs("next_obs")
    )
