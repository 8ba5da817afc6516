"""GymnasiumEnv over environments made for it: what they see and do is written down, so that nothing can hide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from core.types import Action, ActionSpec, FieldSpec
from envproc.gymnasium import GymnasiumEnv
from tests.contracts import check_env

Gym = gymnasium.Env[Any, Any]


class Scripted(Gym):
    """Counts its steps in both components of obs; action [a, b] ends the episode truly if a > 0, cuts it if b > 0."""

    made: list[Scripted] = []  # noqa: RUF012 - a record for the tests, cleared before each

    def __init__(self, **given: Any) -> None:
        self.observation_space = given.get("observes", spaces.Box(-np.inf, np.inf, (2,), np.float64))
        self.action_space = given.get("acts", spaces.Box(-1.0, 1.0, (2,), np.float32))
        self.seeds: list[int | None] = []
        self.actions: list[Any] = []
        self.closed = False
        self.now = np.zeros(2)  # one array for all observations, as some environments do
        self.seen: Any = None
        self.made.append(self)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.now[:] = 100 * len(self.seeds)
        return self.see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.now += 1
        terminated, truncated = (bool(each > 0) for each in action) if np.shape(action) == (2,) else (False, False)
        return self.see(), 0.5, terminated, truncated, {}

    def see(self) -> Any:
        self.seen = self.now if self.observation_space.shape == (2,) else self.observation_space.sample()
        return self.seen

    def close(self) -> None:
        self.closed = True


class Missing(Gym):
    def __init__(self, **_: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled('Mujo is not installed, run `pip install "gymnasium[mujo]"`')


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    Scripted.made.clear()
    gymnasium.register("Scripted-v0", Scripted)
    gymnasium.register("Missing-v0", Missing)
    yield
    del gymnasium.registry["Scripted-v0"], gymnasium.registry["Missing-v0"]


def with_spaces(monkeypatch: pytest.MonkeyPatch, **given: gymnasium.Space[Any]) -> GymnasiumEnv:
    monkeypatch.setattr(gymnasium.registry["Scripted-v0"], "kwargs", given)
    return GymnasiumEnv("Scripted-v0", copies=2)


def act(*rows: tuple[float, float]) -> Action:
    return Action(np.array(rows, np.float32), np.zeros((len(rows), 0), np.int64))


def test_only_the_copy_that_ended_is_reset_and_its_last_sight_is_kept() -> None:
    env = GymnasiumEnv("Scripted-v0", copies=3)
    step = env.reset(0)
    assert step.obs["vector"].tolist() == [[100, 100]] * 3
    assert len(step.ended.agent) == 0
    step = env.step(act((-1, -1), (1, -1), (-1, -1)))
    assert step.agent.tolist() == [0, 1, 2]
    assert step.obs["vector"].tolist() == [[101, 101], [200, 200], [101, 101]]
    assert step.reward.tolist() == [0.5, 0.0, 0.5]
    assert step.ended.agent.tolist() == [1]
    assert step.ended.obs["vector"].tolist() == [[101, 101]]
    assert step.ended.reward.tolist() == [0.5]
    step = env.step(act((-1, -1), (-1, -1), (-1, -1)))
    assert step.obs["vector"].tolist() == [[102, 102], [201, 201], [102, 102]]
    assert len(step.ended.agent) == 0


def test_a_true_end_a_cut_and_both_at_once_stay_apart() -> None:
    env = GymnasiumEnv("Scripted-v0", copies=4)
    env.reset(0)
    step = env.step(act((1, -1), (-1, 1), (1, 1), (-1, -1)))
    assert step.ended.agent.tolist() == [0, 1, 2]
    assert step.ended.terminated.tolist() == [True, False, True]


def test_a_reset_copy_is_cut_where_it_stands_and_not_stepped() -> None:
    env = GymnasiumEnv("Scripted-v0", copies=2)
    env.reset(0)
    env.step(act((-1, -1), (-1, -1)))
    env.reset_agents(np.array([1]))
    step = env.step(act((-1, -1), (1, -1)))
    assert step.agent.tolist() == [0, 1]
    assert step.obs["vector"].tolist() == [[102, 102], [200, 200]]
    assert step.reward.tolist() == [0.5, 0.0]
    assert step.ended.agent.tolist() == [1]
    assert step.ended.obs["vector"].tolist() == [[101, 101]]
    assert step.ended.reward.tolist() == [0.0]
    assert step.ended.terminated.tolist() == [False]
    assert len(Scripted.made[1].actions) == 1
    assert len(env.step(act((-1, -1), (-1, -1))).ended.agent) == 0  # asked once, reset once
    env.reset_agents(np.array([1]))
    env.reset(0)
    assert len(env.step(act((-1, -1), (-1, -1))).ended.agent) == 0  # a reset of all forgets it


def test_copies_are_seeded_once_and_each_otherwise() -> None:
    env = GymnasiumEnv("Scripted-v0", copies=2)
    env.reset(7)
    env.step(act((1, -1), (1, -1)))
    (first, later), (second, later_too) = (each.seeds for each in Scripted.made)
    assert first is not None and second is not None and first != second
    assert later is None and later_too is None


@given(seeds=st.sets(st.integers(0, 20), min_size=2, max_size=2), copies=st.integers(1, 4))
def test_no_copy_of_one_seed_is_a_copy_of_another(seeds: set[int], copies: int) -> None:
    Scripted.made.clear()
    env = GymnasiumEnv("Scripted-v0", copies)
    for seed in seeds:
        env.reset(seed)
    given = [seed for each in Scripted.made for seed in each.seeds]
    assert len(set(given)) == 2 * copies


@pytest.mark.parametrize(
    ("space", "fields"),
    [
        (spaces.Box(-1, 1, (3,), np.float64), {"vector": FieldSpec((3,))}),
        (spaces.Box(0, 255, (4, 6, 3), np.uint8), {"image": FieldSpec((3, 4, 6), "uint8")}),
        (spaces.Box(0, 9, (3,), np.int64), {"vector": FieldSpec((3,))}),
        (
            spaces.Dict({"camera": spaces.Box(0, 255, (4, 6, 3), np.uint8), "speed": spaces.Box(-1, 1, (1,))}),
            {"camera": FieldSpec((3, 4, 6), "uint8"), "speed": FieldSpec((1,))},
        ),
        (spaces.Discrete(5, start=-2), {"vector": FieldSpec((5,))}),
    ],
)
def test_what_is_observed_becomes_fields_of_uint8_or_float32(
    monkeypatch: pytest.MonkeyPatch, space: gymnasium.Space[Any], fields: dict[str, FieldSpec]
) -> None:
    env = with_spaces(monkeypatch, observes=space)
    step = env.reset(0)
    seen = [each.seen for each in Scripted.made]
    assert env.spec.obs == fields
    for name, field in fields.items():
        assert step.obs[name].dtype == field.dtype
        for copy in (0, 1):
            expected: Any = seen[copy][name] if isinstance(space, spaces.Dict) else seen[copy]
            if isinstance(space, spaces.Discrete):
                expected = np.eye(5)[expected + 2]
            if len(field.shape) == 3:
                expected = np.moveaxis(expected, -1, 0)
            assert np.array_equal(step.obs[name][copy], np.asarray(expected).astype(field.dtype))


def test_box_actions_keep_their_units_and_their_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = np.array([[-1, -2], [0, -4]], np.float64), np.array([[1, 2], [3, 4]], np.float64)
    env = with_spaces(monkeypatch, acts=spaces.Box(low, high, dtype=np.float64))
    assert env.spec.action == ActionSpec((-1, -2, 0, -4), (1, 2, 3, 4))
    env.reset(0)
    env.step(Action(np.array([[1, -2, 3, 4], [0, 0, 0, 0]], np.float32), np.zeros((2, 0), np.int64)))
    (done,) = Scripted.made[0].actions
    assert done.tolist() == [[1, -2], [3, 4]]
    assert done.dtype == np.float64


def test_choices_become_branches_and_keep_where_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    env = with_spaces(monkeypatch, acts=spaces.Discrete(3, start=10))
    assert env.spec.action == ActionSpec(branches=(3,))
    env.reset(0)
    env.step(Action(np.zeros((2, 0), np.float32), np.array([[2], [0]])))
    assert Scripted.made[0].actions == [12] and Scripted.made[1].actions == [10]

    Scripted.made.clear()
    env = with_spaces(monkeypatch, acts=spaces.MultiDiscrete([3, 5, 2], start=[0, 1, 0]))
    assert env.spec.action == ActionSpec(branches=(3, 5, 2))
    env.reset(0)
    env.step(Action(np.zeros((2, 0), np.float32), np.array([[2, 4, 1], [0, 0, 0]])))
    assert Scripted.made[0].actions[0].tolist() == [2, 5, 1]


@pytest.mark.parametrize(
    "space", [spaces.Tuple([spaces.Discrete(2)]), spaces.Box(-1, 1, (2, 2)), spaces.Dict({"deep": spaces.Discrete(2)})]
)
def test_an_observation_that_is_not_supported_is_named(
    monkeypatch: pytest.MonkeyPatch, space: gymnasium.Space[Any]
) -> None:
    with pytest.raises(ValueError, match="Scripted-v0 observes") as caught:
        with_spaces(monkeypatch, observes=space)
    assert str(space) in str(caught.value)
    assert Scripted.made[0].closed


@pytest.mark.parametrize(
    "space", [spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0, 9, (2,), np.int64), spaces.MultiBinary(3)]
)
def test_an_action_that_is_not_supported_is_named(monkeypatch: pytest.MonkeyPatch, space: gymnasium.Space[Any]) -> None:
    with pytest.raises(ValueError, match="Scripted-v0 acts in") as caught:
        with_spaces(monkeypatch, acts=space)
    assert str(space) in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Scriptd-v0", "no 'Scriptd-v0'.*Did you mean: `Scripted`"),
        ("Scripted-v9", "no 'Scripted-v9'.*v0"),
        ("Missing-v0", r'Missing-v0 needs a package.*pip install "gymnasium\[mujo\]"'),
        ("not_there:Any-v0", "Any-v0 cannot be imported: No module named 'not_there'"),
    ],
)
def test_an_environment_that_cannot_be_made_is_told_in_one_line(env_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        GymnasiumEnv(env_id)
    assert "\n" not in str(caught.value)


def test_copies_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="0 copies of Scripted-v0"):
        GymnasiumEnv("Scripted-v0", copies=0)
    with pytest.raises(ValueError, match=r"no copies \[2\]; there are 0\.\.1"):
        GymnasiumEnv("Scripted-v0", copies=2).reset_agents(np.array([0, 2]))


def test_closing_closes_every_copy() -> None:
    GymnasiumEnv("Scripted-v0", copies=3).close()
    assert [each.closed for each in Scripted.made] == [True] * 3


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Taxi-v4"])
def test_gymnasiums_own_environments_keep_the_contract(env_id: str) -> None:
    env = GymnasiumEnv(env_id, copies=3)
    check_env(env, steps=250)
    env.close()
