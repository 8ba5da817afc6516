"""check_env passes what keeps the contract, and catches one broken rule at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.types import Action, ActionSpec, EnvSpec, FieldSpec, IntArray
from envproc.env import Ended, Step
from tests.contracts import check_env


class Walkers:
    """Four random walkers, as awkward as the contract allows.

    Number i is asked at every (i + 1)th step only; it ends truly when it is 3 away from home, by truncation after 8
    steps, is told at once, and waits where it starts anew until it is asked. So a Step may hold ends and no decisions.
    """

    num = 4

    def __init__(self) -> None:
        self.spec = EnvSpec({"vector": FieldSpec((2,))}, ActionSpec((-0.5,), (1.5,), (2, 3)), self.num)

    def reset(self, seed: int) -> Step:
        self.random = [np.random.default_rng([seed, agent]) for agent in range(self.num)]
        self.time = 0
        self.place, self.age = np.zeros(self.num), np.zeros(self.num)
        self.walking: set[int] = set()
        self.asked: list[int] = []
        for agent in range(self.num):
            self.restart(agent)
        return self.tell([])

    def restart(self, agent: int) -> None:
        self.place[agent], self.age[agent] = self.random[agent].uniform(-1, 1), 0
        self.walking.discard(agent)

    def step(self, action: Action) -> Step:
        self.time += 1
        self.place[self.deciding] += action.continuous[:, 0] * action.discrete[:, 1]
        self.age += 1
        ends: list[tuple[int, list[float], bool]] = []
        for agent in sorted(self.walking):
            fell = bool(abs(self.place[agent]) > 3)
            if agent in self.asked or fell or self.age[agent] >= 8:
                ends.append((agent, self.see(agent), fell and agent not in self.asked))
                self.restart(agent)
        self.asked = []
        return self.tell(ends)

    def see(self, agent: int) -> list[float]:
        return [self.place[agent], self.age[agent] if agent in self.walking else 0.0]

    def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
        self.deciding = np.flatnonzero(self.time % (np.arange(self.num) + 1) == 0)
        who = np.array([agent for agent, _, _ in ends], np.int64)
        last = np.array([seen for _, seen, _ in ends], np.float32).reshape(-1, 2)
        terminated = np.array([fell for _, _, fell in ends], np.bool_)
        ended = Ended(who, {"vector": last}, np.ones(len(ends), np.float32), terminated)
        obs = np.array([self.see(agent) for agent in self.deciding.tolist()], np.float32).reshape(-1, 2)
        self.walking |= set(self.deciding.tolist())
        return Step(self.deciding, {"vector": obs}, np.ones(len(obs), np.float32), ended)

    def reset_agents(self, agents: IntArray) -> None:
        self.asked += agents.tolist()

    def close(self) -> None: ...


def ended(step: Step, **changed: Any) -> Step:
    return step._replace(ended=step.ended._replace(**changed))


class ResetsEverybody(Walkers):
    def reset_agents(self, agents: IntArray) -> None:
        self.asked += range(self.num)


class ShakesEverybody(Walkers):
    def reset_agents(self, agents: IntArray) -> None:
        super().reset_agents(agents)
        self.place += 1e-6


class ShakesReusedArrays(Walkers):
    """Tells everything in the same arrays, and something else in one of them once there was a forced reset."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field, self.shift = field, 0.0
        self.arrays: dict[tuple[str, int], Any] = {}

    def reset(self, seed: int) -> Step:
        self.shift = 0.0
        return super().reset(seed)

    def reset_agents(self, agents: IntArray) -> None:
        super().reset_agents(agents)
        self.shift = 1.0

    def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
        step = super().tell(ends)
        obs, last = self.put("obs", step.obs["vector"]), self.put("last", step.ended.obs["vector"])
        step = step._replace(obs={"vector": obs}, reward=self.put("reward", step.reward))
        return ended(step, obs={"vector": last}, reward=self.put("last_reward", step.ended.reward))

    def put(self, field: str, values: Any) -> Any:
        array = self.arrays.setdefault((field, len(values)), values)
        array[:] = values + (self.shift if field == self.field else 0.0)
        return array


