"""Each of the ring's promises by itself."""

from __future__ import annotations

import dataclasses
import os
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from core.replay import Sampler
from core.ring import FOREVER, Ring, Word, _block, ring_size
from core.shm import Segment
from core.types import IntArray, Recording
from tests.core.known_rows import Busy, die_in_mid_step, known, spec, torn


def full_ring(capacity: int = 256, laps: int = 3) -> Ring:
    """One lane of known rows."""
    ring = Ring.create(spec(), Recording(), 1, capacity)
    writer = ring.writer(0, 1)
    for start in range(0, laps * capacity, 8):
        writer.append(known(ring.layout, 8, start))
    return ring


def test_a_row_overwritten_during_the_copy_is_drawn_again() -> None:
    with full_ring() as ring:
        writer, sampler = ring.writer(0, 2), Sampler(ring, 500, seed=0)
        steps = iter([120, 60, 8])
        Busy(sampler, lambda: writer.append(known(ring.layout, next(steps, 0), writer.published)))
        rows = sampler.sample()
        assert sampler.num_lapped > 200
        assert not torn(rows).any()


def test_a_row_that_a_writer_has_begun_to_overwrite_is_drawn_again() -> None:
    with full_ring() as ring:
        sampler, dead = Sampler(ring, 500, seed=0), list[bool]()

        def begin() -> None:
            if not dead:
                die_in_mid_step(ring, 0, epoch=2, k=100, written=70)
                dead.append(True)

        Busy(sampler, begin)
        rows = sampler.sample()
        assert sampler.num_lapped > 100
        assert not torn(rows).any()


def test_a_row_that_was_found_whole_is_kept_while_others_are_drawn_again() -> None:
    with full_ring() as ring:
        writer, sampler = ring.writer(0, 2), Sampler(ring, 500, seed=0)
        kept: list[IntArray] = []

        def lap() -> None:
            if len(kept) < 2:
                kept.append(sampler.gather.rows["index"].copy())
                writer.append(known(ring.layout, 128, writer.published))

        Busy(sampler, lap)
        rows = sampler.sample()
        end = 3 * ring.capacity  # at the first copy, in which the oldest 128 rows became the 128 after `end`
        whole = (kept[1] >= end - 128) & (kept[1] < end)
        assert 100 < whole.sum() < 400
        assert np.array_equal(rows["index"][whole], kept[1][whole])


