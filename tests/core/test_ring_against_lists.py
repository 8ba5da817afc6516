"""The ring against plain lists of rows, whatever is done with it."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core import ring_file
from core.replay import Sampler
from core.ring import Ring, Word
from core.types import ActionSpec, EnvSpec, FieldSpec, Recording, Rows
from tests.core.known_rows import die_in_mid_step


class RingAgainstLists(RuleBasedStateMachine):
    """One list per lane, in which a row's place is its index, says what every copy must be."""

    @initialize(
        num_lanes=st.integers(1, 4),
        num_agents=st.integers(1, 3),
        spare=st.integers(0, 200),
        obs=st.lists(st.sampled_from([((), "float32"), ((3,), "uint8"), ((2, 2), "float64")]), min_size=1, max_size=3),
    )
    def create(self, num_lanes: int, num_agents: int, spare: int, obs: list[tuple[tuple[int, ...], str]]) -> None:
        fields = {f"field{i}": FieldSpec(shape, dtype) for i, (shape, dtype) in enumerate(obs)}
        self.opened = contextlib.ExitStack()
        self.spec = EnvSpec(fields, ActionSpec((-1.0,), (1.0,)), num_agents)
        self.ring = Ring.create(self.spec, Recording(), num_lanes, 8 * num_agents * num_lanes + spare)
        self.lists: list[list[bytes]] = [[] for _ in range(num_lanes)]
        self.claimed = [0] * num_lanes
        self.epoch = [1] * num_lanes
        self.writers = [self.ring.writer(lane, 1) for lane in range(num_lanes)]

    @rule(lane=st.integers(0, 3), k=st.integers(0, 200), seed=st.integers(0, 2**32))
    def append(self, lane: int, k: int, seed: int) -> None:
        lane, k = lane % self.ring.num_lanes, k % (self.ring.capacity // 2 + 1)
        rows: Rows = np.zeros(k, self.ring.layout)
        rows.view("u1")[:] = np.random.default_rng(seed).integers(0, 256, rows.nbytes, np.uint8)
        rows["agent"] = lane
        self.writers[lane].append(rows)
        start = len(self.lists[lane])
        for i, row in enumerate(rows):
            row["index"], row["epoch"] = start + i, self.epoch[lane]
            self.lists[lane].append(row.tobytes())
        self.claimed[lane] = max(self.claimed[lane], start + k)

    @rule(lane=st.integers(0, 3), k=st.integers(1, 200), written=st.integers(0, 200))
    def die(self, lane: int, k: int, written: int) -> None:
        """The writer, in mid-step."""
        lane, k = lane % self.ring.num_lanes, 1 + k % (self.ring.capacity // 2)
        die_in_mid_step(self.ring, lane, self.epoch[lane], k, min(written, k))
        self.claimed[lane] = max(self.claimed[lane], len(self.lists[lane]) + k)
        self.take_over(lane)

    @rule(lane=st.integers(0, 3))
    def take_over(self, lane: int) -> None:
        """Between two steps. The new writer is in another process, as far as memory is concerned."""
        lane %= self.ring.num_lanes
        self.epoch[lane] += 1
        attached = self.opened.enter_context(Ring.attach(self.ring.address, self.spec))
        self.writers[lane] = attached.writer(lane, self.epoch[lane])

    @rule()
    def save_and_go_on_elsewhere(self) -> None:
        old = self.ring
        self.ring = Ring.create(self.spec, Recording(), old.num_lanes, old.num_lanes * old.capacity)
        with tempfile.TemporaryDirectory() as directory:
            ring_file.save(old, Path(directory))
            ring_file.load(self.ring, Path(directory))
        assert self.ring.load(Word.LIVES).tolist() == [epoch + 1 for epoch in self.epoch]
        old.close()
        for lane in range(self.ring.num_lanes):
            self.take_over(lane)

    @precondition(lambda self: any(self.lists))
    @rule(batch_size=st.integers(1, 300), seed=st.integers(0, 1000))
    def sample(self, batch_size: int, seed: int) -> None:
        sampler = Sampler(self.ring, batch_size, seed)
        for row in sampler.sample():
            lane, index = int(row["agent"]), int(row["index"])
            assert self.claimed[lane] - self.ring.capacity <= index < len(self.lists[lane])
            assert row.tobytes() == self.lists[lane][index]
        assert sampler.num_lapped == 0
        assert sampler.age() >= 1

    @precondition(lambda self: not any(self.lists))
    @rule()
    def sample_nothing(self) -> None:
        with pytest.raises(ValueError, match="the ring is empty"):
            Sampler(self.ring, 4, 0).sample()

    @invariant()
    def words_say_what_happened(self) -> None:
        assert self.ring.load(Word.CLAIMED).tolist() == self.claimed
        assert self.ring.load(Word.PUBLISHED).tolist() == [len(rows) for rows in self.lists]

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.opened.close()
            self.ring.close()


TestRingAgainstLists = RingAgainstLists.TestCase
TestRingAgainstLists.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
