"""What an algorithm trains is what workers act with; and what exploration adds to it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algos.ddpg import DDPG, Config
from algos.nets import Normalizer, prepare
from core.acting import Decision, Noise, Policy, PolicySpec
from core.net import Net, NetSpec, num_parameters
from core.types import ActionSpec, EnvSpec, FieldSpec, FloatArray

SHAPES = st.sampled_from([(), (1,), (8,), (3, 2), (4, 2, 2, 3)])
DTYPES = st.sampled_from(["float32", "float64", "uint8", "int64"])
FIELDS = st.lists(st.tuples(SHAPES, DTYPES), min_size=1, max_size=3).map(
    lambda fields: {f"field{i}": FieldSpec(shape, dtype) for i, (shape, dtype) in enumerate(fields)}
)
HIDDEN = st.lists(st.integers(1, 70), max_size=3).map(tuple)


def random_obs(
    fields: dict[str, FieldSpec], n: int, random: np.random.Generator, spread: int = 4, middle: int = 20
) -> dict[str, npt.NDArray[Any]]:
    obs = {name: random.normal(middle, spread, (n, *field.shape)) for name, field in fields.items()}
    return {name: np.clip(values, 0, 255).astype(fields[name].dtype) for name, values in obs.items()}


def in_torch(obs: dict[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in obs.items()}


@given(
    fields=FIELDS,
    hidden=HIDDEN,
    num_actions=st.integers(1, 5),
    normalize=st.booleans(),
    n=st.integers(1, 40),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=100, deadline=None)
def test_what_ddpg_trains_is_what_its_workers_act_with(
    fields: dict[str, FieldSpec], hidden: tuple[int, ...], num_actions: int, normalize: bool, n: int, seed: int
) -> None:
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    spec = EnvSpec(fields, ActionSpec((-1.0,) * num_actions, (1.0,) * num_actions), n)
    ddpg = DDPG(spec, Config(hidden=hidden, normalize=normalize))
    net = ddpg.policy_spec.net
    with torch.no_grad():
        for parameter in ddpg.actor.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)  # a fresh actor says almost nothing
        if normalize:
            ddpg.normalizer.show(in_torch(random_obs(fields, 50, random)), net)
            obs = random_obs(fields, n, random, spread=20)  # far beyond what it was shown, too
        else:  # of order one: float32 sums of large terms differ by more than 1e-5 in any two orders of adding
            obs = random_obs(fields, n, random, spread=1, middle=1)
        expected = ddpg.actor(prepare(in_torch(obs), net, ddpg.normalizer)).tanh().numpy()
    parameters = ddpg.policy_parameters().numpy()
    assert parameters.shape == (num_parameters(net),) and parameters.dtype == np.float32
    policy = Policy(ddpg.policy_spec, spec.action, n, parameters, seed=0)
    before = {name: values.copy() for name, values in obs.items()}
    np.testing.assert_allclose(policy.act(obs, np.arange(n)).action, expected, rtol=0, atol=1e-5)
    assert all(np.array_equal(values, before[name]) for name, values in obs.items())


def test_parameters_that_change_in_place_change_what_the_net_says() -> None:
    spec = NetSpec({"x": (2,)}, (), 1, normalize=False)
    parameters = np.zeros(3, np.float32)
    net = Net(spec, parameters)
    parameters[:] = 1, 2, 10
    assert net({"x": np.array([[3.0, 4.0]], np.float32)}).tolist() == [[21.0]]


def test_parameters_of_another_net_are_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match="4 parameters for a network of 3"):
        Net(NetSpec({"x": (2,)}, (), 1, normalize=False), np.zeros(4, np.float32))


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6), seed=st.integers(0, 100))
@settings(deadline=None)
def test_the_normalizer_knows_mean_and_deviation_of_all_that_it_was_shown(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    shown = [random.normal(5, 3, (n, 4)).astype(np.float32) for n in sizes]
    normalizer, net = Normalizer(4), NetSpec({"x": (4,)}, (), 1)
    for each in shown:
        normalizer.show({"x": torch.from_numpy(each)}, net)
    everything = np.concatenate(shown).astype(np.float64)
    np.testing.assert_allclose(normalizer.mean, everything.mean(axis=0), rtol=1e-4)
    deviation = np.sqrt(np.maximum(everything.var(axis=0), 1e-8))
    np.testing.assert_allclose(normalizer.scale, 1 / deviation, rtol=1e-3)
    far = normalizer(torch.full((1, 4), 1e9))
    assert (far == 5).all()


def policy(
    noise: Noise, num_agents: int, low: float = -1.0, high: float = 1.0, says: float = 0.0, sigma: float = 0.1
) -> Policy:
    """Of two actions, each the tanh of `says` whatever it sees."""
    net = NetSpec({"x": (1,)}, (), 2, normalize=False, extras={"sigma": 1})
    parameters = np.array([0, 0, says, says, sigma], np.float32)
    return Policy(PolicySpec(net, "tanh", noise), ActionSpec((low,) * 2, (high,) * 2), num_agents, parameters, seed=3)


def explore(acting: Policy, agents: list[int]) -> FloatArray:
    return acting.explore({"x": np.ones((len(agents), 1), np.float32)}, np.array(agents, np.int64)).action


def guess(acting: Policy, num_agents: int) -> Decision:
    return acting.guess({"x": np.ones((num_agents, 1), np.float32)}, np.arange(num_agents))


def said(action: FloatArray) -> Decision:
    """A decision of just these actions."""
    zeros, nothing = np.zeros(len(action), np.float32), np.zeros((len(action), 0), np.float32)
    return Decision(action, nothing.astype(np.int64), zeros, zeros, nothing)


def test_a_step_in_which_nobody_decides_asks_for_no_action() -> None:
    acting = policy(Noise(), 4)
    nobody = np.zeros(0, np.int64)
    nothing = {"x": np.zeros((0, 1), np.float32)}
    for decide in (acting.act, acting.explore, acting.guess):
        decision = decide(nothing, nobody)
        assert decision.action.shape == (0, 2)
        assert acting.to_env(decision).continuous.shape == (0, 2)


def test_gaussian_noise_has_the_deviation_asked_for_and_no_memory() -> None:
    acting = policy(Noise("gaussian"), 5, sigma=0.2, says=0.3)
    drawn = np.stack([explore(acting, [0, 1, 2, 3, 4]) for _ in range(4000)]) - np.tanh(0.3)
    assert drawn.mean() == pytest.approx(0, abs=0.005)
    assert drawn.std(axis=0) == pytest.approx(np.full((5, 2), 0.2), rel=0.05)
    series = drawn.reshape(4000, 10)
    together = np.corrcoef(np.hstack([series[:-1], series[1:]]).T)  # of all with all, and with their own past
    assert np.abs(together - np.eye(20)).max() < 0.08


def test_ornstein_uhlenbeck_noise_follows_its_recursion_for_each_agent() -> None:
    noise = Noise("ornstein-uhlenbeck", theta=0.15)
    acting, twin = policy(noise, 4, sigma=0.05), np.random.Generator(np.random.SFC64(3))
    x = np.zeros((4, 2))
    for agents in ([0, 1, 2, 3], [2], [3, 0], [1, 2, 3], [0, 1, 2, 3]) * 20:
        x[agents] += -0.15 * x[agents] + 0.05 * twin.standard_normal((len(agents), 2), np.float32)
        np.testing.assert_allclose(explore(acting, agents), x[agents], rtol=0, atol=1e-6)


def test_ornstein_uhlenbeck_noise_has_its_stationary_deviation_and_correlation() -> None:
    acting = policy(Noise("ornstein-uhlenbeck", theta=0.15), 50, sigma=0.05)
    drawn = np.stack([explore(acting, list(range(50))) for _ in range(2000)])[200:]
    assert drawn.std() == pytest.approx(0.05 / np.sqrt(1 - 0.85**2), rel=0.05)
    assert (drawn[1:] * drawn[:-1]).mean() / drawn.var() == pytest.approx(0.85, abs=0.02)


def test_an_agents_end_restarts_its_noise_and_nobody_elses() -> None:
    noise = Noise("ornstein-uhlenbeck", theta=0.0)
    one, other = policy(noise, 4, sigma=0.02), policy(noise, 4, sigma=0.02)
    for _ in range(50):
        before = explore(one, [0, 1, 2, 3])
        explore(other, [0, 1, 2, 3])
    other.restart(np.array([1, 3]))
    untouched, restarted = explore(one, [0, 1, 2, 3]), explore(other, [0, 1, 2, 3])
    assert np.array_equal(untouched[[0, 2]], restarted[[0, 2]])
    assert np.abs(before[[1, 3]]).max() > 0.05  # where they had been
    np.testing.assert_allclose(untouched[[1, 3]] - restarted[[1, 3]], before[[1, 3]], atol=1e-5)


def test_the_deviation_is_published_with_the_weights_and_holds_from_the_next_decision_on() -> None:
    net = NetSpec({"x": (1,)}, (), 2, normalize=False, extras={"sigma": 1})
    parameters = np.array([0, 0, 0.5, 0.5, 0.2], np.float32)
    acting = Policy(PolicySpec(net, "tanh"), ActionSpec((-1.0,) * 2, (1.0,) * 2), 3, parameters, seed=3)
    assert (explore(acting, [0, 1, 2]) != np.tanh(np.float32(0.5))).all()
    parameters[-1] = 0.0
    assert (explore(acting, [0, 1, 2]) == np.tanh(np.float32(0.5))).all()


@pytest.mark.parametrize("kind", ["gaussian", "ornstein-uhlenbeck"])
def test_whatever_the_noise_actions_stay_within_their_bounds(kind: Literal["gaussian", "ornstein-uhlenbeck"]) -> None:
    acting = policy(Noise(kind), 100, sigma=2.0, low=-3.0, high=5.0)
    action = explore(acting, list(range(100)))
    assert action.min() == -1 and action.max() == 1
    assert (acting.to_env(said(action)).continuous >= -3).all() and (acting.to_env(said(action)).continuous <= 5).all()


def test_a_guess_is_uniform_between_the_bounds() -> None:
    acting = policy(Noise(), 200)
    drawn = np.stack([guess(acting, 200).action for _ in range(50)])
    assert drawn.dtype == np.float32 and drawn.min() >= -1 and drawn.max() <= 1
    counts, _ = np.histogram(drawn, bins=20, range=(-1, 1))
    expected = drawn.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 19 + 4 * np.sqrt(2 * 19)


def test_the_ends_and_the_middle_of_an_action_are_those_of_the_environment() -> None:
    acting = policy(Noise(), 1, low=-3.0, high=5.0)
    action = acting.to_env(said(np.array([[-1, 1], [0, 0.5]], np.float32)))
    assert action.continuous.tolist() == [[-3, 5], [1, 3]] and action.continuous.dtype == np.float32
    assert action.discrete.shape == (2, 0)
