"""Rows from another machine: what leaves a lane there arrives in the run's, bit for bit, or is refused as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from core.intake import Intake, post_of
from core.link import Batch
from core.outlet import COUNTERS, Outlet, local_ring
from core.ring import FOREVER, Ring, Word, Writer
from core.types import ActionSpec, EnvSpec, FieldSpec, Recording, Rows

PLAIN = EnvSpec({"vector": FieldSpec((5,)), "seen": FieldSpec((3,), "bool")}, ActionSpec((-1.0,), (1.0,), (3, 2)), 4)
STACKED = EnvSpec({"image": FieldSpec((4, 6, 6), "uint8", stack=4)}, ActionSpec(branches=(3,)), 4)
LANE, EPOCH = 2, 3


class Pair:
    """A lane of the run's ring, the same lane of a collector's, and what is between them."""

    def __init__(self, spec: EnvSpec, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("core.outlet.WINDOW_BYTES", 4_000)
        monkeypatch.setattr("core.outlet.BATCH_BYTES", 1_000)
        self.random = np.random.default_rng(1)
        self.ring = Ring.create(spec, recording, 3, 3_000 * recording.stride)
        before = self.ring.words[LANE]  # somebody has worked here before, and died while he wrote
        before[[Word.PUBLISHED, Word.CLAIMED, Word.FRAMES_CLAIMED, Word.DECISIONS]] = 50, 53, 100, 60
        before[Word.LIVES] = EPOCH
        before[Word.DONE] = 50 if recording.ordered else FOREVER
        post = post_of(self.ring, LANE)
        assert post.epoch == EPOCH
        self.there = local_ring(spec, recording, [post])
        self.intake = Intake(self.ring, LANE, EPOCH)
        self.writer = self.there.writer(LANE, EPOCH)
        self.outlet = Outlet(self.there, LANE)
        self.ring.words[LANE, Word.ALLOWED] = 70
        assert self.intake.allowed() == 70
        self.written: list[bytes] = []

    def let_go(self) -> None:
        """As far as it will."""
        self.ring.words[LANE, Word.ALLOWED] = FOREVER
        assert self.intake.allowed() == FOREVER

    def write(self, count: int) -> None:
        """What a worker may write in a step."""
        rows = some_rows(self.there, self.writer, self.random, count)
        self.writer.append(rows)
        self.writer.decided(count)
        self.writer.count(Word.STEPS)
        self.written.append(rows.tobytes())

    def carry(self) -> None:
        words = self.ring.words[LANE]
        for batch, data in self.outlet.batches():
            self.intake.take(batch, data)
            assert words[Word.PUBLISHED] - 50 >= words[Word.DECISIONS] - 60, "decisions count when their rows are there"
        self.outlet.allow(self.intake.allowed(), self.intake.published)

    def digest(self) -> str:
        """Of all that the run has."""
        parts = [self.ring.words.tobytes(), self.ring.rows.tobytes(), *(each.tobytes() for each in self.frames)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    @property
    def frames(self) -> list[Any]:
        return list(self.ring.frames.values())


def some_rows(ring: Ring, writer: Writer, random: np.random.Generator, count: int) -> Rows:
    """(count,) that could be: `writer` gets a new frame for each, and for each end one more."""
    rows: Rows = np.zeros(count, ring.layout)
    rows["agent"] = np.arange(count) % ring.spec.num_agents
    rows["reward"] = random.standard_normal(rows["reward"].shape)
    rows["discount"] = random.choice([0, 0.99], rows["discount"].shape)
    if "choice" in (ring.layout.names or ()):
        sizes = ring.spec.action.branches
        rows["choice"] = (random.random(rows["choice"].shape) * sizes).astype(np.int32)
    for side in {"obs", "next_obs"} & set(ring.layout.names or ()):
        for name, values in ring.spec.obs.items():
            shape = rows[side][name].shape
            if name in ring.frames:
                image = random.integers(0, 256, (count, *ring.frames[name].shape[2:]), np.uint8)
                start = writer.append_frames({name: image})
                rows[side][name] = start + random.integers(-20, count, shape)
            else:
                rows[side][name] = random.random(shape) > 0.5 if values.dtype == "bool" else random.random(shape)
    return rows


@pytest.fixture(
    params=[
        (PLAIN, Recording()),
        (PLAIN, Recording(n_step=3, priority=True)),
        (PLAIN, Recording(ordered=True)),
        (STACKED, Recording()),
        (STACKED, Recording(ordered=True)),
        (STACKED, Recording(length=6, stride=3, state_dim=4)),
    ],
    ids=["plain", "n-step with priority", "in order", "stacked", "stacked in order", "sequences"],
)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    spec, recording = request.param
    pair = Pair(spec, recording, monkeypatch)
    with pair.ring, pair.there:
        yield pair


def test_every_row_arrives_bit_for_bit_however_often_the_lane_there_goes_round(pair: Pair) -> None:
    """What is in the run's lane is what the worker wrote, with the numbers that it gave; all counters are its own."""
    pair.let_go()
    while pair.writer.published < 3 * pair.there.capacity:
        for _ in range(int(pair.random.integers(1, 4))):
            if pair.writer.may_go_on():
                pair.write(int(pair.random.integers(1, 5)))
        pair.carry()
        pair.ring.words[LANE, Word.DONE] = pair.intake.published if pair.ring.recording.ordered else FOREVER
    words, kept = pair.ring.words[LANE], pair.ring.capacity
    assert words[Word.PUBLISHED] == pair.writer.published and words[Word.LIVES] == EPOCH + 1
    assert [words[each] for each in COUNTERS] == [pair.writer.words[each] for each in COUNTERS]
    written = np.frombuffer(b"".join(pair.written), pair.ring.layout)[-kept:]  # append() has filled the headers in
    assert written["index"][-1] == pair.writer.published - 1 and (written["epoch"] == EPOCH).all()
    opaque = pair.ring.rows[LANE].view(f"V{pair.ring.layout.itemsize}")
    assert opaque[written["index"] % kept].tobytes() == written.tobytes()
    for name, frames in pair.there.frames.items():
        end = words.item(Word.FRAMES_CLAIMED)
        numbers = np.arange(end - min(pair.there.num_frames, pair.ring.num_frames) // 2, end)
        assert (frames[LANE][numbers % pair.there.num_frames] == run_frames(pair, name, numbers)).all()


def run_frames(pair: Pair, name: str, numbers: Any) -> Any:
    return pair.ring.frames[name][LANE][numbers % pair.ring.num_frames]


def test_a_worker_whose_rows_do_not_arrive_stops_before_it_overwrites_one(pair: Pair) -> None:
    pair.let_go()
    pair.outlet.allow(FOREVER, pair.intake.published)
    while pair.writer.may_go_on():
        pair.write(1)
        list(pair.outlet.batches())  # sent, and lost
        pair.outlet.allow(FOREVER, pair.intake.published)
    assert 0 < pair.writer.published - pair.intake.published <= pair.there.capacity // 2


Spoil = Callable[[Batch, list[Any]], tuple[Batch, list[Any]]]


def with_head(**fields: Any) -> Spoil:
    return lambda batch, data: (msgspec.structs.replace(batch, **fields), data)


def with_row(name: str, value: Any) -> Spoil:
    def spoil(batch: Batch, data: list[Any]) -> tuple[Batch, list[Any]]:
        rows = np.frombuffer(bytearray(data[-1]), LAYOUT)
        target = rows["obs"] if name in (rows["obs"].dtype.names or ()) else rows
        view = target[name].view(np.uint8) if target[name].dtype == bool else target[name]
        view[-1] = value
        return batch, [*data[:-1], rows.tobytes()]

    return spoil


with Ring.create(PLAIN, Recording(), 1, 1000) as _ring:
    LAYOUT = _ring.layout


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (with_head(first=49), "row 49 where 50 is the next"),
        (with_head(first=51), "row 51 where 50"),
        (with_head(rows=3), "bytes for 3 rows"),
        (with_head(rows=-1), "-1 rows at once"),
        (with_head(rows=10**9), "rows at once"),
        (with_head(frames=-1), "-1 frames at once"),
        (with_head(first_frame=7), "frame 7 where 100"),
        (with_head(words=[1, 2]), "2 counters"),
        (with_head(words=[-1] * len(COUNTERS)), "counters of"),
        (with_head(words=[2**63] * len(COUNTERS)), "counters of"),
        (with_head(words=[0] * len(COUNTERS)), "counters that went back"),
        (with_head(words=[10_000] * len(COUNTERS)), "10000 decisions where 70 were allowed"),
        (lambda batch, data: (batch, [data[-1][:-1]]), "bytes for 4 rows"),
        (lambda batch, data: (batch, []), "0 bytes for 4 rows"),
        (lambda batch, data: (batch, [b"", *data]), "1 fields of frames, there are 0"),
        (with_row("index", 3), "do not carry their own numbers"),
        (with_row("epoch", 2), "of another epoch than 3"),
        (with_row("agent", 4), "agent .*4.*, which is not from 0 to 3"),
        (with_row("agent", -1), "agent"),
        (with_row("reward", np.inf), "reward that is not finite"),
        (with_row("vector", np.nan), "vector that is not finite"),
        (with_row("seen", 7), "neither true nor false in seen"),
        (with_row("choice", [0, 2]), "choice .*2.*, which is not from 0 to 1"),
        (with_row("choice", [-1, 0]), "choice"),
        (with_row("discount", 1.5), "discount"),
    ],
)
def test_what_no_worker_can_have_done_is_refused_and_nothing_of_it_is_written(
    spoil: Spoil, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(PLAIN, Recording(), monkeypatch)
    with pair.ring, pair.there:
        pair.write(4)
        ((batch, data),) = pair.outlet.batches()
        before = pair.digest()
        with pytest.raises(ValueError, match=says):
            pair.intake.take(*spoil(batch, data))
        assert pair.digest() == before
        pair.intake.take(batch, data)  # as it was, it is good
        assert pair.digest() != before


def test_rows_that_name_frames_which_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(STACKED, Recording(), monkeypatch)
    with pair.ring, pair.there:
        pair.write(4)
        *first, (batch, data) = pair.outlet.batches()
        assert first, "frames go before the rows that name them"
        before = pair.digest()
        head = msgspec.structs.replace(batch, first_frame=100)
        with pytest.raises(ValueError, match=r"obs image .* is not from 0 to 99"):
            pair.intake.take(head, data)
        assert pair.digest() == before


def test_whatever_bytes_arrive_they_are_rows_or_refused(pair: Pair) -> None:
    """A byte here or there is another one. Nothing but a refusal comes of it, and no number in the ring is bad."""
    pair.let_go()
    refused = 0
    for _ in range(300):
        if not pair.writer.may_go_on():
            pair.outlet.allow(FOREVER, pair.intake.published)
        pair.write(1)
        for batch, data in pair.outlet.batches():
            spoiled = [bytearray(each) for each in data]
            part = spoiled[-1]
            if part:
                part[int(pair.random.integers(len(part)))] = int(pair.random.integers(256))
            before = pair.digest() if refused < 5 else ""
            try:
                pair.intake.take(batch, spoiled)
            except ValueError:
                refused += 1
                assert not before or pair.digest() == before
                pair.intake.take(batch, data)
        if pair.ring.recording.ordered:
            pair.ring.words[LANE, Word.DONE] = pair.intake.published
    assert refused > 5
    rows = pair.ring.rows[LANE][50 : pair.intake.published]
    assert np.isfinite(rows["reward"]).all() and (rows["agent"] < 4).all() and (rows["epoch"] == EPOCH).all()


def test_a_batch_may_be_larger_than_half_of_the_lane_that_it_goes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(PLAIN, Recording(), monkeypatch)
    with pair.there, Ring.create(PLAIN, Recording(), 3, 3 * 32) as small:
        small.words[LANE] = pair.ring.words[LANE]
        intake = Intake(small, LANE, EPOCH)
        monkeypatch.setattr(intake, "_most_rows", 100)
        small.words[LANE, Word.ALLOWED] = FOREVER
        intake.allowed()
        pair.write(20)
        batches = [each for each in pair.outlet.batches() if each[0].rows]
        data = b"".join(each[-1] for _, each in batches)
        intake.take(msgspec.structs.replace(batches[0][0], rows=20, words=batches[-1][0].words), [data])
        assert small.rows[LANE]["index"][np.arange(50, 70) % 32].tolist() == list(range(50, 70))
    pair.ring.close()
