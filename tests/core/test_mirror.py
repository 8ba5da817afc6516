"""A ring's mirror against the plain gathering of its rows: same seed, same batches; and what is copied, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import core.mirror
from core.mirror import Mirror
from core.prioritized import Prioritization, make_sampler
from core.ratio import ReplayRatio
from core.replay import Replay, Sampler
from core.ring import Ring, Word
from core.types import ActionSpec, Batch, EnvSpec, FieldSpec, IntArray, Recording, Rows
from tests.core.bus import META, take_the_bus
from tests.core.known_rows import die_in_mid_step, known, spec, torn
from tests.stress.writer import Job, writing

BATCH = 32
CPU = torch.device("cpu")
HOW = Prioritization(alpha=0.7, beta=0.5, beta_steps=1000)
SPEC = EnvSpec(
    {"image": FieldSpec((3, 2), "uint8"), "x": FieldSpec((3,))}, ActionSpec((-1.0,), (1.0,), branches=(3,)), 1
)
RECORDINGS = [Recording(), Recording(priority=True), Recording(length=3, stride=2, state_dim=4)]


def same(one: Batch, other: Batch) -> bool:
    for name, value in vars(one).items():
        its = getattr(other, name)
        pairs = [(value[key], its[key]) for key in value] if isinstance(value, dict) else [(value, its)]
        for a, b in pairs:
            # as bytes: a row of any bytes holds numbers that are none
            if not (a.numpy().tobytes() == b.numpy().tobytes() if isinstance(a, torch.Tensor) else a == b):
                return False
    return True


class MirroredAgainstPlain(RuleBasedStateMachine):
    """Two samplers of one ring, with one seed, must draw the same, whatever was written between the draws."""

    @initialize(
        recording=st.sampled_from(RECORDINGS),
        num_lanes=st.integers(1, 3),
        extra=st.integers(0, 100),
        how=st.sampled_from([None, HOW]),
        at_once=st.sampled_from([1, 500, 10**6]),
    )
    def create(
        self, recording: Recording, num_lanes: int, extra: int, how: Prioritization | None, at_once: int
    ) -> None:
        self.opened = contextlib.ExitStack()
        self.opened.enter_context(pytest.MonkeyPatch.context()).setattr(core.mirror, "_AT_ONCE", at_once)
        steps = (16 * recording.stride) * num_lanes + extra
        self.ring = self.opened.enter_context(Ring.create(SPEC, recording, num_lanes, steps, spare=2))
        self.in_use = num_lanes
        self.plain = make_sampler(self.ring, BATCH, 7, how)
        self.mirrored = make_sampler(self.ring, BATCH, 7, how, Mirror(self.ring, BATCH, CPU))

    @rule(lane=st.integers(0, 4), epoch=st.integers(0, 5), steps=st.integers(1, 12), seed=st.integers(0, 2**32))
    def write(self, lane: int, epoch: int, steps: int, seed: int) -> None:
        """Any bytes, up to several laps of the lane, by somebody who takes it over."""
        random = np.random.default_rng(seed)
        writer = self.ring.writer(lane % self.in_use, epoch)
        for _ in range(steps):
            rows: Rows = np.zeros(random.integers(1, 9), self.ring.layout)
            rows.view("u1")[:] = random.integers(0, 256, rows.nbytes, np.uint8)
            if self.ring.recording.priority:
                rows["priority"] = random.exponential(size=len(rows))
            writer.append(rows)
            writer.decided(len(rows))

    @rule(lane=st.integers(0, 4), k=st.integers(1, 8))
    def die(self, lane: int, k: int) -> None:
        """A writer, in the middle of a step."""
        die_in_mid_step(self.ring, lane % self.in_use, 1, k, k)

    @precondition(lambda self: self.in_use < self.ring.num_lanes)
    @rule()
    def add_a_lane(self) -> None:
        self.ring.add_lane(self.in_use)
        self.ring.wanted[self.in_use] = True
        self.in_use += 1

    @precondition(lambda self: self.ring.load(Word.PUBLISHED).any())
    @rule(seed=st.integers(0, 2**32))
    def draw(self, seed: int) -> None:
        assert self.plain.sample().tobytes() == self.mirrored.sample().tobytes()
        assert same(self.plain.batch(CPU), self.mirrored.batch(CPU))
        assert self.plain.age() == self.mirrored.age()
        td_error = torch.from_numpy(np.random.default_rng(seed).exponential(3, BATCH).astype(np.float32))
        for each in (self.plain, self.mirrored):
            each.learned(td_error)

    def teardown(self) -> None:
        if hasattr(self, "opened"):
            self.opened.close()


TestMirroredAgainstPlain = MirroredAgainstPlain.TestCase
TestMirroredAgainstPlain.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def lane_of(count: int, capacity: int = 256) -> Ring:
    """One lane of known rows."""
    ring = Ring.create(spec(), Recording(), 1, capacity)
    for start in range(0, count, 8):
        ring.writer(0, 1).append(known(ring.layout, 8, start))
    return ring


def mirrored(ring: Ring, seed: int = 0) -> tuple[Sampler, Mirror]:
    mirror = Mirror(ring, BATCH, CPU)
    return Sampler(ring, BATCH, seed, mirror), mirror


def before_each_copy(mirror: Mirror, act: Callable[[int], object], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each copy has, by then and from then on; `act` is told how many copies there were."""
    counts: list[int] = []
    copy = mirror._newest.copy

    def copy_late(lane: IntArray, index: IntArray, where: slice) -> None:
        act(len(counts))
        counts.append(len(index))
        copy(lane, index, where)

    monkeypatch.setattr(mirror._newest, "copy", copy_late)
    return counts


