"""Rows and the frames that they name, from workers' agents through a ring to a batch, against what the agents saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from core.gather import Gather
from core.replay import Sampler
from core.ring import Ring, Word
from core.types import Batch, IntArray, Recording
from envproc.accumulator import Accumulator
from envproc.frames import Frames
from envproc.sequences import Sequences
from tests.core.bus import META, take_the_bus
from tests.envproc.scripted import DECIDES, EVENTS, STATE_DIM, Event, Scripted, script

CPU = torch.device("cpu")
NUM_AGENTS, NUM_LANES = 3, 2
RECORDINGS = [
    Recording(0.5, n_step=1),
    Recording(0.5, n_step=3, ordered=True),
    Recording(0.5, length=5, stride=5, state_dim=STATE_DIM),
    Recording(0.5, length=7, stride=3, state_dim=STATE_DIM),
]


class Lane:
    """One worker's agents, and all rows that they wrote into its lane, as they were written."""

    def __init__(self, ring: Ring, lane: int, stack: int) -> None:
        self.agents = Scripted(NUM_AGENTS, stack)
        self.rows: list[Any] = []
        self.num_looks = NUM_AGENTS
        self._writer = ring.writer(lane, epoch=1)
        self._accumulator = (Sequences if ring.recording.length else Accumulator)(ring.spec, ring.recording)
        self._frames = Frames(ring.spec, self._writer)
        self._recorded = self._frames.record(self.agents.step)

    def turn(self, events: list[Event]) -> None:
        """As a worker does it."""
        self._accumulator.decide(self._recorded.agent, self._recorded.obs, self.agents.decide())
        self._accumulator.drop(self.agents.forced(events))
        step = self.agents.play(events)
        self.num_looks += len(step.agent) + len(step.ended.agent)
        self._recorded = self._frames.record(step)
        rows = self._accumulator.observe(self._recorded)
        self._writer.append(rows)
        self.rows += list(rows.copy())

    def images(self, sights: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """(..., stack, 2, 2) what came with these (..., 4) sights."""
        found = [self.agents.seen[tuple(int(each) for each in sight)] for sight in sights.reshape(-1, 4)]
        return np.array(found).reshape(*sights.shape[:-1], *found[0].shape)


def lanes_of(ring: Ring, stack: int) -> list[Lane]:
    return [Lane(ring, lane, stack) for lane in range(NUM_LANES)]


def create(recording: Recording, stack: int, capacity: int = 0) -> Ring:
    least = 8 * NUM_AGENTS * NUM_LANES * recording.stride
    return Ring.create(Scripted(NUM_AGENTS, stack).spec, recording, NUM_LANES, capacity or least)


def intact(ring: Ring) -> tuple[IntArray, IntArray]:
    """Lane and index of each row that the ring holds."""
    ends = ring.load(Word.PUBLISHED).tolist()
    held = [np.arange(max(end - ring.capacity, 0), end) for end in ends]
    return np.repeat(np.arange(ring.num_lanes), [len(each) for each in held]), np.concatenate(held)


def images_of(batch: Batch) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Side -> its sights and its images."""
    sides = {"obs": batch.obs, "next_obs": batch.next_obs}
    return {name: (side["sight"].numpy(), side["image"].numpy()) for name, side in sides.items() if side}


def assert_batch_is(batch: Batch, rows: list[Any], lanes: list[Lane]) -> None:
    """The fields of these rows, written by these lanes."""
    for name in ("action", "choice", "reward", "discount", "log_prob", "valid", "state"):
        tensor, there = getattr(batch, name), name in rows[0].dtype.names
        assert tensor is not None if there else tensor is None
        if there:
            assert np.array_equal(tensor, [row[name] for row in rows]), name
    for side, (sights, images) in images_of(batch).items():
        assert np.array_equal(sights, [row[side]["sight"] for row in rows])
        assert np.array_equal(images, [lane.images(each) for lane, each in zip(lanes, sights, strict=True)])
        assert images.dtype == np.uint8
    assert torch.equal(batch.weight, torch.ones(len(rows)))


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_batch_is_what_the_agents_saw_and_did_however_often_the_ring_went_round(
    recording: Recording, stack: int
) -> None:
    random = np.random.default_rng(0)
    with create(recording, stack) as ring:
        ring.words[:, Word.DONE] = 2**62  # rows in order are used at once
        lanes = lanes_of(ring, stack)
        scripts = [script(NUM_AGENTS, 100 * recording.stride, seed) for seed in range(NUM_LANES)]
        for turn in range(100 * recording.stride):
            for lane, events in zip(lanes, scripts, strict=True):
                lane.turn(events[turn])
            if turn % (20 * recording.stride) != 19:
                continue
            of, index = intact(ring)
            room = Gather(ring, 64)
            chosen = random.permutation(len(index))[:64]
            count, half = len(chosen), len(chosen) // 2
            of, index = of[chosen], index[chosen]
            room.copy(of[:half], index[:half], slice(half))
            room.copy(of[half:], index[half:], np.arange(half, count))
            whole = ~room.torn(of, index, slice(count))
            assert whole.mean() > 0.75  # of short sequences a lane may have room for more than their frames
            rows = [lanes[i].rows[n] for i, n in zip(of.tolist(), index.tolist(), strict=True)]
            batch = room.batch(CPU, count)
            if not whole.all():
                keep = np.flatnonzero(whole)
                of, index, rows = of[keep], index[keep], [rows[i] for i in keep]
                room.copy(of, index, slice(len(keep)))
                batch = room.batch(CPU, len(keep))
            assert_batch_is(batch, rows, [lanes[i] for i in of])
        assert all(len(lane.rows) > 2 * ring.capacity for lane in lanes)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_each_frame_that_was_seen_is_stored_once(recording: Recording) -> None:
    with create(recording, stack=4, capacity=100_000) as ring:
        lanes = lanes_of(ring, stack=4)
        for events in script(NUM_AGENTS, 100, seed=0):
            for lane in lanes:
                lane.turn(events)
        for number, lane in enumerate(lanes):
            claimed = ring.words[number, Word.FRAMES_CLAIMED]
            assert claimed == lane.num_looks
            stored = ring.frames["image"][number, :claimed].reshape(claimed, 4)
            assert len(np.unique(stored, axis=0)) == claimed


@pytest.mark.parametrize("recording", RECORDINGS[:1] + RECORDINGS[2:])
def test_a_row_is_torn_exactly_when_a_frame_of_it_was_overwritten_and_then_drawn_again(recording: Recording) -> None:
    with create(recording, stack=3) as ring:
        lanes = lanes_of(ring, stack=3)
        for _ in range(5 * recording.stride + recording.length):
            for lane in lanes:
                lane.turn([(DECIDES,)] * NUM_AGENTS)
        reset: Event = ("reset", DECIDES)  # frames and no rows
        sometimes_torn = False
        for _ in range(ring.num_frames // NUM_AGENTS):
            lanes[0].turn([reset, (DECIDES,), reset])
            of, index = intact(ring)
            room = Gather(ring, len(index))
            room.copy(of, index)
            wrong = np.zeros(len(index), np.bool_)
            for sights, images in images_of(room.batch(CPU)).values():
                true = np.array([lanes[i].images(each) for i, each in zip(of, sights, strict=True)])
                wrong |= (images != true).reshape(len(index), -1).any(axis=1)
            assert np.array_equal(room.torn(of, index), wrong)
            assert not wrong[of == 1].any()
            sometimes_torn |= bool(wrong.any())
            if wrong.any():
                sampler = Sampler(ring, 32, seed=0)
                sampler.sample()
                for sights, images in images_of(sampler.batch(CPU)).values():
                    true = np.array([lanes[i].images(each) for i, each in zip(sampler._drawn[0], sights, strict=True)])
                    assert np.array_equal(images, true)
        assert sometimes_torn


@pytest.mark.parametrize("recording", RECORDINGS[:1] + RECORDINGS[2:])
def test_a_ring_has_room_for_the_frames_of_its_rows_while_episodes_are_long(recording: Recording) -> None:
    with create(recording, stack=2, capacity=300 * recording.stride) as ring:
        lanes = lanes_of(ring, stack=2)
        for turn in range(350 * recording.stride // NUM_AGENTS):
            end = turn % (20 + 3 * recording.length) == 0
            for lane in lanes:
                lane.turn([("truncated", DECIDES) if end else (DECIDES,)] * NUM_AGENTS)
        of, index = intact(ring)
        assert len(index) == 2 * ring.capacity
        room = Gather(ring, len(index))
        room.copy(of, index)
        assert not room.torn(of, index).any()


def test_rows_without_frames_are_torn_by_those_that_follow_alone() -> None:
    with create(Recording(), stack=1) as ring:
        (lane, _) = lanes_of(ring, stack=1)
        for events in script(NUM_AGENTS, 100, seed=3, events=[*EVENTS, (DECIDES,)]):
            lane.turn(events)
        index = np.arange(len(lane.rows))
        torn = Gather(ring, len(index)).torn(np.zeros_like(index), index)
        assert np.array_equal(torn, index < len(lane.rows) - ring.capacity)
        assert ring.frames == {} and ring.words[0, Word.FRAMES_CLAIMED] == 0


@pytest.mark.parametrize("stack", [1, 3])
def test_what_is_on_its_way_to_a_gpu_is_not_overwritten(stack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(Recording(), stack) as ring:
        lanes = lanes_of(ring, stack)
        for events in script(NUM_AGENTS, 30, seed=0):
            for lane in lanes:
                lane.turn(events)
        of, index = intact(ring)
        room = Gather(ring, len(index))
        buses = take_the_bus(room._outbox, *(each._outbox for each in room._stacks), monkeypatch=monkeypatch)
        for _ in range(3):
            room.copy(of, index)
            batch = room.batch(META)
            assert batch.reward.is_meta and batch.weight.is_meta and len(batch.obs["image"]) == len(index)
            of, index = of[::-1], index[::-1]
        assert [each.num_sent for each in buses] == [3] * (1 if stack == 1 else 3), "one transfer, and one a stack"