class SharesItsLuck(Walkers):
    def reset(self, seed: int) -> Step:
        super().reset(seed)
        self.random = [np.random.default_rng(seed)] * self.num
        return self.tell([])


class ForgetsItsSeed(Walkers):
    def reset(self, seed: int) -> Step:
        return super().reset(np.random.SeedSequence().generate_state(1).item())


class DeafToResets(Walkers):
    def reset_agents(self, agents: IntArray) -> None: ...


class CallsAResetATrueEnd(Walkers):
    def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
        step = super().tell(ends)
        return step._replace(ended=step.ended._replace(terminated=np.ones(len(ends), np.bool_)))


class StopsTheOthers(Walkers):
    """In the middle of their episodes, some time after a forced reset."""

    def reset(self, seed: int) -> Step:
        self.num, self.stopping = 4, False
        return super().reset(seed)

    def step(self, action: Action) -> Step:
        self.stopping = self.stopping or bool(self.asked)
        if self.stopping and len(self.walking) == 4:
            self.num, self.walking = 1, {0}
        return super().step(action)


class LosesWhoEnded(Walkers):
    """From then on nobody is asked who has ended once."""

    def reset(self, seed: int) -> Step:
        self.lost: set[int] = set()
        return super().reset(seed)

    def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
        step = super().tell(ends)
        self.lost |= {agent for agent, _, _ in ends}
        keep = ~np.isin(step.agent, list(self.lost))
        self.deciding = step.agent[keep]
        self.walking -= self.lost
        return Step(self.deciding, {"vector": step.obs["vector"][keep]}, step.reward[keep], step.ended)


class EndsTwice(Walkers):
    """Goes on reporting an agent that ended until somebody else has."""

    told: list[tuple[int, list[float], bool]]

    def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
        self.told = ends or (self.told if self.time else [])
        return super().tell(self.told)


