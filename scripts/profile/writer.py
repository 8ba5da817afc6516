"""A process that writes one lane at full speed: the other side of scripts/profile/writers.py. Imports no torch."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import msgspec

from core.atomic import load_acquire
from core.ring import Ring, RingAddress, Word
from envproc.process import die_with_parent
from scripts.profile.copies import copy_steps, whole
from scripts.profile.shapes import SHAPES, Steps

REST, APPEND, COPY = 0, 1, 2
"""what to do now, in the lane's word `allowed`: nothing, append steps, or copy their bytes"""


@dataclass(frozen=True)
class WriterConfig:
    ring: RingAddress
    bare: RingAddress
    """one whose rows nobody samples: where the bytes are copied"""
    rows: str
    lane: int


def main() -> None:
    die_with_parent()
    config = msgspec.json.decode(sys.argv[1], type=WriterConfig)
    spec, lane = SHAPES[config.rows].spec, config.lane
    ring, bare = Ring.attach(config.ring, spec), Ring.attach(config.bare, spec)
    steps = Steps(ring, ring.writer(lane, 0), seed=lane)
    copy = copy_steps(steps, [whole(each[lane], 1) for each in (bare.rows, *bare.frames.values())])
    words = ring.words[lane]
    while not words.item(Word.STOP):
        now = load_acquire(words, Word.ALLOWED)
        if now == REST:
            time.sleep(0.0005)
            continue
        steps.append() if now == APPEND else copy()
        words[Word.STEPS] += 1


if __name__ == "__main__":
    main()
