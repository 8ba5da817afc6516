"""No row holds or spans a bad number, and no other row is missing: against a model, whatever happens when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.acting import Policy, PolicySpec
from core.net import NetSpec, num_parameters
from core.ring import Ring, Word
from core.types import ActionSpec, EnvSpec, FieldSpec, FloatArray, IntArray, Recording, Rows
from envproc import guard as guard_of
from envproc.accumulator import Accumulator
from envproc.contract import Broken
from envproc.env import BadNumber, CannotReset, Ended, Step
from envproc.guard import Guard
from envproc.sequences import Sequences

NUM = 3
GAMMA = 0.5
SPEC = EnvSpec({"x": FieldSpec((3,)), "far": FieldSpec((1,), "float64")}, ActionSpec((-1.0,), (1.0,)), NUM)
NET = NetSpec({"x": (3,), "far": (1,)}, (4,), 1, lstm=2, extras={"sigma": 1})
BAD = (np.nan, np.inf, -np.inf)


@dataclass(frozen=True)
class Fate:
    """What one agent meets in one step: an end or none, then a decision or none; what is bad about either."""

    ends: str = ""
    """terminated, truncated or nothing"""
    decides: bool = True
    bad_end: str = ""
    """which of x, far and reward is bad; or nothing"""
    bad_now: str = ""
    bad_action: bool = False
    """of the decision before the step"""


WHERE = st.sampled_from(["", "", "", "", "x", "far", "reward"])
FATES = st.builds(
    Fate,
    st.sampled_from(["", "", "", "", "terminated", "truncated"]),
    st.sampled_from([True, True, True, False]),
    WHERE,
    WHERE,
    st.sampled_from([False] * 9 + [True]),
)


@dataclass
class Life:
    """Decisions of one agent that belong together."""

    sights: list[tuple[float, ...]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    end: str = ""

    def rows(self, n_step: int) -> list[tuple[Any, ...]]:
        """(sight, reward, discount, next sight) of all that are complete."""
        result = []
        for t in range(len(self.rewards)):
            length = min(n_step, len(self.rewards) - t)
            if length == n_step or self.end in ("terminated", "truncated"):
                ends = self.end == "terminated" and t + length == len(self.rewards)
                reward = sum(GAMMA**i * self.rewards[t + i] for i in range(length))
                result.append((self.sights[t], reward, 0.0 if ends else GAMMA**length, self.sights[t + length]))
        return result


class World:
    """A guarded accumulator in an environment of these fates, and a model of what must become of each agent."""

    def __init__(self, recording: Recording, ring: Ring) -> None:
        self.accumulator: Any = (Sequences if recording.length else Accumulator)(SPEC, recording)
        self.policy = Policy(PolicySpec(NET, "tanh"), SPEC.action, NUM, np.ones(num_parameters(NET), np.float32), 0)
        self.writer = ring.writer(0, 0)
        self.spec = SPEC
        env: Any = self  # as far as the guard asks
        self.guard = Guard(env, recording, self.accumulator, self.policy, self.writer)
        self.asked: set[int] = set()
        """whom the environment is to reset"""
        self.lives = [[Life()] for _ in range(NUM)]
        self.rows: list[Rows] = []
        self.refused = 0
        self._is_blind = [False] * NUM
        self._is_there = [True] * NUM
        self._time = 0
        nobody = Ended(*self._side([], []), np.zeros(0, np.bool_))
        self.step = self.guard.observe(Step(*self._side(list(range(NUM)), [""] * NUM), nobody))
        for agent in range(NUM):
            self._go_on(agent, 0.0)

    def reset_agents(self, agents: IntArray) -> None:
        self.asked |= set(agents.tolist())

    def turn(self, fates: list[Fate]) -> None:
        """As a worker does it."""
        step = self.step
        decision = self.policy.explore({name: each.astype("f4") for name, each in step.obs.items()}, step.agent)
        for place, agent in enumerate(step.agent.tolist()):
            if fates[agent].bad_action:
                decision.action[place] = np.nan
                self.refused += self._lose(agent)
        self.guard.decide(step.agent, step.obs, decision)
        assert np.isfinite(decision.action).all() and np.isfinite(decision.state).all()
        self.step = step = self.guard.observe(self._play(fates))
        assert all(np.isfinite(values).all() for side in (step, step.ended) for values in side.obs.values())
        self.rows.append(self.accumulator.observe(step).copy())
        self.policy.restart(step.ended.agent)

    def _play(self, fates: list[Fate]) -> Step:
        """The next step, and what it means."""
        self._time += 1
        forced, self.asked = self.asked, set()
        fates = [Fate("truncated", True, "x", fate.bad_now) if n in forced else fate for n, fate in enumerate(fates)]
        ending = [agent for agent in range(NUM) if fates[agent].ends and self._is_there[agent]]
        deciding = [agent for agent in range(NUM) if fates[agent].decides]
        last = self._side(ending, [fates[agent].bad_end for agent in ending])
        now = self._side(deciding, [fates[agent].bad_now for agent in deciding])
        refused = []
        for agent, reward in zip(ending, last[2].tolist(), strict=True):
            if fates[agent].bad_end:
                refused += [agent] * self._lose(agent)
            elif self.lives[agent][-1].sights:
                self._go_on(agent, reward)
                self.lives[agent][-1].end = fates[agent].ends
            self.lives[agent].append(Life())
            self._is_blind[agent] = self._is_there[agent] = False
        for agent, reward in zip(deciding, now[2].tolist(), strict=True):
            self._is_blind[agent], self._is_there[agent] = False, True
            if fates[agent].bad_now:
                refused += [agent] * self._lose(agent)
            else:
                self._go_on(agent, reward)
        self.refused += len(set(refused))
        terminated = np.array([fates[agent].ends == "terminated" for agent in ending], np.bool_)
        return Step(*now, Ended(*last, terminated))

    def _go_on(self, agent: int, reward: float) -> None:
        life = self.lives[agent][-1]
        if life.sights:
            life.rewards.append(reward)
        life.sights.append(self._sight(agent))

    def _lose(self, agent: int) -> bool:
        """What this agent has open makes no row. False if it sees nothing anyway."""
        was_blind, self._is_blind[agent] = self._is_blind[agent], True
        if not was_blind:
            self.lives[agent].append(Life())
        return not was_blind

    def _sight(self, agent: int) -> tuple[float, ...]:
        return (float(agent), float(self._time), 1.0)

    def _see(self, agents: IntArray) -> dict[str, Any]:
        x = np.stack([agents, np.full(len(agents), self._time), np.ones(len(agents))], axis=1).astype(np.float32)
        return {"x": x, "far": np.ones((len(agents), 1))}

    def _side(self, agents: list[int], bad: list[str]) -> tuple[IntArray, dict[str, Any], FloatArray]:
        obs = self._see(np.array(agents, np.int64))
        reward = np.array([self._time + agent / 8 for agent in agents], np.float32)
        for place, where in enumerate(bad):
            if where == "reward":
                reward[place] = BAD[self._time % 3]
            elif where:
                obs[where][place, -1] = 1e39 if where == "far" else BAD[self._time % 3]
        return np.array(agents, np.int64), obs, reward


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_of, "_WITHIN", 0)


def met(recording: Recording, turns: list[list[Fate]]) -> World:
    with Ring.create(SPEC, recording, 1, 10_000) as ring:
        world = World(recording, ring)
        for fates in turns:
            world.turn(fates)
        assert world.writer.words.item(Word.REFUSED) == world.refused
        return world


@given(st.integers(1, 4), st.lists(st.lists(FATES, min_size=NUM, max_size=NUM), max_size=30))
@settings(max_examples=150, deadline=None)
def test_rows_are_all_that_a_model_says_and_no_other(n_step: int, turns: list[list[Fate]]) -> None:
    world = met(Recording(GAMMA, n_step), turns)
    for agent in range(NUM):
        expected = [row for life in world.lives[agent] for row in life.rows(n_step)]
        own = [row for rows in world.rows for row in rows if row["agent"] == agent]
        found = [
            (tuple(row["obs"]["x"]), float(row["reward"]), float(row["discount"]), tuple(row["next_obs"]["x"]))
            for row in own
        ]
        assert sorted(found) == sorted(expected), agent


@given(st.lists(st.lists(FATES, min_size=NUM, max_size=NUM), max_size=30))
@settings(max_examples=100, deadline=None)
def test_sequences_hold_decisions_of_one_life_alone_one_after_the_other(turns: list[list[Fate]]) -> None:
    world = met(Recording(GAMMA, length=4, stride=2, state_dim=4), turns)
    for row in (row for rows in world.rows for row in rows):
        agent, filled = int(row["agent"]), int(row["valid"].sum())
        sights = [tuple(sight) for sight in row["obs"]["x"][: filled + 1]]
        assert any(
            sights == life.sights[first : first + filled + 1]
            for life in world.lives[agent]
            for first in range(len(life.sights))
        ), (agent, sights)
        assert all(np.isfinite(row[name]).all() for name in ("reward", "discount", "action", "state"))


def test_an_agent_that_saw_a_bad_number_forgets_and_the_others_remember() -> None:
    with Ring.create(SPEC, Recording(), 1, 10_000) as ring:
        world = World(Recording(), ring)
        world.turn([Fate(), Fate(bad_now="x"), Fate()])
        assert world.policy._state.any(axis=1).tolist() == [True, False, True]
        assert world.step.obs["x"].any(axis=1).tolist() == [True, False, True]
        assert world.asked == {1}


def test_a_few_bad_numbers_among_many_are_an_accident_and_more_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_of, "_WITHIN", 1000)
    one_bad, none_bad = [Fate(bad_now="x"), Fate(), Fate()], [Fate()] * NUM

    def turns_until_failure(decisions: int) -> int:
        with Ring.create(SPEC, Recording(), 1, 10_000) as ring:
            world = World(Recording(), ring)
            for number in range(100):
                try:
                    world.turn(none_bad if number % 2 else one_bad)
                except BadNumber as error:
                    assert "agent 0" in str(error) and "more than 10 agent steps" in str(error)
                    return number
                world.writer.decided(decisions)
        return 100

    assert turns_until_failure(decisions=49) == 20  # 11 of 981 decisions
    assert turns_until_failure(decisions=50) == 100


def test_a_reward_passes_if_the_sum_of_its_window_is_finite_however_large_the_others_are() -> None:
    def refused(n_step: int, reward: float) -> int:
        with Ring.create(SPEC, Recording(n_step=n_step), 1, 10_000) as ring:
            world = World(Recording(1.0, n_step=n_step), ring)
            for _ in range(n_step):
                world.guard.decide(world.step.agent, world.step.obs, world.policy.guess({}, world.step.agent))
                step = world.guard.observe(world.step._replace(reward=np.full(NUM, reward, np.float32)))
                assert np.isfinite(world.accumulator.observe(step)["reward"]).all()
            return world.writer.words.item(Word.REFUSED)

    assert refused(1, 3.4e38) == refused(1, -3.4e38) == refused(3, 1.1e38) == 0
    assert refused(3, -1.2e38) > 0


def test_the_policys_own_bad_numbers_are_a_failure_where_the_episode_cannot_be_ended() -> None:
    with Ring.create(SPEC, Recording(), 1, 10_000) as ring:
        world = World(Recording(), ring)

        def refuse(agents: IntArray) -> None:
            raise CannotReset("they are welded together")

        world.reset_agents = refuse  # type: ignore[method-assign]
        with pytest.raises(BadNumber, match=r"the policy gave agent 2 .* as its action, .* welded together"):
            world.turn([Fate(), Fate(), Fate(bad_action=True)])


def test_another_form_of_a_step_is_seen_in_every_step() -> None:
    with Ring.create(SPEC, Recording(), 1, 10_000) as ring:
        world = World(Recording(), ring)
        for number in range(1, 260):
            world.turn([Fate(ends="truncated" if number % 5 == 0 else "")] * NUM)
        ended: Any = world.step.ended._replace(agent=np.array([1]), reward=np.zeros(1, np.float32))
        ended = ended._replace(obs={"x": np.zeros((1, 3), "f4"), "far": np.zeros((1, 1))}, terminated=np.ones(1))
        with pytest.raises(Broken, match=r"step 260: ended.terminated has dtype float64; make it bool"):
            world.guard.observe(world.step._replace(ended=ended))
        with pytest.raises(Broken, match=r"step 261: obs\['far'\] has dtype float32; make it float64"):
            world.guard.observe(world.step._replace(obs={**world.step.obs, "far": np.zeros((NUM, 1), "f4")}))
