"""The learner: is an update due? learn, publish. And the two orders in which learning and collecting go.

`free_running` (async): workers and learner run side by side, as far as the feed allows. `lock_step` (sync, single): one
step of every worker, then the updates that it pays for, then the next; the same seed gives the same weights.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from core.meetings import Meetings
from core.ring import Ring, Word
from core.stopwatch import Stopwatch
from core.types import Algorithm, BoolArray, FloatArray, HasOptimizers, Learned, Skipped
from core.weights import Weights

_SHORTEST_NAP_S, _LONGEST_NAP_S, _LONGER = 0.0001, 0.002, 1.25
"""how long it sleeps when no update is due: a little longer each time, for whoever it waits for may need the core"""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT = 2**30  # bytes


def fit_process() -> None:
    """Make this process fit to learn: numbers too small to matter become zero, and memory that an update gives back is
    kept for the next one instead of being fetched anew, page by page, from the system (glibc only)."""
    torch.set_flush_denormal(True)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT)


class Feed(Protocol):
    """Where experience comes from: Replay (core/replay.py) or InOrder (core/rollout.py)."""

    publish_every: int
    """updates between two publications of the policy"""

    def allow(self, updates: int) -> None:
        """Tell each worker how far it may go."""

    def takes_part(self) -> BoolArray:
        """(lanes,) in lock-step: who makes a step in the next round. Never nobody, while no update is due."""

    def next(self, updates: int) -> Any | None:
        """What to learn from now: a Batch or a Rollout; None if no update is due."""

    def due(self, updates: int) -> int:
        """When one update is due: how many are, one after the other."""

    def begin_at(self, updates: int) -> None:
        """So many were made before; the ring is empty."""

    def learned(self, learned: Learned) -> None:
        """It was learned from."""

    def figures(self, updates: int) -> dict[str, float]:
        """For the progress record."""

    def configure(self, config: Any, updates: int) -> None:
        """The algorithm's options are these from now on."""

    def state_dict(self) -> dict[str, Any]:
        """What comes next depends on this and on the ring."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. The ring has been read back."""


class Phase(IntEnum):
    """What a learner does. On a GPU an update is over before it is done; publishing waits for it."""

    WAIT = 0  # no update is due
    SAMPLE = 1
    UPDATE = 2
    PUBLISH = 3
    CHECKPOINT = 4