def test_each_row_is_copied_once_however_often_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    with lane_of(100) as ring:
        sampler, mirror = mirrored(ring)
        counts = before_each_copy(mirror, lambda _: None, monkeypatch)
        for _ in range(5):
            sampler.draw()
        ring.writer(0, 2).append(known(ring.layout, 3, ring.words[0, Word.PUBLISHED]))
        for _ in range(5):
            sampler.draw()
        assert counts == [104, 3]


def test_rows_that_were_overwritten_while_they_were_copied_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.mirror, "_AT_ONCE", 20 * 96)  # rows of 32 + 8 * 8 bytes
    with lane_of(256) as ring:
        sampler, mirror = mirrored(ring)
        writer = ring.writer(0, 2)

        def write(copies: int) -> None:
            if copies == 6:  # of 13: the first 120 rows were copied, and 200 places are written anew
                for _ in range(25):
                    writer.append(known(ring.layout, 8, writer.published))

        before_each_copy(mirror, write, monkeypatch)
        drawn = set()
        for number in range(40):
            rows = sampler.sample()
            assert not torn(rows).any()
            drawn |= set(rows["index"].tolist())
            if not number:
                assert rows["index"].min() >= 200 and rows["index"].max() < 256
        assert max(drawn) >= 256


def test_a_learner_that_is_held_up_for_laps_while_it_copies_draws_what_is_there_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with lane_of(256) as ring:
        sampler, mirror = mirrored(ring)
        writer = ring.writer(0, 2)

        def lap(copies: int) -> None:
            for _ in range(40 if copies < 2 else 0):
                writer.append(known(ring.layout, 8, writer.published))

        before_each_copy(mirror, lap, monkeypatch)
        rows = sampler.sample()
        assert not torn(rows).any() and rows["index"].min() >= 256 + 2 * 320 - 256


def test_a_lane_that_was_lapped_while_it_was_copied_is_left_out_until_the_next_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Ring.create(spec(), Recording(), 2, 512) as ring:
        for lane in range(2):
            ring.writer(lane, 1).append(known(ring.layout, 100))
        sampler, mirror = mirrored(ring)
        writer = ring.writer(0, 2)

        def lap(copies: int) -> None:
            for _ in range(0 if copies else 80):
                writer.append(known(ring.layout, 8, writer.published))

        before_each_copy(mirror, lap, monkeypatch)
        lanes = []
        for _ in range(2):
            assert not torn(sampler.sample()).any()
            lanes.append(set(sampler._drawn[0].tolist()))
        assert lanes == [{1}, {0, 1}]


