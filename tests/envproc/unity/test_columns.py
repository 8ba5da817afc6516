"""Columns against what is promised of them, whatever ids come and go."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from envproc.unity.columns import Columns, TooManyAgents


class ColumnsAgainstDicts(RuleBasedStateMachine):
    """Who has an open episode and where, and which ids had which column last; nothing of how one is chosen."""

    @initialize(num=st.integers(1, 5))
    def create(self, num: int) -> None:
        self.num = num
        self.columns = Columns(num)
        self.open: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.used: dict[int, int] = {}
        self.ends: list[int] = []
        """columns in the order in which they were closed, each at its last end"""

    @rule(ids=st.lists(st.integers(-3, 8), max_size=6, unique=True))
    def decide(self, ids: list[int]) -> None:
        """Ids that stay the same, that are new, that come back."""
        new = {each for each in ids if each not in self.open}
        if len(self.open) + len(new) > self.num:
            with pytest.raises(TooManyAgents, match=f"more than {self.num} agents .*--unity.max-agents"):
                self.columns.decide(ids)
            self.create(self.num)  # whose environment ends with it
            return
        columns = self.columns.decide(ids).tolist()
        assert len(columns) == len(ids)
        for each, column in zip(ids, columns, strict=True):
            assert 0 <= column < self.num
            if each in self.open:
                assert column == self.open[each], "an id that goes on stays where it is"
                continue
            assert column not in self.open.values(), "a column has one open episode"
            if self.last.get(each) is not None and self.used[self.last[each]] == each:
                assert column == self.last[each], "an id that comes back has its old column if nobody has had it since"
            elif len(self.used) < self.num:
                assert column not in self.used, "nobody loses his column while there are others"
            else:
                assert column == next(old for old in self.ends if old not in self.open.values()), "closed longest ago"
            self.open[each] = self.last[each] = column
            self.used[column] = each

    @rule(ids=st.lists(st.integers(-3, 12), max_size=8))
    def end(self, ids: list[int]) -> None:
        columns, which = self.columns.end(ids)
        expected = []
        for place, each in enumerate(ids):
            if each in self.open:
                expected.append((self.open[each], place))
                self.close(each)
        assert list(zip(columns.tolist(), which, strict=True)) == expected

    @rule()
    def end_all(self) -> None:
        self.columns.end_all()
        for each in sorted(self.open, key=self.open.__getitem__):
            self.close(each)

    def close(self, each: int) -> None:
        column = self.open.pop(each)
        self.ends = [old for old in self.ends if old != column] + [column]

    @invariant()
    def columns_say_who_is_there(self) -> None:
        for column in range(self.num):
            assert self.columns.is_open(column) == (column in self.open.values())
            assert self.columns.id_of(column) == self.used.get(column)


TestColumnsAgainstDicts = ColumnsAgainstDicts.TestCase
TestColumnsAgainstDicts.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_agents_that_keep_their_ids_keep_the_order_in_which_they_came() -> None:
    columns = Columns(3)
    assert columns.decide([4, 0, 9]).tolist() == [0, 1, 2]
    assert columns.end([9, 4])[0].tolist() == [2, 0]
    assert columns.decide([9, 0, 4]).tolist() == [2, 1, 0]


def test_agents_that_draw_a_new_id_for_each_episode_stay_in_order_too() -> None:
    columns = Columns(3)
    for episode in range(5):
        ids = [3 * episode + each for each in range(3)]
        assert columns.decide(ids).tolist() == [0, 1, 2]
        columns.end(ids)


def test_an_agent_that_ended_before_its_first_decision_is_nobodys() -> None:
    columns = Columns(2)
    columns.decide([1])
    assert [list(each) for each in columns.end([7, 1, 1])] == [[0], [1]]
    assert [list(each) for each in columns.end([])] == [[], []]