class EndsBeforeItBegins(Walkers):
    def reset(self, seed: int) -> Step:
        super().reset(seed)
        return self.tell([(2, [0.0, 0.0], False)])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (ResetsEverybody(), r"reset_agents\(\[\d\]\) gave agent \d another event .*truncation.*touch that agent alone"),
        (ShakesEverybody(), r"reset_agents\(\[\d\]\) gave agent \d another obs\['vector'\] at event"),
        (ShakesReusedArrays("obs"), r"gave agent \d another obs\['vector'\] at event"),
        (ShakesReusedArrays("last"), r"gave agent \d another obs\['vector'\] at event"),
        (ShakesReusedArrays("reward"), r"gave agent \d another reward at event \d+: 1\.0 in one walk, 2\.0"),
        (ShakesReusedArrays("last_reward"), r"gave agent \d another reward at event"),
        (SharesItsLuck(), r"reset_agents\(\[\d\]\) gave agent \d another .*random numbers of its own"),
        (StopsTheOthers(), r"reset_agents\(\[\d\]\) gave agent \d another number of events"),
        (ForgetsItsSeed(), "the same seed 0 and the same actions gave agent 0 another obs.*generators that reset"),
        (DeafToResets(), r"step 50 after reset_agents\(\[\d\]\) does not report agent \d as truncated; put it into"),
        (CallsAResetATrueEnd(), "does not report agent . as truncated.*terminated False"),
        (LosesWhoEnded(), r"agents \[0 .*\] ended at steps .* and were not seen again up to step 100; start the next"),
        (EndsTwice(), r"reports the end of agents \[\d\], which have no open episode; report an end once"),
        (EndsBeforeItBegins(), r"reset\(0\) reports the end of agents \[2\]; start with nobody in ended"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Walkers) else "",
)
def test_an_environment_that_breaks_one_rule_is_told_which_and_what_to_do(env: Walkers, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_env(env, steps=100)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s._replace(obs={"vector": s.obs["vector"].astype(float)}), "obs['vector'] has dtype float64; make"),
        (lambda s: s._replace(obs={"vector": s.obs["vector"][:, :1]}), "has shape (4, 1); make it (4, 2), or change"),
        (lambda s: s._replace(obs={"vector": s.obs["vector"] * np.nan}), "Step.obs['vector'][0, 0] is nan; every num"),
        (lambda s: s._replace(obs={"image": s.obs["vector"]}), "has the fields ['image']; give those of spec, ['vec"),
        (lambda s: s._replace(obs={"vector": [[0.0, 0.0]] * 4}), "Step.obs['vector'] is a list; give a numpy array"),
        (lambda s: s._replace(reward=s.reward * np.float32(np.inf)), "Step.reward[0] is inf"),
        (lambda s: s._replace(reward=s.reward[:, None]), "Step.reward has shape (4, 1); make it (4,)"),
        (lambda s: s._replace(agent=s.agent.astype(np.int32)), "Step.agent has dtype int32; make it int64"),
        (lambda s: s._replace(agent=s.agent + 1), "Step.agent has columns [4]; stay within 0..3"),
        (lambda s: s._replace(agent=s.agent - 1), "Step.agent has columns [-1]; stay within 0..3"),
        (lambda s: s._replace(agent=s.agent * 0), "Step.agent has columns [0 0 0 0] more than once"),
        (lambda s: ended(s, terminated=np.zeros(0, np.int64)), "Step.ended.terminated has dtype int64; make it bool"),
        (lambda s: ended(s, terminated=np.zeros(1, np.bool_)), "Step.ended.terminated has shape (1,); make it (0,)"),
        (lambda s: ended(s, reward=np.zeros(0)), "Step.ended.reward has dtype float64; make it float32"),
        (lambda s: ended(s, obs={}), "Step.ended.obs has the fields []"),
    ],
)
def test_a_step_that_is_not_of_the_specs_shape_is_told_where_and_what_it_should_be(
    spoil: Callable[[Step], Step], message: str
) -> None:
    class Spoiled(Walkers):
        def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
            return spoil(super().tell(ends))

    with pytest.raises(AssertionError, match=rf"^reset\(0\): .*{re.escape(message)}"):
        check_env(Spoiled(), steps=100)


def test_an_environment_that_keeps_the_contract_passes_and_stays_usable() -> None:
    env = Walkers()
    for seed in range(5):
        check_env(env, steps=100, seed=seed)
    assert len(env.reset(0).agent) == 4


def test_agents_that_share_a_world_may_notice_each_other() -> None:
    check_env(SharesItsLuck(), steps=100, independent=False)


def test_an_environment_in_which_nobody_ever_acts_is_refused() -> None:
    class Idle(Walkers):
        num = 0

        def __init__(self) -> None:
            self.spec = EnvSpec({"vector": FieldSpec((2,))}, ActionSpec((-0.5,), (1.5,), (2, 3)), 4)

    with pytest.raises(AssertionError, match="nobody asked for an action in 100 steps"):
        check_env(Idle(), steps=100)


def test_a_spec_without_agents_or_fields_and_a_walk_too_short_are_refused() -> None:
    env = Walkers()
    with pytest.raises(AssertionError, match="3 steps are too few"):
        check_env(env, steps=3)
    env.spec = EnvSpec({"vector": FieldSpec((2,))}, ActionSpec((-1.0,), (1.0,)), 0)
    with pytest.raises(AssertionError, match=r"spec\.num_agents is 0"):
        check_env(env)
    env.spec = EnvSpec({}, ActionSpec((-1.0,), (1.0,)), 4)
    with pytest.raises(AssertionError, match=r"spec\.obs is empty"):
        check_env(env)
