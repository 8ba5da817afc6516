"""Each probe finds, in an environment with exactly that fault, exactly that fault."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envproc import EnvConfig, long_walk
from envproc.ball3d import Ball3D
from envproc.contract import Broken
from envproc.env import Ended, Env
from envproc.long_walk import episodes, inputs, look, rewards
from envproc.prober import Line, Offers, Refused, examine
from envproc.probes import Finding, contract, offers, partial_reset, seeding
from envproc.toys import Masked
from envproc.walk import walk
from tests.envproc import faulty
from tests.envproc.faulty import Numbers, Sound

FAULTY = "tests/envproc/faulty.py"
BREAKS: dict[type[Any], str] = {
    faulty.WrongShape: r"step 10 after reset\(1\): obs\['vector'\] has shape \(8, 3\); make it \(8, 4\)",
    faulty.WrongDtype: r"obs\['vector'\] has dtype float64; make it float32",
    faulty.NotAnArray: r"reward is a list; give a numpy array",
    faulty.OtherField: r"obs has the fields \['vektor'\]; spec says \['vector'\]",
    faulty.GivesNaN: r"obs\['vector'\]\[2, 1\] is nan",
    faulty.InfiniteReward: r"reward\[0\] is inf",
    faulty.Stranger: r"has agents \[8\]; spec.num_agents says 0 to 7",
    faulty.SomebodyTwice: r"has an agent twice",
    faulty.EndsTwice: r"step 2 after reset\(1\) ends agents \[0\], which have no episode",
    faulty.BeginsWithAnEnd: r"reset\(1\) has agents \[0\] in ended",
    faulty.NotAStep: r"gave a tuple; give an envproc.env.Step",
    faulty.Raises: r"step 10 after reset\(1\) raised RuntimeError: the motor is hot \(tests/envproc/faulty.py, line",
    faulty.Exits: r"raised SystemExit: 0",
    faulty.RaisesAtTheBounds: r"step 2 after reset\(1\) raised AssertionError: beyond the rail",
    faulty.NothingAllowed: r"agent 3 may do nothing in branch 0",
    faulty.NobodyThere: r"spec.num_agents is 0",
    faulty.NothingToDo: r"spec.action has no action",
}


@pytest.fixture(autouse=True)
def short_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_walk, "_STEPS", 300)


def levels(findings: list[Finding]) -> list[str]:
    return [each.level for each in findings]


def the_same(env: Env) -> Callable[[int], contextlib.AbstractContextManager[Env]]:
    return lambda seed: contextlib.nullcontext(env)


@pytest.mark.parametrize("kind", BREAKS, ids=lambda kind: kind.__name__)
def test_what_breaks_the_contract_is_named(kind: type[Any]) -> None:
    env = kind(copies=1)
    with pytest.raises(Broken, match=BREAKS[kind]) as broken:
        [*offers(env), *contract(env)]
    assert "\n" not in str(broken.value)


@pytest.mark.parametrize("env", [Sound(1), Ball3D(), Masked(2)], ids=lambda env: type(env).__name__)
def test_a_sound_environment_is_found_sound(env: Env) -> None:
    findings = [*offers(env), *contract(env), *seeding(the_same(env)), *partial_reset(env)]
    assert set(levels(findings)) == {"ok"}, findings
    assert not any(each.advice for each in findings)


def test_random_actions_lie_within_the_bounds_and_reach_them() -> None:
    done: list[Any] = []

    class Listening(Sound):
        def step(self, action: Any) -> Any:
            done.append(action)
            return super().step(action)

    assert len(list(walk(Listening(1), 0, 50, 60.0))) == 51
    continuous = np.concatenate([each.continuous for each in done])
    assert continuous.min() == -1 and continuous.max() > 0.9999 and abs(continuous.mean()) < 0.2
    assert set(np.concatenate([each.discrete for each in done]).ravel()) == {0, 1, 2}


def test_who_draws_numbers_of_its_own_does_not_repeat() -> None:
    (finding,) = seeding(the_same(faulty.Unseeded(1)))
    assert finding.level == "note" and "the same seed twice gave different first steps" in finding.what
    assert "reset(seed)" in finding.advice


def test_who_ignores_the_seed_is_found() -> None:
    (finding,) = seeding(the_same(faulty.OneSeed(1)))
    assert finding.level == "note" and "seeds 1 and 2 gave the same first steps" in finding.what


def test_who_forgets_to_reset_one_agent_is_found() -> None:
    (finding,) = partial_reset(faulty.DeafToReset(1))
    assert finding.level == "BAD" and "does not report agent 4 as truncated" in finding.what


def test_who_resets_everybody_is_found() -> None:
    (finding,) = partial_reset(faulty.ResetsAll(1))
    assert finding.level == "BAD" and "reset_agents([4]) ended agents 0, 1, 2, 3, 5, 6 and 1 more too" in finding.what


def test_whose_agents_share_their_luck_is_found_and_may_be_right() -> None:
    (finding,) = partial_reset(faulty.OneDiceForAll(1))
    assert finding.level == "note" and "was noticed by others (agent " in finding.what


def test_who_cannot_reset_one_agent_says_so() -> None:
    (finding,) = partial_reset(faulty.CannotResetOne(1))
    assert (finding.level, finding.what) == ("note", "single agents cannot be reset: they are welded together")


def test_whether_others_notice_is_not_claimed_where_no_walk_repeats() -> None:
    (finding,) = partial_reset(faulty.Unseeded(1))
    assert finding.level == "note" and "cannot be told" in finding.what


def test_episodes_are_counted_by_their_ends() -> None:
    (finding,) = episodes(look(Sound(1)))
    assert finding.level == "ok"
    assert "120 episode(s) ended in 2,408 decisions" in finding.what
    assert "0 terminated, 120 truncated; 20 to 20 decisions" in finding.what


def test_episodes_without_an_end_are_told() -> None:
    (finding,) = episodes(look(Numbers(limit=2**40)))
    assert finding.level == "note" and "no episode ended in 2,408 decisions" in finding.what and finding.advice


def test_dead_and_huge_inputs_are_named() -> None:
    span, huge, dead = inputs(look(Numbers()))
    assert span.what == "vector lies within [0, 5300]"
    assert huge.level == "note" and "vector reaches 5.3e+03 in size; 1 of its 4 numbers" in huge.what
    assert huge.what.endswith(": 1") and "--algo.normalize" in huge.advice
    assert dead.what == "1 of the 4 numbers of vector never changed: 0"


def test_a_pixel_that_never_changes_is_usual() -> None:
    findings = inputs(look(Numbers(shape=(4, 3, 3))))
    assert not [each for each in findings if "never changed" in each.what]


@pytest.mark.parametrize(
    ("env", "level", "says"),
    [
        (Numbers(pay=1.0), "ok", "mean 1.2"),
        (Numbers(pay=0.0), "note", "no reward in 2,"),
        (Numbers(pay=1.0, every=150), "note", "0.67 % of the decisions have a reward"),
        (Numbers(pay=500.0), "note", "a reward reaches 750"),
    ],
)
def test_rewards_are_judged_by_their_scale(env: Env, level: str, says: str) -> None:
    (finding,) = rewards(look(env))
    assert finding.level == level
    assert says in (finding.advice or finding.what)


def test_returns_are_those_of_whole_episodes() -> None:
    seen = look(Ball3D())
    assert len(seen.returns) == seen.terminated == len(seen.lengths) > 20
    # each decision but the last earns 0.1, the fall costs 1
    np.testing.assert_allclose(seen.returns, 0.1 * (seen.lengths - 1) - 1, atol=1e-5)


def test_whose_agents_end_and_go_on_in_one_array_has_its_episodes_counted_once() -> None:
    class AllEndAtOnce(Sound):
        def step(self, action: Any) -> Any:
            step, reward = super().step(action), np.full(8, -1.0, np.float32)
            ended = Ended(step.agent, step.obs, reward, np.ones(8, np.bool_))  # the same array on both sides
            return step._replace(reward=np.zeros(8, np.float32), ended=ended)

    seen = look(AllEndAtOnce(1))
    assert set(seen.lengths) == {1} and set(seen.returns) == {-1.0}
    assert len(seen.lengths) == seen.terminated == seen.agent_steps - 8


def test_what_comes_after_a_breach_is_not_looked_at() -> None:
    lines: list[Line] = []
    examine(EnvConfig(f"{FAULTY}:GivesNaN"), lines.append)
    findings = [each for each in lines if isinstance(each, Finding)]
    assert levels(findings) == ["ok", "ok", "BAD", "note"]
    assert any(isinstance(each, Offers) for each in lines)


def test_an_environment_that_is_not_there_is_refused() -> None:
    lines: list[Line] = []
    examine(EnvConfig(f"{FAULTY}:GivesNun"), lines.append)
    assert isinstance(lines[-1], Refused) and "did you mean 'GivesNaN'" in lines[-1].why
