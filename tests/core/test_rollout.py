"""Reading in order against plain lists: whatever the lanes do, every row is used once, in its agent's time order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.ring import Ring, Word
from core.rollout import InOrder, Rollout, capacity_for
from core.types import ActionSpec, EnvSpec, FieldSpec, Learned, Recording, Rows

CPU = torch.device("cpu")


class FakeLane:
    """A worker whose agents decide when they like: (agent, decision, number) of each row, in the order of writing."""

    def __init__(self, ring: Ring, lane: int) -> None:
        self.ring, self.lane, self.writer = ring, lane, ring.writer(lane, 0)
        self.open: dict[int, int] = {}  # agent -> its decision that has no row yet
        self.decisions = [0] * ring.spec.num_agents  # of the running episode
        self.written: list[tuple[int, int, float]] = []

    def step(self, random: np.random.Generator) -> None:
        waiting = [agent for agent in range(len(self.decisions)) if agent not in self.open]
        deciding = [agent for agent in waiting if random.random() < 0.7]
        for agent in deciding:
            self.open[agent] = self.decisions[agent]
            self.decisions[agent] += 1
        rows: list[tuple[int, int, float]] = []
        for agent in list(self.open):
            outcome = random.choice(["no row yet", "row", "end", "reset"], p=[0.3, 0.5, 0.1, 0.1])
            if outcome in ("row", "end"):
                rows.append((agent, self.open[agent], float(len(self.written) + len(rows))))
            if outcome in ("end", "reset"):
                self.decisions[agent] = 0
            if outcome != "no row yet":
                del self.open[agent]
        if rows:
            self.writer.append(self.structured(rows))
        self.written += rows
        self.writer.decided(len(deciding))

    def structured(self, rows: list[tuple[int, int, float]]) -> Rows:
        result: Rows = np.zeros(len(rows), self.ring.layout)
        for row, (agent, decision, number) in zip(result, rows, strict=True):
            row["agent"], row["decision"], row["reward"] = agent, decision, number
            row["obs"]["x"] = row["next_obs"]["x"] = (self.lane, number)
            row["log_prob"], row["discount"] = -number, 0.9
        return result


class InOrderAgainstLists(RuleBasedStateMachine):
    """The ring is so small that it wraps every few rollouts; a row that was overwritten would carry another number."""

    @initialize(
        lanes=st.integers(1, 3), agents=st.integers(1, 4), horizon=st.integers(1, 9), ahead=st.integers(0, 2),
        seed=st.integers(0, 2**32),
    )  # fmt: skip
    def create(self, lanes: int, agents: int, horizon: int, ahead: int, seed: int) -> None:
        spec = EnvSpec({"x": FieldSpec((2,))}, ActionSpec(branches=(2,)), agents)
        self.ring = Ring.create(spec, Recording(ordered=True), lanes, capacity_for(agents, lanes, horizon, ahead))
        self.lanes = [FakeLane(self.ring, lane) for lane in range(lanes)]
        self.feed = InOrder(self.ring, horizon, ahead, CPU)
        self.due = lanes * agents * horizon
        self.used = [0] * lanes
        self.rollout: Rollout | None = None
        self.expected: list[tuple[int, int, int, float]] = []
        self.random = np.random.default_rng(seed)

    @rule(lane=st.integers(0, 2), steps=st.integers(1, 60))
    def run(self, lane: int, steps: int) -> None:
        """As far as it may; one lane far more often than another, if it so happens."""
        worker = self.lanes[lane % len(self.lanes)]
        for _ in range(steps):
            if worker.writer.may_go_on():
                worker.step(self.random)

    @rule()
    def allow(self) -> None:
        self.feed.allow(0)

    @rule()
    def keep_running_until_an_update_is_due(self) -> None:
        """There is no moment at which neither side may move."""
        for _ in range(10_000):
            if self.rollout is not None or self.unused >= self.due:
                return
            self.feed.allow(0)
            assert any(each.writer.may_go_on() for each in self.lanes)
            for each in self.lanes:
                if each.writer.may_go_on():
                    each.step(self.random)
        raise AssertionError("no update ever becomes due")

    @precondition(lambda self: self.rollout is None)
    @rule()
    def begin_to_learn(self) -> None:
        self.rollout = self.feed.next(0)
        assert (self.rollout is not None) == (self.unused >= self.due)
        if self.rollout is None:
            return
        self.expected = []
        for lane, used in zip(self.lanes, self.used, strict=True):
            for agent in range(self.ring.spec.num_agents):
                self.expected += [(lane.lane, *row) for row in lane.written[used:] if row[0] == agent]
        self.used = [len(lane.written) for lane in self.lanes]

    @precondition(lambda self: self.rollout is not None)
    @rule()
    def end_learning(self) -> None:
        self.feed.learned(Learned({}))
        self.rollout = None

    @property
    def unused(self) -> int:
        return sum(len(lane.written) - used for lane, used in zip(self.lanes, self.used, strict=True))

    @invariant()
    def what_is_learned_from_are_the_rows_since_the_last_time_agent_by_agent(self) -> None:
        if getattr(self, "rollout", None) is None:
            return
        rollout, expected = self.rollout, self.expected
        assert rollout is not None
        assert len(rollout) == len(expected)
        whose = [lane * self.ring.spec.num_agents + agent for lane, agent, _, _ in expected]
        assert rollout.agent.tolist() == whose
        assert rollout.decision.tolist() == [decision for _, _, decision, _ in expected]
        assert rollout.reward.tolist() == [number for *_, number in expected]
        assert rollout.log_prob.tolist() == [-number for *_, number in expected]
        follows = [
            whose[i + 1 : i + 2] == [whose[i]] and expected[i + 1][2] == expected[i][2] + 1 for i in range(len(whose))
        ]
        assert rollout.follows.tolist() == follows
        for where, batch in rollout.in_pieces():  # from the ring itself, as long as it is learned from
            seen = [(int(lane), float(number)) for lane, number in batch.obs["x"].tolist()]
            assert seen == [(expected[i][0], expected[i][3]) for i in where]

    @invariant()
    def no_lane_is_further_than_it_may_be(self) -> None:
        if hasattr(self, "feed"):
            behind = self.ring.load(Word.PUBLISHED) - self.ring.load(Word.DONE)
            assert (behind <= self.feed._limit + 2 * self.ring.spec.num_agents).all()

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()


TestInOrder = InOrderAgainstLists.TestCase
TestInOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def rollout_of(count: int) -> tuple[Ring, Rollout]:
    """One agent's rows, whose obs are (0, their number)."""
    spec = EnvSpec({"x": FieldSpec((2,))}, ActionSpec(branches=(2,)), 1)
    ring = Ring.create(spec, Recording(ordered=True), 1, 2 * count + 8)
    lane = FakeLane(ring, 0)
    lane.writer.append(lane.structured([(0, number, float(number)) for number in range(count)]))
    return ring, Rollout(ring, np.zeros(count, np.int64), np.arange(count), CPU)


