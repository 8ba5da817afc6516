"""The ring in files. Of any ring, that it goes on as it was, is part of test_ring.py's model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core import ring_file
from core.replay import Sampler
from core.ring import Ring, Word
from core.types import Recording
from tests.core.known_rows import known, spec, torn
from tests.stress.writer import Job, writing

CAPACITY = 4096


def test_saved_beside_a_process_that_laps_the_ring_no_torn_row_is_ever_drawn(tmp_path: Path) -> None:
    width, k = 120, 31
    with Ring.create(spec(width), Recording(), 1, CAPACITY) as ring, writing(Job(ring.address, width, k)):
        while ring.load(Word.PUBLISHED)[0] < 2 * CAPACITY:
            pass
        behind = 0
        for _ in range(20):
            ring_file.save(ring, tmp_path)
            with Ring.create(spec(width), Recording(), 1, CAPACITY) as other:
                ring_file.load(other, tmp_path)
                claimed, published = (other.load(word)[0] for word in (Word.CLAIMED, Word.PUBLISHED))
                behind += claimed > published + k
                if claimed - published < CAPACITY // 2:
                    assert not torn(Sampler(other, 1000, seed=0).sample()).any()
        assert behind, "nothing was written while the ring was saved: this showed nothing"


@pytest.mark.parametrize("other", [{"capacity": 4 * CAPACITY}, {"num_lanes": 1, "capacity": CAPACITY}, {"width": 9}])
def test_a_ring_of_another_kind_is_refused_with_both_sizes(other: dict[str, int], tmp_path: Path) -> None:
    wanted = {"num_lanes": 2, "capacity": 2 * CAPACITY, "width": 8} | other
    with Ring.create(spec(), Recording(), 2, 2 * CAPACITY) as ring:
        ring_file.save(ring, tmp_path)
    refused = pytest.raises(ValueError, match="2 lanes of 4096 rows of 96 bytes")
    with Ring.create(spec(wanted["width"]), Recording(), wanted["num_lanes"], wanted["capacity"]) as ring, refused:
        ring_file.load(ring, tmp_path)


def test_lanes_that_were_added_and_left_are_there_again(tmp_path: Path) -> None:
    with Ring.create(spec(), Recording(), 1, CAPACITY, spare=3) as ring:
        for lane, count in ((0, 5), (1, 3), (2, 4)):
            ring.add_lane(lane)
            ring.wanted[lane] = True
            ring.writer(lane, 0).append(known(ring.layout, count))
        ring.wanted[1] = False
        ring.stop(1)
        ring_file.save(ring, tmp_path)
        rows = ring.rows[:3, :5].copy()
    with Ring.create(spec(), Recording(), 1, CAPACITY, spare=4) as other:
        ring_file.load(other, tmp_path)
        assert other.at_work.tolist() == [True, False, True, False, False]
        assert other.load(Word.PUBLISHED).tolist() == [5, 3, 4, 0, 0] and not other.load(Word.STOP).any()
        assert other.rows[:3, :5].tobytes() == rows.tobytes()
        assert set(Sampler(other, 1000, seed=0).sample()["index"].tolist()) == set(range(5))


def test_what_was_never_written_takes_no_room(tmp_path: Path) -> None:
    with Ring.create(spec(), Recording(), 1, CAPACITY) as ring:
        ring.writer(0, 0).append(known(ring.layout, 3))
        ring_file.save(ring, tmp_path)
    assert len(np.load(tmp_path / "rows.npy")[0]) == 3
