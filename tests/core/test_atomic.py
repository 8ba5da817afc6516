"""Words between processes: the plain implementation and the one of real machine atomics do the same."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from types import ModuleType

import numpy as np
import pytest

import core.atomic
import core.atomic_numba
from core.shm import Layout, Segment

NUM_MESSAGES = 200_000
LAYOUT: Layout = {"flag": (np.int64, (32,)), "message": (np.int64, (2, NUM_MESSAGES))}

SENDER = """
import importlib, sys
import numpy as np
from core.shm import Segment
atomic = importlib.import_module(sys.argv[2])
count = int(sys.argv[3])
segment = Segment.attach(
    sys.argv[1], {"flag": (np.int64, (32,)), "message": (np.int64, (2, count))}, writable=True
)
flag, message = segment["flag"], segment["message"]
for number in range(count):
    message[0, number] = 3 * number + 1
    message[1, number] = -number - 1
    atomic.store_release(flag, 16, number + 1)
"""


class Place(IntEnum):
    FIRST = 0
    LAST = 6


@pytest.fixture(params=[core.atomic, core.atomic_numba], ids=["plain", "numba"])
def atomic(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    if request.param is core.atomic and core.atomic.load_acquire is core.atomic_numba.load_acquire:
        pytest.skip(f"{platform.machine()} has no plain implementation")
    yield request.param


@pytest.mark.parametrize("value", [0, 1, -1, 2**31, 2**62, -(2**63), 2**63 - 1])
def test_what_is_stored_at_a_place_is_loaded_there_and_nothing_else_changes(atomic: ModuleType, value: int) -> None:
    words = np.arange(100, 121, dtype=np.int64).reshape(3, 7)
    for row, place in ((0, 3), (1, Place.FIRST), (2, Place.LAST)):
        lane = words[row]
        expected = words.copy()
        expected[row, place] = value
        assert atomic.load_acquire(lane, place) == 100 + 7 * row + place
        atomic.store_release(lane, place, value)
        loaded = atomic.load_acquire(lane, place)
        assert type(loaded) is int and loaded == value
        assert np.array_equal(words, expected)


def test_fences_may_stand_anywhere_and_change_nothing(atomic: ModuleType) -> None:
    words = np.arange(8)
    assert atomic.fence_release() is None and atomic.fence_acquire() is None
    assert np.array_equal(words, np.arange(8))


def test_words_of_a_read_only_mapping_can_be_loaded(atomic: ModuleType) -> None:
    with Segment.create("test", {"words": (np.int64, (4,))}) as segment:
        segment["words"][2] = 77
        reader = Segment.attach(segment.address, {"words": (np.int64, (4,))})
        assert atomic.load_acquire(reader["words"], 2) == 77
        reader.close()


def test_who_sees_the_flag_of_another_process_sees_what_was_written_before_it(atomic: ModuleType) -> None:
    with Segment.create("test", LAYOUT) as segment:
        flag, message = segment["flag"], segment["message"]
        command = [sys.executable, "-c", SENDER, segment.address, atomic.__name__, str(NUM_MESSAGES)]
        sender = subprocess.Popen(command)
        try:
            seen, looks = 0, 0
            while seen < NUM_MESSAGES:
                has_left = sender.poll() is not None
                seen = atomic.load_acquire(flag, 16)
                assert seen == NUM_MESSAGES or not has_left, f"the sender left with exit code {sender.returncode}"
                if seen:
                    assert (message.item(0, seen - 1), message.item(1, seen - 1)) == (3 * seen - 2, -seen)
                    looks += 1
            assert sender.wait(timeout=20) == 0 and looks > 1
        finally:
            sender.kill()
            sender.wait(timeout=10)


def test_every_name_is_there_in_both() -> None:
    for name in core.atomic.__all__:
        assert callable(getattr(core.atomic, name)) and callable(getattr(core.atomic_numba, name))


def test_numba_emits_atomic_instructions_of_the_right_order() -> None:
    words = np.zeros(4, np.int64)
    core.atomic_numba.store_release(words, 0, 1)
    core.atomic_numba.load_acquire(words, 0)
    core.atomic_numba.fence_release()
    core.atomic_numba.fence_acquire()
    for function, instruction in (
        (core.atomic_numba.load_acquire, ("load atomic i64", "acquire, align 8")),
        (core.atomic_numba.store_release, ("store atomic i64", "release, align 8")),
        (core.atomic_numba.fence_release, ("fence release", "")),
        (core.atomic_numba.fence_acquire, ("fence acquire", "")),
    ):
        lines = "\n".join(function.inspect_llvm().values()).splitlines()
        assert any(instruction[0] in line and instruction[1] in line for line in lines), instruction