def test_a_learner_that_is_held_up_between_two_words_copies_no_more_than_a_ring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with lane_of(256) as ring:
        sampler, mirror = mirrored(ring)
        writer, load, words = ring.writer(0, 2), ring.load, list[Word]()

        def load_slowly(word: Word) -> IntArray:
            value = load(word)
            words.append(word)
            for _ in range(100 if len(words) == 1 else 0):
                writer.append(known(ring.layout, 8, writer.published))
            return value

        counts = before_each_copy(mirror, lambda _: None, monkeypatch)
        monkeypatch.setattr(ring, "load", load_slowly)
        assert not torn(sampler.sample()).any()
        assert words[:2] == [Word.CLAIMED, Word.PUBLISHED] and counts == [256]


def test_beside_a_process_that_laps_the_ring_no_row_is_torn() -> None:
    width, k, capacity = 120, 31, 127
    with Ring.create(spec(width), Recording(), 1, capacity) as ring, writing(Job(ring.address, width, k)):
        sampler, _ = mirrored(ring)
        while ring.load(Word.PUBLISHED)[0] < 2 * capacity:
            pass
        newest = 0
        for _ in range(2000):
            rows = sampler.sample()
            assert not torn(rows).any()
            newest = max(newest, int(rows["index"].max()))
        assert newest > 3 * capacity


def test_the_batch_of_a_replay_from_a_mirror_is_always_the_last_sample() -> None:
    with lane_of(200) as ring:
        ring.writer(0, 1).decided(200)
        sampler, mirror = mirrored(ring)
        replay = Replay(ring, sampler, ReplayRatio(100.0, BATCH, 0), CPU)
        before: Rows | None = None
        for update in range(3):
            batch = replay.next(update)
            assert batch is not None and np.array_equal(batch.obs["x"], mirror.rows["obs"]["x"])
            assert batch.agent_steps == 200 and torch.equal(batch.weight, torch.ones(BATCH))
            assert before is None or not np.array_equal(before["index"], mirror.rows["index"])
            before = mirror.rows.copy()


def test_what_is_on_its_way_to_a_mirror_on_a_gpu_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    with lane_of(200) as ring:
        mirror = Mirror(ring, BATCH, META)
        numbers = (mirror._newest_slots._outbox, mirror._slots._outbox)
        buses = take_the_bus(mirror._newest._outbox, *numbers, mirror._weights, monkeypatch=monkeypatch)
        sampler = make_sampler(ring, BATCH, 0, HOW, mirror)
        for number in range(4):
            sampler.draw()
            batch = sampler.batch(META)
            assert batch.reward.is_meta and batch.weight.is_meta and batch.obs["x"].shape == (BATCH, 8)
            sampler.learned(torch.linspace(0, 3, BATCH))
            if number % 2:
                ring.writer(0, 2).append(known(ring.layout, 8, ring.words.item(0, Word.PUBLISHED)))
        assert [each.num_sent for each in buses] == [2, 2, 4, 4], "rows only when there are new ones"


def test_a_mirror_of_an_empty_ring_says_so() -> None:
    with Ring.create(spec(), Recording(), 2, 64) as ring, pytest.raises(ValueError, match="the ring is empty"):
        mirrored(ring)[0].draw()


def test_too_little_memory_is_refused_with_both_numbers_also_for_a_lane_that_is_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Ring.create(spec(), Recording(), 1, 100_000, spare=1) as ring:
        told = r"mirror on cpu needs {} MiB and {} MiB are free there; a smaller --algo\.capacity"
        monkeypatch.setattr(core.mirror, "free_memory", lambda: 5 * 2**20)
        with pytest.raises(MemoryError, match=told.format(9, 5)):
            Mirror(ring, BATCH, CPU)
        monkeypatch.setattr(core.mirror, "free_memory", lambda: 10 * 2**20)
        mirror = Mirror(ring, BATCH, CPU)
        with pytest.raises(MemoryError, match=told.format(18, 10)):
            ring.add_lane(1)
        assert len(mirror._rows) == 100_000


def test_stacked_frames_are_refused_by_the_options_name() -> None:
    stacked = EnvSpec({"image": FieldSpec((4, 2, 2), "uint8", stack=4)}, ActionSpec((-1.0,), (1.0,)), 1)
    with Ring.create(stacked, Recording(), 1, 64) as ring, pytest.raises(ValueError, match="--replay-device cpu; "):
        Mirror(ring, BATCH, CPU)
