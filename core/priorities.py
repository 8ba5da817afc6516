"""Priorities of slots, and draws in proportion to them: a sum tree (Schaul et al. 2016, appendix B.2.1).

`sums` is a heap of fours: node n is the sum of nodes 4n to 4n + 3, node 1 that of all; slot s is node leaves + s, where
`leaves` is a power of four. A sum is always computed anew from its four parts, never adjusted by a difference: nothing
drifts, and a sum is 0 only if everything below it is.

A batch goes through the tree level by level, not slot by slot: the memory accesses of a level do not wait for each
other, and no step down has a branch to mispredict. A binary tree is drawn from as fast, but takes half as long again to
update: each level costs a store into a cold place. Nodes of eight are slower to draw from.

numba compiles while this file is imported, which takes a second. It could keep what it compiled, but where neither
this directory nor the home may be written to, it refuses to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from core.types import IntArray

DoubleArray = npt.NDArray[np.float64]
_ONE = np.uint64(1)


class Priorities:
    """One priority for each of `num_slots` slots, 0 at first."""

    def __init__(self, num_slots: int) -> None:
        assert num_slots > 0, f"{num_slots} slots"
        self.num_slots = num_slots
        self._leaves = 4
        while self._leaves < num_slots:
            self._leaves *= 4
        self._sums = np.zeros(2 * self._leaves)  # memory that is never touched is never used
        self._below = self._sums.reshape(-1, 4)  # the same memory: row n is the four nodes below node n

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
        refused = _put(self._sums, self._below, self.num_slots, slots, values)
        if refused >= 0:
            self._refuse(values[refused], f"slot {slots[refused]}")

    def fill(self, start: int, stop: int, value: float) -> None:
        """Set the priorities of slots start .. stop - 1. Raises ValueError as put does."""
        if not (0 <= start <= stop <= self.num_slots and 0 <= value < np.inf):
            self._refuse(value, f"slots {start} to {stop}")
        _fill(self._sums, self._below, self._leaves + start, self._leaves + stop, value)

    def draw(self, uniform: DoubleArray) -> tuple[IntArray, DoubleArray]:
        """(k,) slots, each the one whose part of [0, total) holds uniform * total, when slots lie there in order, and
        (k,) their priorities.

        `uniform`: (k,) in [0, 1]; 1, to which a caller's arithmetic may round, is taken for a number just below.
        Rounding may move the bounds between slots by some 1e-16 of total, but never yields a slot of priority 0.

        Raises ValueError if all priorities are 0, or so large that their sum is infinite.
        """
        if not 0 < self.total < np.inf:
            raise ValueError(f"nothing can be drawn: the priorities of {self.num_slots} slots sum up to {self.total}")
        nodes, priorities = np.empty(len(uniform), np.uint64), np.empty(len(uniform))
        refused = _draw(self._sums, self._below, uniform, nodes, priorities)
        assert refused < 0, f"uniform[{refused}] is {uniform[refused]}; it must lie in [0, 1]"
        return nodes.view(np.int64), priorities

    def _refuse(self, value: float, where: str) -> None:
        raise ValueError(
            f"priority {value} for {where} of {self.num_slots}; a priority must be finite and >= 0, its slot must exist"
        )


# numba checks no index: these functions do, or return the first refused place; -1 if there is none. Nodes are unsigned:
# of a signed index numba asks each time whether it counts from the end


@njit("float64(float64[:, ::1], uint64)")
def _sum(below: DoubleArray, node: int) -> float:
    """Of what lies directly below this node."""
    return below[node, 0] + below[node, 1] + below[node, 2] + below[node, 3]


@njit("void(float64[::1], float64[:, ::1], uint64, uint64)")
def _climb(sums: DoubleArray, below: DoubleArray, first: int, last: int) -> None:
    """Compute all sums above nodes first .. last of one level."""
    while first > 1:
        first >>= 2
        last >>= 2
        for node in range(first, last + _ONE):
            sums[node] = _sum(below, node)


@njit("void(float64[::1], float64[:, ::1], uint64, uint64, float64)")
def _fill(sums: DoubleArray, below: DoubleArray, first: int, stop: int, value: float) -> None:
    if first < stop:
        sums[first:stop] = value
        _climb(sums, below, first, stop - _ONE)


@njit("int64(float64[::1], float64[:, ::1], int64, int64[:], float64[:])")
def _put(sums: DoubleArray, below: DoubleArray, num_slots: int, slots: IntArray, values: DoubleArray) -> int:
    for i in range(len(slots)):
        if not (0 <= slots[i] < num_slots and 0 <= values[i] < np.inf):
            return i
    level = len(sums) // 2
    nodes = np.empty(len(slots), np.uint64)
    for i in range(len(nodes)):
        nodes[i] = level + slots[i]
        sums[nodes[i]] = values[i]
    while level > len(nodes):
        level >>= 2
        for i in range(len(nodes)):
            nodes[i] >>= 2
            sums[nodes[i]] = _sum(below, nodes[i])
    _climb(sums, below, level, 2 * level - 1)  # the upper levels have fewer nodes than the batch has slots
    return -1


@njit("int64(float64[::1], float64[:, ::1], float64[:], uint64[::1], float64[::1])")
def _draw(
    sums: DoubleArray, below: DoubleArray, uniform: DoubleArray, nodes: npt.NDArray[np.uint64], priorities: DoubleArray
) -> int:
    """Write the drawn slots to `nodes`, and their priorities."""
    rest = priorities  # until then: of uniform * total, what lies below the node
    for i in range(len(nodes)):
        if not 0 <= uniform[i] <= 1:
            return i
        rest[i] = uniform[i] * sums[1]
        nodes[i] = 1
    leaves = len(sums) // 2
    level = 1
    while level < leaves:
        level <<= 2
        for i in range(len(nodes)):
            node = nodes[i]
            first = below[node, 0]
            second = first + below[node, 1]
            third = second + below[node, 2]
            past_first, past_second, past_third = rest[i] >= first, rest[i] >= second, rest[i] >= third
            nodes[i] = (node << 2) + np.uint64(past_first) + np.uint64(past_second) + np.uint64(past_third)
            passed = first if past_first else 0.0
            passed = second if past_second else passed
            rest[i] -= third if past_third else passed
    for i in range(len(nodes)):
        if sums[nodes[i]] == 0:  # `rest` was rounded up to the sum of all that is there, or beyond
            node = _ONE
            left_over = uniform[i] * sums[1]
            while node < leaves:
                last, passed, so_far = 0, 0.0, 0.0
                for part in range(4):
                    if below[node, part] > 0 and left_over >= so_far:
                        last, passed = part, so_far
                    so_far += below[node, part]
                node = (node << 2) + np.uint64(last)
                left_over -= passed
            nodes[i] = node
        priorities[i] = sums[nodes[i]]
        nodes[i] -= leaves
    return -1
