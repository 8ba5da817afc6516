"""Priorities of slots, and draws in proportion to them: a sum tree (Schaul et al. 2016, appendix B.2.1).

`sums` is a binary heap: node n is the sum of nodes 2n and 2n + 1, node 1 that of all; slot s is node leaves + s, where
`leaves` is a power of two. A sum is always computed anew from its two halves, never adjusted by a difference: nothing
drifts, and a sum is 0 only if everything below it is.

A batch goes through the tree level by level, not slot by slot: the memory accesses of a level do not wait for each
other, and no step down has a branch to mispredict, or looks at more than its left half. Wider nodes are not drawn from
any faster.

numba compiles while this file is imported, which takes a second. It could keep what it compiled, but where neither
this directory nor the home may be written to, it refuses to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from core.types import IntArray

DoubleArray = npt.NDArray[np.float64]


class Priorities:
    """One priority for each of `num_slots` slots, 0 at first."""

    def __init__(self, num_slots: int) -> None:
        assert num_slots > 0, f"{num_slots} slots"
        self.num_slots = num_slots
        self._leaves = 1 << (num_slots - 1).bit_length()
        self._sums = np.zeros(2 * self._leaves)  # memory that is never touched is never used

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return self._sums.item(1)

    def __getitem__(self, slots: IntArray) -> DoubleArray:
        """(k,) the priorities of these slots."""
        priorities: DoubleArray = self._sums[self._leaves : self._leaves + self.num_slots][slots]
        return priorities

    def put(self, slots: IntArray, values: DoubleArray | float) -> None:
        """Set these (k,) slots' priorities, (k,) or one for all; 0 is never drawn. Of duplicate slots the last counts.

        Raises ValueError, with nothing changed, if a priority is not finite and >= 0, or there is no such slot.
        """
        if not isinstance(values, np.ndarray):
            values = np.full(len(slots), values, np.float64)
        assert slots.shape == values.shape, f"{values.shape} values for {slots.shape} slots"
        refused = _put(self._sums, self.num_slots, slots, values)
        if refused >= 0:
            self._refuse(values[refused], f"slot {slots[refused]}")

    def fill(self, start: int, stop: int, value: float) -> None:
        """Set the priorities of slots start .. stop - 1. Raises ValueError as put does."""
        if not (0 <= start <= stop <= self.num_slots and 0 <= value < np.inf):
            self._refuse(value, f"slots {start} to {stop}")
        _fill(self._sums, self._leaves + start, self._leaves + stop, value)

    def draw(self, uniform: DoubleArray) -> IntArray:
        """(k,) slots, each the one whose part of [0, total) holds uniform * total, when slots lie there in order.

        `uniform`: (k,) in [0, 1]; 1, to which a caller's arithmetic may round, is taken for a number just below.
        Rounding may move the bounds between slots by some 1e-16 of total, but never yields a slot of priority 0.

        Raises ValueError if all priorities are 0, or so large that their sum is infinite.
        """
        if not 0 < self.total < np.inf:
            raise ValueError(f"nothing can be drawn: the priorities of {self.num_slots} slots sum up to {self.total}")
        slots: IntArray = np.empty(len(uniform), np.int64)
        refused = _draw(self._sums, uniform, slots)
        assert refused < 0, f"uniform[{refused}] is {uniform[refused]}; it must lie in [0, 1]"
        return slots

    def _refuse(self, value: float, where: str) -> None:
        raise ValueError(
            f"priority {value} for {where} of {self.num_slots}; a priority must be finite and >= 0, its slot must exist"
        )


# numba checks no index: these functions do, or return the first refused place; -1 if there is none


@njit("void(float64[::1], int64, int64)")
def _climb(sums: DoubleArray, first: int, last: int) -> None:
    """Compute all sums above nodes first .. last of one level."""
    while first > 1:
        first >>= 1
        last >>= 1
        for node in range(first, last + 1):
            sums[node] = sums[2 * node] + sums[2 * node + 1]


@njit("void(float64[::1], int64, int64, float64)")
def _fill(sums: DoubleArray, first: int, stop: int, value: float) -> None:
    if first < stop:
        sums[first:stop] = value
        _climb(sums, first, stop - 1)


@njit("int64(float64[::1], int64, int64[:], float64[:])")
def _put(sums: DoubleArray, num_slots: int, slots: IntArray, values: DoubleArray) -> int:
    for i in range(len(slots)):
        if not (0 <= slots[i] < num_slots and 0 <= values[i] < np.inf):
            return i
    level = len(sums) // 2
    nodes = level + slots
    for i in range(len(nodes)):
        sums[nodes[i]] = values[i]
    while level > len(nodes):
        level >>= 1
        for i in range(len(nodes)):
            node = nodes[i] >> 1
            nodes[i] = node
            sums[node] = sums[2 * node] + sums[2 * node + 1]
    _climb(sums, level, 2 * level - 1)  # the upper levels have fewer nodes than the batch has slots
    return -1


@njit("int64(float64[::1], float64[:], int64[::1])")
def _draw(sums: DoubleArray, uniform: DoubleArray, nodes: IntArray) -> int:
    """Write the drawn slots to `nodes`."""
    rest = np.empty(len(nodes))
    for i in range(len(nodes)):
        if not 0 <= uniform[i] <= 1:
            return i
        rest[i] = uniform[i] * sums[1]
        nodes[i] = 1
    leaves = level = len(sums) // 2
    while level > 1:
        level >>= 1
        for i in range(len(nodes)):
            left = sums[2 * nodes[i]]
            go_right = rest[i] >= left
            nodes[i] = 2 * nodes[i] + go_right
            rest[i] -= left * go_right
    for i in range(len(nodes)):
        if sums[nodes[i]] == 0:  # `rest` was rounded up to the sum of all that is there, or beyond
            node, left_over = 1, uniform[i] * sums[1]
            while node < leaves:
                left, right = sums[2 * node], sums[2 * node + 1]
                node *= 2
                if left_over >= left and right > 0:
                    node += 1
                    left_over -= left
            nodes[i] = node
    nodes -= leaves
    return -1