class Learner:
    """One algorithm, fed from one ring, publishing its policy."""

    def __init__(
        self,
        algorithm: Algorithm,
        feed: Feed,
        ring: Ring,
        weights: Weights,
        precision: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`precision`: a torch.autocast in which the algorithm learns."""
        self._precision = precision or contextlib.nullcontext()
        self.algorithm = algorithm
        self.feed = feed
        self.ring = ring
        self.updates = 0
        """gradient steps"""
        self.num_refused = 0
        """publications refused because a parameter was not finite"""
        self.skipped = Skipped(0, 0)
        """gradient steps, when the policy was last published"""
        self.metrics: dict[str, Tensor] = {}
        """of the last update; still tensors, for reading one waits for the device"""
        self._sound: dict[str, Tensor] = {}  # of an update that skipped nothing
        self.spent_ns = np.zeros(len(Phase), np.int64)
        """by phase"""
        self.stopwatch = Stopwatch(self.spent_ns)
        self.elsewhere = 0
        """agent steps of the run whose rows have never been in this ring: other learners made them"""
        self.meetings: Meetings | None = None
        """with the other learners, if it is one of several"""
        self._experience: Any = None  # what to learn from next, while others are not so far
        self._nap_s = _SHORTEST_NAP_S
        self.weights = weights
        """where the policy is published"""
        self._published_at = 0
        if algorithm.recording.ordered:  # a row without a policy that made it would be of no use
            self._publish()

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizers, normalisers, counters and what is drawn next. The ring is apart (core/ring_file.py)."""
        return {
            "algorithm": self.algorithm.state_dict(),
            "feed": self.feed.state_dict(),
            "updates": self.updates,
            "elsewhere": self.elsewhere,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the ring has been read back. The workers get the policy at once."""
        self.algorithm.load_state_dict(state["algorithm"])
        self.feed.load_state_dict(state["feed"])
        self.updates, self.elsewhere = state["updates"], state.get("elsewhere", 0)
        torch.set_rng_state(state["torch"])
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        if self.updates or self.algorithm.recording.ordered:
            self._publish()

    def begin_at(self, algorithm: dict[str, Any], updates: int) -> None:
        """Go on from this state of the algorithm, after so many updates, with an empty ring."""
        self.algorithm.load_state_dict(algorithm)
        self.updates = updates
        self.feed.begin_at(updates)
        if updates or self.algorithm.recording.ordered:
            self._publish()

    @property
    def agent_steps(self) -> int:
        """Decisions made so far, over all lanes, and those of other learners."""
        return self.ring.agent_steps + self.elsewhere

    def step(self) -> None:
        """Side by side with the workers: tell each how far it may go, then learn if it is time, else a nap."""
        self.feed.allow(self.updates)
        if self.learn():
            self._nap_s = _SHORTEST_NAP_S
        else:
            self.stopwatch.start()
            time.sleep(self._nap_s)
            self._nap_s = min(self._nap_s * _LONGER, _LONGEST_NAP_S)
            self.stopwatch.lap(Phase.WAIT)

    def learn(self) -> bool:
        """Learn once, if it is time."""
        stopwatch = self.stopwatch
        stopwatch.start()
        experience = self.feed.next(self.updates) if self._experience is None else self._experience
        if self.meetings is not None and not self.meetings.may_learn(experience):
            self._experience = experience
            return experience is not None and not self.meetings.reason  # at once again: it has waited for the others
        if experience is None:
            return False
        self._experience = None
        if self.elsewhere and self.meetings is None:
            experience.agent_steps += self.elsewhere
        stopwatch.lap(Phase.SAMPLE)
        with self._precision:
            learned = self.algorithm.update(experience)
        stopwatch.lap(Phase.UPDATE)
        self.feed.learned(learned)
        stopwatch.lap(Phase.SAMPLE)
        self.metrics = learned.metrics
        self.updates += learned.updates
        if self.updates - self._published_at >= self.feed.publish_every:
            self.publish()
            stopwatch.lap(Phase.PUBLISH)
        return True

    def configure(self, config: Any) -> None:
        """Go on with these options of the algorithm; they differ in changeable fields alone."""
        self.algorithm.config = config
        self.feed.configure(config, self.updates)
        if self._published_at:
            self._publish()

    def publish(self) -> None:
        """Give the workers the policy as it is now, if it changed since the last time."""
        if self._published_at != self.updates:
            self._publish()

    def roll_back(self, algorithm: dict[str, Any]) -> None:
        """Go on with the algorithm's earlier state; the counters, and what is drawn next, stay."""
        self.algorithm.load_state_dict(algorithm)
        self.metrics = self._sound
        self._publish()

    def what_is_not_finite(self) -> str:
        """Which of the last update's losses, and the last finite values."""
        losses = {name: value.item() for name, value in self.metrics.items() if name.endswith("loss")}
        last = {name: f"{self._sound[name].item():.3g}" if name in self._sound else "none" for name in losses}
        bad = [f"{name} (last finite value {last[name]})" for name, value in losses.items() if not math.isfinite(value)]
        return f"{' and '.join(bad) or 'the gradient of ' + ' or '.join(losses)} is not finite"

    def _publish(self) -> None:
        before = self.skipped.total
        if isinstance(self.algorithm, HasOptimizers):  # the parameters are waited for anyway
            skipped = [each.skipped() for each in self.algorithm.optimizers]
            self.skipped = Skipped(sum(each.total for each in skipped), max(each.in_a_row for each in skipped))
        if self.skipped.total == before:
            self._sound = {name: each.clone() for name, each in self.metrics.items()}
        if not self.weights.publish(self.policy(), self.updates):
            self.num_refused += 1
        self._published_at = self.updates

    def policy(self) -> FloatArray:
        """(P,) the policy as it is now; on the CPU a view of parameters that the next update changes."""
        parameters: FloatArray = self.algorithm.policy_parameters().cpu().numpy()
        return parameters


def free_running(learner: Learner, finished: Callable[[], bool], attend: Callable[[], None]) -> None:
    """Workers and learner at once, each as fast as the feed lets it."""
    while not finished():
        attend()
        learner.step()


def lock_step(
    learner: Learner, finished: Callable[[], bool], attend: Callable[[], None], turn: Callable[[], None]
) -> None:
    """In rounds: every lane that takes part makes one step (`turn` waits for that, or does it), then the updates that
    this pays for."""
    while not finished():
        attend()
        goal = learner.ring.load(Word.DECISIONS) + learner.feed.takes_part()
        learner.ring.allow(goal)
        learner.stopwatch.start()
        while ((learner.ring.load(Word.DECISIONS) < goal) & learner.ring.at_work).any():
            turn()
            attend()
        learner.stopwatch.lap(Phase.WAIT)
        while learner.learn():
            attend()
        learner.publish()
