"""Stacked frames lie apart from the rows: there is room for as many as the rows name."""

from __future__ import annotations

import numpy as np
import pytest

from core.replay import Sampler
from core.ring import FOREVER, Ring, Word
from core.types import ActionSpec, EnvSpec, FieldSpec, Recording


@pytest.mark.parametrize(
    ("recording", "frames_a_decision"),
    [(Recording(), 1.0), (Recording(length=8, stride=4), 1.0), (Recording(ordered=True), 2.0)],
    ids=["transitions", "sequences", "in order, episodes of one decision"],
)
def test_frames_stay_as_long_as_the_rows_that_name_them(recording: Recording, frames_a_decision: float) -> None:
    eye = EnvSpec({"eye": FieldSpec((4, 2, 2), "uint8", stack=4)}, ActionSpec((-1.0,), (1.0,)), 1)
    with Ring.create(eye, recording, 1, 1024) as ring:
        ring.words[0, Word.DONE] = FOREVER
        writer, row = ring.writer(0, 1), np.zeros(1, ring.layout)
        frame = np.zeros((int(recording.stride * frames_a_decision), 1, 2, 2), np.uint8)
        for _ in range(3 * ring.capacity):
            row["obs"]["eye"] = max(writer.append_frames({"eye": frame}) - recording.length - 3, 0)
            if not recording.length:
                row["next_obs"]["eye"] = row["obs"]["eye"] + 1
            writer.append(row)
        sampler = Sampler(ring, 2000, seed=0)
        sampler.sample()
        assert sampler.num_lapped == 0
