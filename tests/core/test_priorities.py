"""The sum tree against plain arrays, and each of its promises by itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.priorities import DoubleArray, Priorities

SIZES = st.sampled_from([1, 2, 3, 4, 16, 17, 257])
SEEDS = st.integers(0, 2**32)


def whole_numbers(random: np.random.Generator, count: int) -> DoubleArray:
    """Priorities whose sums are exact, half of them 0."""
    return (random.integers(0, 100, count) * random.integers(0, 2, count)).astype(np.float64)


class PrioritiesAgainstArrays(RuleBasedStateMachine):
    """An array of the priorities and its cumulated sum say what every answer must be, to the last bit."""

    @initialize(num_slots=SIZES)
    def create(self, num_slots: int) -> None:
        self.priorities = Priorities(num_slots)
        self.array = np.zeros(num_slots)

    @rule(k=st.integers(0, 600), seed=SEEDS)
    def put(self, k: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        slots, values = random.integers(0, len(self.array), k), whole_numbers(random, k)
        self.priorities.put(slots, values)
        for slot, value in zip(slots, values, strict=True):
            self.array[slot] = value

    @rule(k=st.integers(0, 20), value=st.integers(0, 50), seed=SEEDS)
    def put_one_value(self, k: int, value: int, seed: int) -> None:
        slots = np.random.default_rng(seed).integers(0, len(self.array), k)
        self.priorities.put(slots, value)
        self.array[slots] = value

    @rule(ends=st.tuples(st.integers(0, 257), st.integers(0, 257)), value=st.integers(0, 50))
    def fill(self, ends: tuple[int, int], value: int) -> None:
        start, stop = sorted(min(end, len(self.array)) for end in ends)
        self.priorities.fill(start, stop, value)
        self.array[start:stop] = value

    @precondition(lambda self: self.array.any())
    @rule(k=st.integers(0, 600), seed=SEEDS)
    def draw(self, k: int, seed: int) -> None:
        uniform = np.random.default_rng(seed).random(k)
        expected = self.array.cumsum().searchsorted(uniform * self.array.sum(), side="right")
        assert np.array_equal(self.priorities.draw(uniform)[0], expected)

    @invariant()
    def the_priorities_and_their_sum_are_the_array_s(self) -> None:
        assert np.array_equal(self.priorities[np.arange(len(self.array))], self.array)
        assert self.priorities.total == self.array.sum()


TestAgainstArrays = PrioritiesAgainstArrays.TestCase
TestAgainstArrays.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)

ANY_PRIORITY = st.one_of(
    st.sampled_from([0.0, 0.0, 5e-324, 1e-308, 1e-300, 1e-16, 0.1, 1.0, 1e16, 1e30]), st.floats(0, 1e30)
)
ANY_UNIFORM = st.one_of(
    st.sampled_from([0.0, 5e-324, 0.5, 1 - 2**-52, float(np.nextafter(1, 0)), 1.0]), st.floats(0, 1)
)

ULP = 2.0**-52
# of 4 + 12 ULP, 6 are taken away again, and what is left is rounded to as much as there is, 4 + 8: to beyond its end
ROUNDED_UP = [1, *[0] * 15, 6 * ULP, 0, 0, 0, 4 + 8 * ULP, 0, 0, 0, 0.5, 0, 0, 0, 10.5 - 16 * ULP]


@settings(max_examples=500, deadline=None)
@example(ROUNDED_UP, [(5 + 12 * ULP) / 16])
@given(st.lists(ANY_PRIORITY, min_size=1, max_size=40).filter(any), st.lists(ANY_UNIFORM, min_size=1, max_size=20))
def test_no_rounding_yields_a_slot_of_priority_0_or_one_that_is_far_off(
    values: list[float], uniform: list[float]
) -> None:
    priorities = Priorities(len(values))
    priorities.put(np.arange(len(values)), np.array(values))
    slots, _ = priorities.draw(np.array(uniform))
    total = sum(map(Fraction, values))
    rounding = total / 2**48 + Fraction(1e-320)
    for u, slot in zip(uniform, slots, strict=True):
        assert 0 <= slot < len(values)
        assert values[slot] > 0
        below = sum(map(Fraction, values[:slot]))
        assert below - rounding <= Fraction(u) * total <= below + Fraction(values[slot]) + rounding


@pytest.mark.parametrize("size", [2, 16, 17, 257])
def test_nothing_is_rounded_into_the_zeros_at_the_end(size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(300):
        priorities, last = Priorities(size), int(random.integers(size))
        priorities.put(np.arange(last + 1), 10 ** random.uniform(-30, 30, last + 1))
        slots, _ = priorities.draw(np.array([np.nextafter(1, 0), 1.0]))
        assert slots.max() <= last


def test_slots_are_drawn_as_often_as_their_priorities_say() -> None:
    random = np.random.default_rng(0)
    values, count = random.random(300) + 0.05, 300_000
    priorities = Priorities(len(values))
    priorities.put(np.arange(len(values)), values)
    expected = values / values.sum() * count
    drawn = np.bincount(priorities.draw(random.random(count))[0], minlength=len(values))
    chi_square, freedom = ((drawn - expected) ** 2 / expected).sum(), len(values) - 1
    # mean `freedom`, variance 2 * freedom, nearly normal
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_sums_do_not_drift() -> None:
    random, worn, fresh = np.random.default_rng(1), Priorities(1000), Priorities(1000)
    for _ in range(1000):  # 100,000 updates over 24 orders of magnitude
        worn.put(random.integers(0, 1000, 100), 10 ** random.uniform(-12, 12, 100))
    slots = np.arange(1000)
    fresh.put(slots, worn[slots])
    assert np.array_equal(worn._sums, fresh._sums)
    worn.fill(1, 1000, 0.0)
    assert worn.total == worn[slots[:1]]


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_priority_that_is_none_is_refused_and_nothing_changed(value: float) -> None:
    priorities = Priorities(5)
    priorities.fill(0, 5, 1.0)
    with pytest.raises(ValueError, match=rf"priority {value} for slot 3 of 5"):
        priorities.put(np.array([0, 3]), np.array([7.0, value]))
    with pytest.raises(ValueError, match=rf"priority {value} for slots 1 to 2 of 5"):
        priorities.fill(1, 2, value)
    assert np.array_equal(priorities[np.arange(5)], np.ones(5))


@pytest.mark.parametrize("slot", [-1, 5, 8])
def test_a_slot_that_does_not_exist_is_refused(slot: int) -> None:
    priorities = Priorities(5)
    with pytest.raises(ValueError, match=f"for slot {slot} of 5"):
        priorities.put(np.array([0, slot]), np.ones(2))
    for start, stop in ((min(slot, 0), max(slot + 1, 0)), (3, 2)):
        with pytest.raises(ValueError, match=f"for slots {start} to {stop} of 5"):
            priorities.fill(start, stop, 1.0)
    assert priorities.total == 0


def test_nothing_is_drawn_where_nothing_can_be() -> None:
    priorities, uniform = Priorities(5), np.array([0.5])
    with pytest.raises(ValueError, match=r"5 slots sum up to 0\.0"):
        priorities.draw(uniform)
    priorities.fill(0, 5, 1e308)
    with pytest.raises(ValueError, match="5 slots sum up to inf"):
        priorities.draw(uniform)
    priorities.fill(0, 5, 1.0)
    for no_number in (-0.1, 1.1, np.nan):
        with pytest.raises(AssertionError, match=rf"uniform\[0\] is {no_number}"):
            priorities.draw(np.array([no_number]))
