"""Which agent stands in which column.

On the wire an agent has an id. Most scenes keep it for ever; others draw a new one for each episode, or spawn and
destroy agents. From here on an agent is a column: an id keeps its own for as long as nobody else needs it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from core.types import IntArray
from envproc.env import EnvFailed


class TooManyAgents(EnvFailed):
    """There are more agents than columns."""


class Columns:
    """The columns of one behaviour in one player."""

    def __init__(self, num: int) -> None:
        self._column: dict[int, int] = {}  # of every id that has one, be its episode open or not
        self._id: list[int | None] = [None] * num
        self._open = [False] * num
        self._closed = [0] * num  # when its last episode ended; 0: never used
        self._ends = 0

    def decide(self, ids: Iterable[int]) -> IntArray:
        """(n,) the columns of these agents, whose episodes are open from here on.

        Raises TooManyAgents if there are more agents than columns.
        """
        columns = []
        for each in ids:
            column = self._column[each] if each in self._column else self._take(each)
            self._open[column] = True
            columns.append(column)
        return np.array(columns, np.int64)

    def end(self, ids: Iterable[int]) -> tuple[IntArray, list[int]]:
        """Close these agents' episodes: (m,) the columns, and which of `ids` they are.

        Left out is who had no open episode: an agent that ended before its first decision is nobody's.
        """
        columns, which = [], []
        for place, each in enumerate(ids):
            column = self._column.get(each)
            if column is not None and self._open[column]:
                self._close(column)
                columns.append(column)
                which.append(place)
        return np.array(columns, np.int64), which

    def end_all(self) -> None:
        for column, is_open in enumerate(self._open):
            if is_open:
                self._close(column)

    def is_open(self, column: int) -> bool:
        return self._open[column]

    def id_of(self, column: int) -> int | None:
        """The id that has this column; None if nobody has had it yet."""
        return self._id[column]

    def _close(self, column: int) -> None:
        self._ends += 1
        self._open[column] = False
        self._closed[column] = self._ends

    def _take(self, new: int) -> int:
        """Give `new` a column without an open episode: one that was never used, or the one closed longest ago."""
        free = [column for column, is_open in enumerate(self._open) if not is_open]
        if not free:
            raise TooManyAgents(
                f"more than {len(self._open)} agents live at once in the scene, and no more decided at first; "
                f"say how many there may be, as in --unity.max-agents {2 * len(self._open) + 2}"
            )
        column = min(free, key=self._closed.__getitem__)
        old = self._id[column]
        if old is not None:
            del self._column[old]
        self._id[column] = new
        self._column[new] = column
        return column