def test_a_reader_that_is_held_up_between_two_words_draws_what_is_there_now(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_ring() as ring:
        writer, load, held_up = ring.writer(0, 2), ring.load, [False]

        def load_slowly(word: Word) -> IntArray:
            value = load(word)
            if not held_up[0]:
                held_up[0] = True
                for _ in range(100):
                    writer.append(known(ring.layout, 8, writer.published))
            return value

        sampler = Sampler(ring, 300, seed=0)
        monkeypatch.setattr(ring, "load", load_slowly)
        rows = sampler.sample()
        assert held_up[0] and not torn(rows).any()
        assert rows["index"].min() >= ring.load(Word.CLAIMED)[0] - ring.capacity


def test_rows_that_a_dead_writer_had_claimed_are_never_drawn_again() -> None:
    with full_ring() as ring:
        die_in_mid_step(ring, 0, epoch=2, k=20, written=20)
        writer = ring.writer(0, 3)
        for _ in range(30):
            writer.append(known(ring.layout, 1, writer.published))
            assert not torn(Sampler(ring, 2000, seed=writer.published).sample()).any()


def test_every_row_of_the_window_is_drawn_equally_often() -> None:
    with Ring.create(spec(), Recording(), 3, 3 * 256) as ring:
        for lane, count in ((0, 700), (2, 100)):  # one lapped lane, one without a row, one begun
            writer = ring.writer(lane, 1)
            for start in range(0, count, 4):
                writer.append(known(ring.layout, 4, start))
        sampler = Sampler(ring, 512, seed=7)
        counts = np.zeros((3, 700))
        for _ in range(300):
            sampler.sample()
            np.add.at(counts, sampler._drawn, 1)
        guard = 256 // 64
        window = [*counts[0, 700 - 256 + guard :], *counts[2, :100]]
        assert sum(window) == counts.sum() == 300 * 512
        expected = sum(window) / len(window)
        chi2 = sum((count - expected) ** 2 / expected for count in window)
        freedom = len(window) - 1
        assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


def test_the_same_seed_draws_the_same_rows() -> None:
    with full_ring() as ring:
        one, same, other = (Sampler(ring, 64, seed).sample()["index"] for seed in (1, 1, 2))
        assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_too_small_a_capacity_is_refused_with_both_numbers() -> None:
    told = r"--algo.capacity 191; it must be at least 192 agent steps for 2 lane\(s\) of 12 agents"
    with pytest.raises(ValueError, match=told):
        Ring.create(spec(num_agents=12), Recording(), 2, 191)


@pytest.mark.parametrize("n_step", [1, 4, 5, 20])
def test_the_least_capacity_takes_all_windows_that_may_end_at_once(n_step: int) -> None:
    told = f"with --algo.n-step {n_step}" if n_step > 1 else "12 agents$"
    with pytest.raises(ValueError, match=told) as refusal:
        Ring.create(spec(num_agents=12), Recording(n_step=n_step), 2, 1)
    least = int(str(refusal.value).partition("at least ")[2].split()[0])
    with Ring.create(spec(num_agents=12), Recording(n_step=n_step), 2, least) as ring:
        ring.writer(1, 1).append(known(ring.layout, 12 * n_step))


def test_a_step_of_more_rows_than_half_a_lane_is_refused() -> None:
    with full_ring(capacity=16) as ring, pytest.raises(AssertionError, match=r"9 rows in one step .* 16"):
        ring.writer(0, 1).append(known(ring.layout, 9))


def test_attaching_with_another_spec_or_size_or_recording_is_refused() -> None:
    with Ring.create(spec(8), Recording(), 2, 64) as ring:
        others: list[dict[str, Any]] = [{"num_lanes": 1}, {"capacity": 31}, {"recording": Recording(ordered=True)}]
        for other in (dataclasses.replace(ring.address, **each) for each in others):
            with pytest.raises(ValueError, match="another layout"):
                Ring.attach(other, spec(8))
        with pytest.raises(ValueError, match="another layout"):
            Ring.attach(ring.address, spec(9))


@pytest.mark.parametrize("recording", [Recording(), Recording(ordered=True), Recording(length=8, stride=4)])
def test_a_rings_size_is_known_before_it_is_made(recording: Recording) -> None:
    with Ring.create(spec(), recording, 2, 1000) as ring:
        assert os.stat(ring.address.segment).st_size == ring_size(spec(), recording, 2, 1000)


def test_who_attached_to_read_cannot_write() -> None:
    with full_ring() as ring:
        reader = Segment.attach(ring.address.segment, _block(spec(), Recording(), ring.num_lanes, ring.capacity))
        for name in ("words", "rows"):
            with pytest.raises(ValueError, match="read-only"):
                reader[name][0, 0] = reader[name][0, 1]
        reader.close()


def test_a_writer_goes_on_until_what_its_lane_is_allowed() -> None:
    with Ring.create(spec(), Recording(), 2, 64) as ring:
        writers = [ring.writer(lane, 1) for lane in range(2)]
        assert not any(writer.may_go_on() for writer in writers)
        ring.allow(np.array([4, 3]))
        for writer in writers:
            writer.append(known(ring.layout, 5))
            assert writer.may_go_on(), "decisions count, not rows"
            writer.decided(3)
        assert [writer.may_go_on() for writer in writers] == [True, False]
        ring.allow(FOREVER)
        assert all(writer.may_go_on() for writer in writers)


def test_words_reach_who_reads_them() -> None:
    with Ring.create(spec(), Recording(), 2, 64) as ring:
        worker = Ring.attach(ring.address, spec())
        writer = worker.writer(1, 1)
        for _ in range(3):
            writer.count(Word.STEPS)
        writer.count(Word.WAITED_NS, 500)
        assert ring.load(Word.STEPS).tolist() == [0, 3] and ring.load(Word.WAITED_NS).tolist() == [0, 500]
        assert not worker.load(Word.STOP).any()
        ring.stop()
        assert worker.load(Word.STOP).all()


def test_spare_lanes_take_no_memory_until_they_are_added() -> None:
    with Ring.create(spec(), Recording(), 1, 100_000, spare=7) as ring:
        used = [os.stat(ring.address.segment).st_blocks * 512]
        one = 100_000 * ring.layout.itemsize
        for lane in (1, 2):
            ring.add_lane(lane)
            ring.add_lane(lane)  # once more changes nothing
            used.append(os.stat(ring.address.segment).st_blocks * 512)
        assert one <= used[0] < 1.1 * one
        assert [after - before for before, after in pairwise(used)] == pytest.approx([one, one], rel=0.01)


def test_a_lane_for_which_there_is_no_memory_is_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ring.create(spec(), Recording(), 1, 100_000, spare=1) as ring:
        monkeypatch.setattr("core.shm.free_memory", lambda: 2**20)
        with pytest.raises(MemoryError, match=r"next lane needs 0\.0\d GiB and 0\.00 GiB are free"):
            ring.add_lane(1)