def test_each_epoch_takes_every_row_once_in_another_order_in_parts_of_about_the_same_size() -> None:
    ring, rollout = rollout_of(1003)
    with ring:
        random, orders = np.random.default_rng(0), []
        for _ in range(3):
            order: list[int] = []
            for which, batch in rollout.shuffled(64, random):
                assert 62 <= len(which) <= 66
                assert batch.obs["x"][:, 1].tolist() == which.tolist()
                order += which.tolist()
            assert Counter(order) == Counter(range(1003))
            orders.append(order)
        assert orders[0] != orders[1] != orders[2] != list(range(1003))


def test_a_rollout_smaller_than_a_part_is_one_part() -> None:
    ring, rollout = rollout_of(5)
    with ring:
        assert [len(which) for which, _ in rollout.shuffled(64, np.random.default_rng(0))] == [5]


def test_of_learners_with_unequal_rollouts_each_makes_equally_many_parts() -> None:
    for rows in (300, 100):
        ring, rollout = rollout_of(rows)
        with ring:
            rollout.lengths = (300, 100)
            assert len(list(rollout.shuffled(50, np.random.default_rng(0)))) == 4, "200 rows on average"


def test_pieces_of_chosen_rows_say_where_they_stand() -> None:
    ring, rollout = rollout_of(3000)
    with ring:
        chosen = np.arange(1, 3000, 2)
        for which in (chosen, chosen[:0]):
            found = [
                (i, number)
                for where, batch in rollout.in_pieces(which)
                for i, number in zip(where.tolist(), batch.obs["x"][:, 1].tolist(), strict=True)
            ]
            assert found == [(i, float(i)) for i in which.tolist()]


def test_in_lock_step_a_lane_that_decides_more_often_waits_for_the_others() -> None:
    spec = EnvSpec({"x": FieldSpec((2,))}, ActionSpec(branches=(2,)), 2)
    with Ring.create(spec, Recording(ordered=True), 2, capacity_for(2, 2, 4, 0)) as ring:
        feed, lanes = InOrder(ring, 4, 0, CPU), [FakeLane(ring, lane) for lane in range(2)]
        random = np.random.default_rng(0)
        while feed.takes_part()[0]:
            lanes[0].step(random)
        assert feed.takes_part().tolist() == [False, True]
        assert feed.next(0) is None
        while feed.next(0) is None:
            assert feed.takes_part()[1]
            lanes[1].step(random)
        feed.learned(Learned({}))
        assert feed.takes_part().all()
