"""Replay by priority against a dictionary of priorities, whatever is written, lost and learned meanwhile."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.prioritized import Prioritization, PrioritizedSampler
from core.ring import Ring
from core.types import Recording, Rows
from tests.core.known_rows import die_in_mid_step, spec

BATCH = 64
CPU = torch.device("cpu")
HOW = Prioritization(alpha=0.7, beta=0.5, beta_steps=1000)


def priority_of(error: float, how: Prioritization = HOW) -> float:
    """p = (|delta| + epsilon)^alpha (Schaul et al. 2016, section 3.3)."""
    return float((abs(error) + 1e-6) ** how.alpha)


class PrioritiesByRow(RuleBasedStateMachine):
    """A dictionary from (lane, index) to priority says what the sampler must know after each look at the ring."""

    @initialize(num_lanes=st.integers(1, 3), spare=st.integers(0, 100), from_workers=st.booleans())
    def create(self, num_lanes: int, spare: int, from_workers: bool) -> None:
        self.from_workers = from_workers
        self.ring = Ring.create(spec(1), Recording(priority=from_workers), num_lanes, 16 * num_lanes + spare)
        self.guard = self.ring.capacity // 64
        self.sampler = PrioritizedSampler(self.ring, BATCH, 0, HOW)
        self.written: list[list[float]] = [[] for _ in range(num_lanes)]
        """of each row of a lane: what its worker thinks of it"""
        self.claimed = [0] * num_lanes
        self.seen = [0] * num_lanes
        """rows of a lane that the sampler has looked at"""
        self.known: dict[tuple[int, int], float] = {}
        self.highest = 1.0
        self.drawn: list[tuple[int, int]] = []

    @rule(lane=st.integers(0, 2), steps=st.integers(1, 12), k=st.integers(1, 8), seed=st.integers(0, 2**32))
    def write(self, lane: int, steps: int, k: int, seed: int) -> None:
        """Up to several laps of the lane."""
        lane, random = lane % self.ring.num_lanes, np.random.default_rng(seed)
        writer = self.ring.writer(lane, 1)
        for _ in range(steps):
            rows: Rows = np.zeros(k, self.ring.layout)
            rows["agent"] = lane
            thinks = random.exponential(size=k).astype(np.float32)
            if self.from_workers:
                rows["priority"] = thinks
            writer.append(rows)
            writer.decided(k)
            self.written[lane] += thinks.tolist()
        self.claimed[lane] = max(self.claimed[lane], len(self.written[lane]))

    @rule(lane=st.integers(0, 2), k=st.integers(1, 8))
    def die(self, lane: int, k: int) -> None:
        """A writer, in the middle of a step."""
        lane %= self.ring.num_lanes
        die_in_mid_step(self.ring, lane, 1, k, 0)
        self.claimed[lane] = max(self.claimed[lane], len(self.written[lane]) + k)

    @precondition(lambda self: any(self.written))
    @rule()
    def sample(self) -> None:
        rows = self.sampler.sample()
        self.look()
        self.drawn = [(int(row["agent"]), int(row["index"])) for row in rows]
        assert set(self.drawn) <= set(self.known), "only what is there, and will be for a while"
        now = min(sum(map(len, self.written)) / HOW.beta_steps, 1.0)
        beta = HOW.beta + (1 - HOW.beta) * now
        total = sum(self.known.values())
        weights = [(len(self.known) * self.known[row] / total) ** -beta for row in self.drawn]
        batch = self.sampler.batch(CPU)
        np.testing.assert_allclose(batch.weight, np.array(weights) / max(weights), rtol=1e-5)

    @precondition(lambda self: self.drawn)
    @rule(seed=st.integers(0, 2**32))
    def learn(self, seed: int) -> None:
        """From what was sampled, whatever was written since."""
        errors = np.random.default_rng(seed).exponential(3, BATCH).astype(np.float32)
        self.sampler.learned(torch.from_numpy(errors))
        for row, error in zip(self.drawn, errors.tolist(), strict=True):
            self.known[row] = priority_of(error)
        self.highest = max(self.highest, priority_of(float(errors.max())))

    def look(self) -> None:
        for lane, worker_thinks in enumerate(self.written):
            oldest = max(self.claimed[lane] - (self.ring.capacity - self.guard), 0)
            fresh = range(max(self.seen[lane], oldest), len(worker_thinks))
            for index in fresh:
                self.known[lane, index] = priority_of(worker_thinks[index]) if self.from_workers else self.highest
            self.seen[lane] = len(worker_thinks)
            for index in [index for each, index in self.known if each == lane and index < oldest]:
                del self.known[lane, index]

    @invariant()
    def the_tree_has_the_priorities_of_the_rows_and_nothing_else(self) -> None:
        if not hasattr(self, "ring") or not any(self.seen):
            return
        self.sampler._keep_up()
        self.look()
        slots = np.zeros((self.ring.num_lanes, self.ring.capacity))
        for (lane, index), priority in self.known.items():
            slots[lane, index % self.ring.capacity] = priority
        np.testing.assert_allclose(self.sampler._tree[np.arange(slots.size)], slots.ravel(), rtol=1e-6)

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()


TestPrioritiesByRow = PrioritiesByRow.TestCase
TestPrioritiesByRow.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
