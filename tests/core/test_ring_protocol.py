"""The ring's protocol on a machine that reorders memory accesses, exhaustively; and what a takeover must not do.

The machine: each side is a handful of loads and stores of words, and may perform them in any order that keeps the
pairs its fences (and accesses to one word) keep; the two sides interleave at will; there is one memory. That is
weaker than x86-64, about as weak as Arm. A lane of two slots, a row two data words each, holds rows 0 and 1; the
writer appends two or three more; the reader copies any one row and accepts it if both words say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from core.replay import Sampler
from core.ring import Ring, Writer
from core.types import Recording
from tests.core.known_rows import ForgetfulWriter, die_in_mid_step, known, spec, torn

NUM_SLOTS = 2
WORDS = ("claimed", "published", "a0", "b0", "a1", "b1")
START = (2, 2, 0, 0, 1, 1)
STEPS = [(1, 1), (2,), (1, 2), (2, 1)]
"""rows appended in each step"""


class Side(NamedTuple):
    """One side's program, and which (earlier, later) places of it keep their order."""

    program: list[tuple[str, int]]
    """(word, value to store); a load's value means nothing"""
    order: set[tuple[int, int]]


def writer(steps: tuple[int, ...], fence: bool = True, release: bool = True) -> Side:
    """`fence`: the release fence after a claim; `release`: the release store of `published`."""
    program: list[tuple[str, int]] = []
    order: set[tuple[int, int]] = set()
    row = NUM_SLOTS
    for k in steps:
        claim = len(program)
        program.append(("claimed", row + k))
        for each in range(row, row + k):
            program += [(f"a{each % NUM_SLOTS}", each), (f"b{each % NUM_SLOTS}", each)]
        row += k
        publish = len(program)
        program.append(("published", row))
        order |= {(i, j) for i in range(claim + 1) for j in range(claim + 1, 99) if fence}
        order |= {(i, publish) for i in range(publish) if release}
    order |= {(i, j) for j, (word, _) in enumerate(program) for i in range(j) if program[i][0] == word}
    return Side(program, order)


def reader(row: int, acquire: bool = True, fence: bool = True, check: str = "claimed") -> Side:
    """`acquire`: of the load of `published`; `fence`: the acquire fence between copy and check."""
    program = [(word, 0) for word in ("published", f"a{row % NUM_SLOTS}", f"b{row % NUM_SLOTS}", check)]
    order = {(0, 3)} if check == "published" else set()  # two loads of one word keep their order
    order |= {(0, later) for later in (1, 2, 3) if acquire}
    order |= {(earlier, 3) for earlier in (0, 1, 2) if fence}
    return Side(program, order)


def executions(stores: Side, loads: Side, row: int, checks: bool = True) -> tuple[int, int]:
    """How many there are in which the reader accepts `row`, and in how many of them its copy is not whole."""

    def ready(side: Side, done: int) -> Iterator[int]:
        for place in range(len(side.program)):
            if not done >> place & 1 and all(done >> i & 1 for i, j in side.order if j == place):
                yield place

    @cache
    def count(stored: int, loaded: int, memory: tuple[int, ...], got: tuple[int, ...]) -> tuple[int, int]:
        if loaded == 0b1111:
            published, a, b, checked = got
            accepted = row < published and (not checks or row >= checked - NUM_SLOTS)
            return int(accepted), int(accepted and (a, b) != (row, row))
        further = []
        for place in ready(stores, stored):
            word, value = stores.program[place]
            further.append(count(stored | 1 << place, loaded, put(memory, WORDS.index(word), value), got))
        for place in ready(loads, loaded):
            value = memory[WORDS.index(loads.program[place][0])]
            further.append(count(stored, loaded | 1 << place, memory, put(got, place, value)))
        return sum(accepted for accepted, _ in further), sum(bad for _, bad in further)

    return count(0, 0, START, (0, 0, 0, 0))


def put(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])


def torn_and_accepted(weaker_writer: dict[str, bool], weaker_reader: dict[str, Any], checks: bool = True) -> int:
    """Over all programs, all rows and all executions; at least a hundred in which the reader accepts something."""
    counts = [
        executions(writer(steps, **weaker_writer), reader(row, **weaker_reader), row, checks)
        for steps in STEPS
        for row in range(NUM_SLOTS + sum(steps))
    ]
    assert sum(accepted for accepted, _ in counts) > 100
    return sum(bad for _, bad in counts)


def test_the_protocol_accepts_no_torn_row_in_any_execution() -> None:
    assert torn_and_accepted({}, {}) == 0


@pytest.mark.parametrize(
    ("weaker_writer", "weaker_reader"),
    [
        pytest.param({"fence": False}, {}, id="claim may come after the rows"),
        pytest.param({"release": False}, {}, id="published may come before the rows"),
        pytest.param({}, {"acquire": False}, id="rows may be read before published"),
        pytest.param({}, {"fence": False}, id="the check may come before the copy"),
    ],
)
def test_without_any_one_of_its_orderings_torn_rows_get_through(
    weaker_writer: dict[str, bool], weaker_reader: dict[str, Any]
) -> None:
    assert torn_and_accepted(weaker_writer, weaker_reader) > 0


def test_a_check_of_published_lets_torn_rows_through_whatever_the_fences() -> None:
    assert torn_and_accepted({}, {"check": "published"}) > 0


def test_no_check_lets_torn_rows_through_whatever_the_fences() -> None:
    assert torn_and_accepted({}, {}, checks=False) > 0


def torn_rows_after_a_takeover(kind: type[Writer]) -> int:
    """A lane's writer dies in mid-step, and another of this kind goes on one row at a time, read all the while."""
    with Ring.create(spec(), Recording(), 1, 64) as ring:
        first = ring.writer(0, 1)
        for _ in range(20):
            first.append(known(ring.layout, 10, first.published))
        die_in_mid_step(ring, 0, epoch=1, k=16, written=12)
        second = kind(ring, 0, 2)
        count = int(torn(Sampler(ring, 1000, seed=0).sample()).sum())
        for turn in range(30):
            second.append(known(ring.layout, 1, second.published))
            count += int(torn(Sampler(ring, 1000, seed=turn).sample()).sum())
    return count


def test_at_a_takeover_no_torn_row_is_sampled() -> None:
    assert torn_rows_after_a_takeover(Writer) == 0


def test_a_writer_that_lowers_claimed_at_a_takeover_lets_torn_rows_through() -> None:
    assert torn_rows_after_a_takeover(ForgetfulWriter) > 0
