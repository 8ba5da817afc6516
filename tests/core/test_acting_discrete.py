"""Discrete choices in a worker: masks, epsilon and its ladder, what it thinks they are worth, how likely they were."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algos.stochastic import Stochastic
from core.acting import Policy, PolicySpec
from core.net import NetSpec, num_parameters
from core.types import ACTION_MASK, ActionSpec, Batch, BoolArray, FloatArray

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


def policy(
    head: Literal["stochastic", "greedy"],
    action: ActionSpec,
    num_agents: int,
    says: npt.ArrayLike,
    extras: dict[str, list[float]] | None = None,
    lane: int = 0,
    num_lanes: int = 1,
    support: tuple[float, ...] = (),
    ladder: float = 0.0,
) -> Policy:
    """One whose network says what stands in the observation, plus `says`: (outputs,)."""
    outputs, extras = np.array(says, np.float32), extras or {}
    net = NetSpec(
        {"x": outputs.shape}, (), outputs.size, normalize=False, extras={name: len(extras[name]) for name in extras}
    )
    shipped: list[npt.NDArray[Any]] = [
        np.eye(outputs.size).ravel(),
        outputs,
        *(np.array(each) for each in extras.values()),
    ]
    parameters = np.concatenate(shipped).astype(np.float32)
    assert parameters.size == num_parameters(net)
    spec = PolicySpec(net, head, support=support, ladder=ladder)
    return Policy(spec, action, num_agents, parameters, seed=1, lane=lane, num_lanes=num_lanes)


def some_mask(random: np.random.Generator, n: int, sizes: tuple[int, ...]) -> BoolArray:
    """(n, sum of the sizes), something allowed in each branch."""
    mask = random.random((n, sum(sizes))) < 0.4
    for start, size in zip(np.cumsum((0, *sizes)), sizes, strict=False):
        mask[np.arange(n), start + random.integers(size, size=n)] = True
    return mask


@given(
    head=st.sampled_from(["stochastic", "greedy", "quantiles", "categorical"]),
    sizes=SIZES,
    epsilon=st.sampled_from([0.0, 0.5, 1.0]),
    n=st.integers(0, 20),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_what_is_masked_is_never_chosen(head: str, sizes: tuple[int, ...], epsilon: float, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms = 3 if head in ("quantiles", "categorical") else 1
    acting = policy(
        "stochastic" if head == "stochastic" else "greedy",
        ActionSpec(branches=sizes),
        n,
        np.zeros(sum(sizes) * atoms),
        {"epsilon": [epsilon]} if head != "stochastic" else {},
        support=(-1.0, 0.0, 1.0) if head == "categorical" else (),
    )
    x = random.normal(0, 100, (n, sum(sizes) * atoms)).astype(np.float32)
    obs = {"x": x, ACTION_MASK: some_mask(random, n, sizes)}
    for decide in (acting.act, acting.explore, acting.guess):
        decision = decide(obs, np.arange(n))
        assert decision.choice.shape == (n, len(sizes)) and np.isfinite(decision.value).all()
        assert np.isfinite(decision.log_prob).all()
        start = 0
        for branch, size in enumerate(sizes):
            assert (decision.choice[:, branch] < size).all()
            assert obs[ACTION_MASK][np.arange(n), start + decision.choice[:, branch]].all()
            start += size


def test_a_guess_is_any_of_the_allowed_choices_each_as_likely() -> None:
    acting = policy("greedy", ActionSpec(branches=(4, 3)), 12_000, np.zeros(7), {"epsilon": [0.0]})
    mask = np.tile([True, False, True, True, True, True, False], (12_000, 1))
    choice = acting.guess({"x": np.zeros((12_000, 7), np.float32), ACTION_MASK: mask}, np.arange(12_000)).choice
    held = [np.bincount(choice[:, branch], minlength=size) / 12_000 for branch, size in ((0, 4), (1, 3))]
    np.testing.assert_allclose(held[0], [1 / 3, 0, 1 / 3, 1 / 3], atol=0.02)
    np.testing.assert_allclose(held[1], [1 / 2, 1 / 2, 0], atol=0.02)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_who_explores_takes_the_best_choice_or_by_epsilon_any_that_is_allowed(epsilon: float) -> None:
    n = 20_000
    acting = policy("greedy", ActionSpec(branches=(4,)), n, [0, 1, 9, 2], {"epsilon": [epsilon]})
    obs: dict[str, npt.NDArray[Any]] = {"x": np.zeros((n, 4), np.float32)}
    choice = acting.explore(obs, np.arange(n)).choice[:, 0]
    wanted = np.full(4, epsilon / 4) + np.array([0, 0, 1 - epsilon, 0])
    np.testing.assert_allclose(np.bincount(choice, minlength=4) / n, wanted, atol=0.015)
    obs[ACTION_MASK] = np.tile([True, True, False, True], (n, 1))
    choice = acting.explore(obs, np.arange(n)).choice[:, 0]
    wanted = np.full(4, epsilon / 3) * [1, 1, 0, 1] + np.array([0, 0, 0, 1 - epsilon])
    np.testing.assert_allclose(np.bincount(choice, minlength=4) / n, wanted, atol=0.015)
    assert (acting.act(obs, np.arange(n)).choice == 3).all()


def test_agents_stand_on_a_ladder_of_epsilons_over_all_lanes() -> None:
    strays = []
    for lane in range(2):  # with so many choices any other one is nearly always not the best
        best = np.zeros(100)
        best[5] = 1
        acting = policy(
            "greedy", ActionSpec(branches=(100,)), 3, best, {"epsilon": [0.4]}, lane=lane, num_lanes=2, ladder=7.0
        )
        x = np.zeros((3, 100), np.float32)
        strays.append(np.mean([acting.explore({"x": x}, np.arange(3)).choice[:, 0] != 5 for _ in range(300)], axis=0))
    wanted = [0.4 ** (1 + 7 * i / 5) for i in range(6)]
    np.testing.assert_allclose(np.concatenate(strays), wanted, atol=0.1)
    assert wanted[0] == 0.4 and wanted[5] < 0.001


def test_one_agent_alone_stands_on_the_first_rung() -> None:
    acting = policy("greedy", ActionSpec(branches=(100,)), 1, np.zeros(100), {"epsilon": [0.5]}, ladder=7.0)
    x = {"x": np.zeros((1, 100), np.float32)}
    assert np.mean([acting.explore(x, np.arange(1)).choice[0, 0] != 0 for _ in range(600)]) == pytest.approx(
        0.5, abs=0.1
    )


@given(
    sizes=SIZES,
    atoms=st.sampled_from([1, 2, 7]),
    categorical=st.booleans(),
    masked=st.booleans(),
    epsilon=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=50, deadline=None)
def test_a_choice_is_worth_the_mean_of_its_branches_expectations(
    sizes: tuple[int, ...], atoms: int, categorical: bool, masked: bool, epsilon: float, seed: int
) -> None:
    random, n = np.random.default_rng(seed), 9
    support = tuple(random.normal(0, 5, atoms).tolist()) if categorical and atoms > 1 else ()
    x = random.normal(0, 3, (n, sum(sizes) * atoms)).astype(np.float32)
    said = torch.from_numpy(x).double().view(n, sum(sizes), atoms)
    worth = said.softmax(2) @ torch.tensor(support).double() if support else said.mean(2)
    acting = policy(
        "greedy", ActionSpec(branches=sizes), n, np.zeros(x.shape[1]), {"epsilon": [epsilon]}, support=support
    )
    obs: dict[str, npt.NDArray[Any]] = {"x": x}
    if masked:
        obs[ACTION_MASK] = some_mask(random, n, sizes)
    decision = acting.explore(obs, np.arange(n))
    for i in range(n):
        chosen, best = [], []
        for branch, each in enumerate(torch.split(worth[i], list(sizes))):
            start = sum(sizes[:branch])
            may = obs[ACTION_MASK][i, start : start + sizes[branch]] if masked else np.ones(sizes[branch], np.bool_)
            chosen.append(float(each[decision.choice[i, branch]]))
            best.append(float(each.numpy()[may].max()))
        assert decision.value[i] == pytest.approx(np.mean(chosen), rel=1e-4, abs=1e-4)
        assert acting.values(obs)[i] == pytest.approx(np.mean(best), rel=1e-4, abs=1e-4)
        if epsilon == 0:
            assert chosen == pytest.approx(best, rel=1e-4, abs=1e-4)


def test_where_nothing_may_be_done_the_worth_is_a_number_all_the_same() -> None:
    acting = policy("greedy", ActionSpec(branches=(3,)), 2, [1, 5, 2], {"epsilon": [0.0]})
    obs = {"x": np.zeros((2, 3), np.float32), ACTION_MASK: np.array([[False] * 3, [True, False, True]])}
    assert acting.values(obs).tolist() == [5, 2]


def test_the_worth_of_nobody_is_nothing() -> None:
    acting = policy("greedy", ActionSpec(branches=(3, 2)), 2, np.zeros(10), {"epsilon": [1.0]})
    nobody = {"x": np.zeros((0, 10), np.float32)}
    assert acting.values(nobody).shape == (0,)
    assert acting.explore(nobody, np.zeros(0, np.int64)).choice.shape == (0, 2)


@given(
    num_continuous=st.integers(0, 3),
    sizes=SIZES,
    masked=st.booleans(),
    explores=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=50, deadline=None)
def test_a_stochastic_policys_log_probability_is_the_learners(
    num_continuous: int, sizes: tuple[int, ...], masked: bool, explores: bool, seed: int
) -> None:
    random, n = np.random.default_rng(seed), 11
    action = ActionSpec((-1.0,) * num_continuous, (1.0,) * num_continuous, sizes)
    log_std = random.normal(0, 0.5, num_continuous)
    extras = {"log_std": log_std.tolist()} if num_continuous else {}
    acting = policy("stochastic", action, n, np.zeros(num_continuous + sum(sizes)), extras)
    x: FloatArray = random.normal(0, 2, (n, num_continuous + sum(sizes))).astype(np.float32)
    obs: dict[str, npt.NDArray[Any]] = {"x": x}
    if masked:
        obs[ACTION_MASK] = some_mask(random, n, sizes)
    decision = (acting.explore if explores else acting.act)(obs, np.arange(n))
    learner = Stochastic(action)
    assert learner.outputs == x.shape[1]
    empty = torch.zeros(n)
    batch = Batch(
        obs={name: torch.from_numpy(values) for name, values in obs.items()},
        action=torch.from_numpy(decision.action),
        choice=torch.from_numpy(decision.choice).int(),
        reward=empty,
        discount=empty,
        next_obs={},
        weight=empty,
    )
    log_prob, entropy = learner.judge(torch.from_numpy(x), torch.from_numpy(log_std).float(), batch)
    if explores or not num_continuous:
        np.testing.assert_allclose(decision.log_prob, log_prob, rtol=1e-4, atol=1e-4)
    assert entropy.isfinite().all()
