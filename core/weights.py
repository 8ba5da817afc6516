"""Weights: the policy that the workers act with, published by the learner through shared memory.

The rule of the ring (core/ring.py) with three slots and the learner as the only writer: version v lies in slot v % 3,
is claimed before it is written and published after. A reader that was lapped while it copied keeps what it had and
counts it: the next try is a step away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.atomic import fence_acquire, fence_release, load_acquire, store_release
from core.checkpoint import SavedPolicy
from core.shm import Layout, Segment, size_of
from core.types import FloatArray

_SLOTS = 3
_CLAIMED, _PUBLISHED = 0, 16  # words, 128 bytes apart


@dataclass(frozen=True)
class Published:
    """The policy of a running job as others may follow it: the answer to the order `policy`, as JSON."""

    address: str
    """of its weights"""
    policy: SavedPolicy
    """all but the parameters"""


class Weights:
    """All parameters of one policy, flat, in versions that only go up. Version 0: nothing published yet."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._words = segment["words"]
        self._update = segment["update"]
        self._slots = segment["slots"]

    @classmethod
    def create(cls, size: int) -> Weights:
        """Room for `size` parameters. Raises MemoryError if memory is too small."""
        return cls(Segment.create("weights", _layout(size)))

    @classmethod
    def attach(cls, address: str, size: int) -> Weights:
        """The weights at `address`, to read. Raises as Segment.attach does."""
        return cls(Segment.attach(address, _layout(size)))

    @property
    def address(self) -> str:
        return self._segment.address

    @property
    def version(self) -> int:
        """The newest version."""
        return load_acquire(self._words, _PUBLISHED)

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._segment.close()

    def publish(self, parameters: FloatArray, update: int) -> bool:
        """Make (P,) `parameters`, as they were after `update` updates, the newest version.

        Returns False, and publishes nothing, if one of them is not finite: no worker shall act with such a policy.
        """
        if not np.isfinite(parameters).all():
            return False
        version = self._words.item(_PUBLISHED) + 1
        slot = version % _SLOTS
        store_release(self._words, _CLAIMED, version)
        fence_release()
        self._slots[slot] = parameters
        self._update[slot] = update
        store_release(self._words, _PUBLISHED, version)
        return True


class Follower:
    """One reader's copy of the newest weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._next = np.zeros_like(weights._slots[0])
        self.parameters: FloatArray = np.zeros_like(self._next)
        """(P,) version `version`; the array stays the same, its contents change in fetch()"""
        self.version = 0
        self.update = 0
        """the learner's update count when this version was published"""
        self.num_lapped = 0

    def fetch(self) -> bool:
        """Take the newest version, if there is a newer one. True if `parameters` changed."""
        weights = self._weights
        version = weights.version
        if version == self.version:
            return False
        slot = version % _SLOTS
        self._next[:] = weights._slots[slot]
        update = weights._update.item(slot)
        fence_acquire()
        if load_acquire(weights._words, _CLAIMED) >= version + _SLOTS:
            self.num_lapped += 1
            return False
        self.parameters[:] = self._next
        self.version, self.update = version, update
        return True


def weights_size(size: int) -> int:
    """Bytes that Weights.create() would take for this."""
    return size_of(_layout(size))


def _layout(size: int) -> Layout:
    return {
        "words": (np.int64, (32,)),
        "update": (np.int64, (_SLOTS,)),
        "slots": (np.float32, (_SLOTS, size)),
    }
