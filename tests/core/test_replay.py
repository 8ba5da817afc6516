"""Replay by priority: what may be drawn, how often, and with what weight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from core.prioritized import Prioritization, PrioritizedSampler, make_sampler
from core.ratio import ReplayRatio
from core.replay import Replay
from core.ring import Ring, Word
from core.types import Batch, Learned, Recording
from tests.core.known_rows import Busy, known, spec, torn
from tests.core.test_priorities_by_row import BATCH, CPU, HOW, priority_of
from tests.stress.writer import Job, writing


def td_errors(*errors: float) -> torch.Tensor:
    return torch.tensor(errors, dtype=torch.float32)


def two_lanes(*counts: int, capacity: int = 256, recording: Recording | None = None) -> Ring:
    """Lanes with so many known rows each; `agent` is the index."""
    ring = Ring.create(spec(), recording or Recording(), len(counts), len(counts) * capacity)
    for lane, count in enumerate(counts):
        for start in range(0, count, 4):
            ring.writer(lane, 1).append(known(ring.layout, 4, start))
    return ring


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_rows_are_drawn_in_proportion_to_their_priorities(alpha: float) -> None:
    with two_lanes(700, 100) as ring:  # one lane was lapped
        sampler, random = PrioritizedSampler(ring, BATCH, 5, Prioritization(alpha)), np.random.default_rng(1)
        priority = np.zeros((2, 700))
        priority[0, 700 - 256 + 4 :] = priority[1, :100] = 1.0
        for _ in range(40):
            sampler.sample()
            errors = random.exponential(2, BATCH).astype(np.float32)
            sampler.learned(torch.from_numpy(errors))
            for lane, index, error in zip(*sampler._drawn, errors.tolist(), strict=True):
                priority[lane, index] = priority_of(error, Prioritization(alpha))
        counts, draws = np.zeros((2, 700)), 2000
        for _ in range(draws):
            sampler.sample()
            np.add.at(counts, sampler._drawn, 1)
        expected = priority / priority.sum() * draws * BATCH
        there = expected > 0
        assert not counts[~there].any()
        # strata only make counts more even than independent draws would be
        chi2 = ((counts[there] - expected[there]) ** 2 / expected[there]).sum()
        freedom = there.sum() - 1
        assert chi2 < freedom + 4 * np.sqrt(2 * freedom)


def test_every_batch_takes_its_part_of_each_stratum() -> None:
    with two_lanes(BATCH) as ring:  # as many rows as a batch, of one priority each
        sampler = PrioritizedSampler(ring, BATCH, 0, HOW)
        assert sorted(sampler.sample()["index"]) == list(range(BATCH))


def test_a_new_row_gets_the_highest_priority_so_far() -> None:
    with two_lanes(8) as ring:
        sampler = PrioritizedSampler(ring, BATCH, 0, HOW)
        sampler.sample()
        sampler.learned(torch.full((BATCH,), 50.0))
        sampler.sample()
        sampler.learned(torch.full((BATCH,), 0.01))
        ring.writer(0, 1).append(known(ring.layout, 1, 8))
        counts = np.bincount(np.concatenate([sampler.sample()["index"] for _ in range(50)]), minlength=9)
        expected = priority_of(50.0) / (priority_of(50.0) + 8 * priority_of(0.01))
        assert counts[8] / counts.sum() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("steps", [0, 250, 1000, 5000])
def test_beta_grows_to_1_in_so_many_agent_steps(steps: int) -> None:
    with two_lanes(16) as ring:
        ring.writer(0, 1).decided(steps)
        sampler = PrioritizedSampler(ring, BATCH, 0, HOW)
        sampler.sample()
        sampler.learned(torch.linspace(0.1, 5, BATCH))
        index = sampler.sample()["index"].copy()
        priority = sampler._tree[np.arange(16)]
        beta = {0: 0.5, 250: 0.625, 1000: 1.0, 5000: 1.0}[steps]
        weight = (16 * priority[index] / priority.sum()) ** -beta
        np.testing.assert_allclose(sampler.batch(CPU).weight, weight / weight.max(), rtol=1e-5)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_an_error_that_is_not_finite_makes_a_row_rare_and_harms_no_other(wrong: float) -> None:
    with two_lanes(BATCH) as ring:
        sampler = PrioritizedSampler(ring, BATCH, 0, HOW)
        index = sampler.sample()["index"].copy()
        sampler.learned(td_errors(wrong, *[1.0] * (BATCH - 1)))
        expected = np.where(np.arange(BATCH) == index[0], priority_of(0.0), priority_of(1.0))
        np.testing.assert_allclose(sampler._tree[np.arange(BATCH)], expected)
        assert np.isfinite(sampler.sample()["index"]).all() and torch.isfinite(sampler.batch(CPU).weight).all()


def test_a_learner_that_is_held_up_for_a_lap_between_drawing_and_copying_draws_what_is_there_now() -> None:
    with two_lanes(256) as ring:
        writer, sampler, laps = ring.writer(0, 2), PrioritizedSampler(ring, BATCH, 0, HOW), [3]

        def lap() -> None:
            laps[0] -= 1
            for _ in range(0, 256 * (laps[0] >= 0), 8):
                writer.append(known(ring.layout, 8, writer.published))

        Busy(sampler, lap)
        rows = sampler.sample()
        assert sampler.num_lapped == 3 * BATCH and not torn(rows).any()
        assert rows["index"].min() >= 3 * 256


def test_rows_overwritten_while_others_were_drawn_again_keep_their_weight_and_leave_no_priority() -> None:
    with two_lanes(256) as ring:
        writer, sampler, steps = ring.writer(0, 2), PrioritizedSampler(ring, BATCH, 0, HOW), [64, 128]

        def write() -> None:
            for _ in range(0, steps.pop(0) if steps else 0, 8):
                writer.append(known(ring.layout, 8, writer.published))

        Busy(sampler, write)
        rows = sampler.sample()
        assert 0 < sampler.num_lapped < BATCH and not torn(rows).any()
        gone = rows["index"] < writer.published - 256
        assert gone.any(), "whole when it was copied, overwritten since"
        weight = sampler.batch(CPU).weight.numpy()
        assert np.isfinite(weight).all() and (weight == 1).all(), "all had the same priority"
        sampler.learned(torch.full((BATCH,), 1000.0))
        tree, places = sampler._tree, rows["index"] % 256
        kept = set(places[~gone].tolist())
        assert all(tree[np.array([place])][0] <= 1.0 for place in places[gone].tolist() if place not in kept)
        assert (tree[places[~gone]] == priority_of(1000.0)).all()


def test_beside_a_process_that_laps_the_ring_no_row_is_torn_and_none_is_drawn_that_was_overwritten() -> None:
    width, k, capacity = 120, 31, 127
    with Ring.create(spec(width), Recording(), 1, capacity) as ring, writing(Job(ring.address, width, k)):
        sampler, random = PrioritizedSampler(ring, BATCH, 0, HOW), np.random.default_rng(0)
        while ring.load(Word.PUBLISHED)[0] < 2 * capacity:
            pass
        for _ in range(2000):
            claimed = int(ring.load(Word.CLAIMED)[0])
            rows = sampler.sample()
            assert not torn(rows).any()
            assert rows["index"].min() >= claimed - capacity
            assert torch.isfinite(sampler.batch(CPU).weight).all()
            sampler.learned(torch.from_numpy(random.exponential(size=BATCH).astype(np.float32)))
        assert sampler.num_lapped > 0, "nothing was ever overwritten while it was copied: this showed nothing"


def test_the_same_seed_draws_the_same_rows_by_priority() -> None:
    with two_lanes(256, 64) as ring:
        drawn = []
        for seed in (1, 1, 2):
            sampler = PrioritizedSampler(ring, BATCH, seed, HOW)
            for number in range(3):
                rows = sampler.sample()
                sampler.learned(torch.arange(BATCH) * (number + 1.0))
            drawn.append(rows["index"].copy())
        assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("lanes", [1, 2, 9])
def test_priorities_are_known_again_where_there_is_room_for_more_lanes_or_for_fewer(lanes: int) -> None:
    with Ring.create(spec(), Recording(), 1, 64, spare=1) as ring:
        ring.writer(0, 0).append(known(ring.layout, 20))
        sampler = PrioritizedSampler(ring, BATCH, 0, HOW)
        sampler.sample()
        sampler.learned(torch.arange(BATCH) + 1.0)
        state = sampler.state_dict()
        with Ring.create(spec(), Recording(), 1, 64, spare=lanes - 1) as later:
            later.writer(0, 0).append(known(ring.layout, 20))
            again = PrioritizedSampler(later, BATCH, 0, HOW)
            again.load_state_dict(state)
            assert np.array_equal(again.sample()["index"], sampler.sample()["index"])


@pytest.mark.parametrize("how", [None, HOW])
def test_nothing_is_sampled_from_an_empty_ring_and_no_update_is_due(how: Prioritization | None) -> None:
    with Ring.create(spec(), Recording(), 2, 64) as ring:
        sampler = make_sampler(ring, BATCH, 0, how)
        with pytest.raises(ValueError, match="the ring is empty"):
            sampler.sample()
        ring.writer(0, 1).decided(1000)  # decisions of which no row is complete
        assert Replay(ring, sampler, ReplayRatio(1.0, BATCH, 0), CPU).next(0) is None


@pytest.mark.parametrize("how", [None, HOW])
def test_the_batch_of_a_replay_on_the_cpu_is_always_the_last_sample(how: Prioritization | None) -> None:
    with two_lanes(256, 64) as ring:
        ring.writer(0, 1).decided(200)
        sampler = make_sampler(ring, BATCH, 0, how)
        replay = Replay(ring, sampler, ReplayRatio(100.0, BATCH, 0), CPU)
        first: npt.NDArray[np.float32] | None = None
        for update in range(3):
            batch = replay.next(update)
            assert isinstance(batch, Batch) and batch.agent_steps == 200
            rows = sampler.gather.rows
            assert np.array_equal(batch.obs["x"], rows["obs"]["x"]) and np.array_equal(batch.reward, rows["reward"])
            assert batch.weight.shape == (BATCH,) and batch.weight.dtype == torch.float32
            assert first is None or not np.array_equal(batch.reward, first)
            first = batch.reward.numpy().copy()
            replay.learned(Learned({}, torch.linspace(0, 3, BATCH)))
            fresh = sampler.batch(CPU)
            assert torch.equal(fresh.weight, batch.weight)
