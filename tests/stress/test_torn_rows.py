"""Torn rows, between real processes: none is accepted, and every way of breaking the protocol is caught.

Rows whose every field is a function of their index are written at full speed into a ring so small that it is lapped
thousands of times a second, and sampled all the while.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

import core.atomic
import core.atomic_numba
import core.gather
import core.replay
import core.ring
from core.gather import ALL, Gather, Where
from core.replay import Sampler
from core.ring import Ring, Word
from core.types import BoolArray, IntArray, Recording
from tests.core.known_rows import spec, torn
from tests.stress.figures import tell
from tests.stress.writer import Job, Kind, Process, writing

SEED = 1
WAIT_S = 100


def wait_for_a_full_ring(ring: Ring) -> None:
    deadline = time.monotonic() + WAIT_S
    while ring.load(Word.PUBLISHED)[0] < 2 * ring.capacity:
        assert time.monotonic() < deadline, "the writer process does not write"
        time.sleep(0.001)


def lap_and_sample(count: int, width: int, capacity: int, k: int, batch_size: int, numba: bool = False) -> None:
    """`count` rows, none of them torn."""
    with Ring.create(spec(width), Recording(), 1, capacity) as ring, writing(Job(ring.address, width, k, numba=numba)):
        wait_for_a_full_ring(ring)
        sampler, accepted, began = Sampler(ring, batch_size, SEED), 0, time.monotonic()
        written, bad = -int(ring.load(Word.PUBLISHED)[0]), 0
        while accepted < count:
            bad += int(torn(sampler.sample()).sum())
            accepted += batch_size
        written += int(ring.load(Word.PUBLISHED)[0])
    tell(
        "A1 rows of a ring that is lapped", began, faults=written // capacity, violations=bad, figure=accepted,
        unit="rows", seed=SEED, drawn_again=round(sampler.num_lapped / (accepted + sampler.num_lapped), 5),
        row_bytes=ring.layout.itemsize, capacity=capacity, k=k, numba=numba,
    )  # fmt: skip
    assert bad == 0
    assert sampler.num_lapped > 0, "nothing was ever overwritten while it was copied: this showed nothing"


def test_no_torn_row_is_accepted_while_a_process_laps_the_ring() -> None:
    lap_and_sample(300_000, width=120, capacity=127, k=31, batch_size=64)


@pytest.mark.slow
def test_of_ten_million_rows_no_torn_one_is_accepted() -> None:
    lap_and_sample(10_000_000, width=8, capacity=512, k=12, batch_size=256)


@pytest.mark.slow
def test_of_large_rows_in_a_tiny_ring_no_torn_one_is_accepted() -> None:
    lap_and_sample(1_000_000, width=250, capacity=63, k=31, batch_size=64)


@pytest.mark.slow
def test_with_the_atomics_of_other_processors_too_no_torn_row_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in core.atomic.__all__:
        monkeypatch.setattr(core.ring, name, getattr(core.atomic_numba, name))
    monkeypatch.setattr(core.gather, "fence_acquire", core.atomic_numba.fence_acquire)
    lap_and_sample(2_000_000, width=8, capacity=512, k=12, batch_size=256, numba=True)


class NeverChecks(Gather):
    """A broken twin: what it copied, it takes for whole."""

    def torn(self, lane: IntArray, index: IntArray, where: Where = ALL) -> BoolArray:
        return np.zeros(len(index), np.bool_)


class ChecksPublished(Gather):
    """A broken twin: it asks how far the writer had got, not how far it had begun."""

    def torn(self, lane: IntArray, index: IntArray, where: Where = ALL) -> BoolArray:
        lapped: BoolArray = index < (self._ring.words[:, Word.PUBLISHED] - self._ring.capacity)[lane]
        return lapped


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reader"),
    [
        ("right", NeverChecks),
        ("right", ChecksPublished),
        ("claims late", Gather),
        ("publishes early", Gather),
    ],
)
def test_every_broken_twin_is_caught(kind: Kind, reader: type[Gather], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.replay, "Gather", reader)
    width, batch_size, most, began = 250, 64, 10_000_000, time.monotonic()
    with Ring.create(spec(width), Recording(), 1, 63) as ring, writing(Job(ring.address, width, k=31, kind=kind)):
        wait_for_a_full_ring(ring)
        sampler, rows = Sampler(ring, batch_size, SEED), 0
        wrong = 0
        while not wrong and rows < most:
            rows += batch_size
            try:
                wrong = int(torn(sampler.sample()).sum())
            except AssertionError as error:  # a row with another index than that which was drawn
                assert "does not carry its own index" in str(error)
                wrong = 1
    name = f"A3 a broken twin: {kind} writer, {reader.__name__}"
    tell(name, began, faults=1, violations=int(not wrong), figure=rows, unit="rows until it is caught", seed=SEED)
    assert wrong > 0


def kill_writers(kills: int) -> None:
    """One after the other, each followed by the next at once; no row is torn, and one step is lost at most."""
    width, k = 250, 31
    random, began = np.random.default_rng(SEED), time.monotonic()
    mid_step, lost, accepted, bad = 0, 0, 0, 0
    with Ring.create(spec(width), Recording(), 1, 256) as ring:
        sampler = Sampler(ring, 256, SEED)
        current = Process(Job(ring.address, width, k, epoch=1))
        successor = Process(Job(ring.address, width, k, epoch=2))
        try:
            current.go()
            wait_for_a_full_ring(ring)
            for epoch in range(1, kills + 1):
                successor.ready()
                end = time.monotonic() + random.uniform(0, 0.01)
                while time.monotonic() < end:
                    bad += int(torn(sampler.sample()).sum())
                    accepted += len(sampler.gather.rows)
                current.kill()
                claimed, published = int(ring.load(Word.CLAIMED)[0]), int(ring.load(Word.PUBLISHED)[0])
                mid_step += claimed != published
                lost = max(lost, claimed - published)
                rest = ring.rows[0][np.arange(claimed - ring.capacity, published) % ring.capacity]
                assert np.array_equal(rest["index"], np.arange(claimed - ring.capacity, published))
                assert not torn(rest).any()
                current, successor = successor, Process(Job(ring.address, width, k, epoch=epoch + 2))
                current.go()
                rows = sampler.sample()
                bad += int(torn(rows).sum())
                accepted += len(rows)
                assert np.array_equal(rows["epoch"] == epoch + 1, rows["index"] >= published)
        finally:
            current.kill()
            successor.kill()
    tell(
        "B1 writers killed", began, faults=kills, violations=bad, figure=round(lost / k, 2), unit="steps lost, at most",
        seed=SEED, in_mid_step=mid_step, rows=accepted,
    )  # fmt: skip
    assert bad == 0 and 0 < lost <= k


@pytest.mark.slow
def test_of_a_writer_killed_in_the_middle_of_a_step_nothing_is_lost_but_that_step() -> None:
    kill_writers(200)
