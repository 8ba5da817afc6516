"""V-trace against the paper's definitions, with the products and sums written out."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algos.vtrace import Config, VTrace, v_trace
from core.types import EnvSpec
from tests.algos.rollouts import DISCRETE, HYBRID, SPECS, InDoubles, assert_equal, feeding, shaken, stretches


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 40),
    bars=st.sampled_from([(1.0, 1.0), (2.0, 0.5), (1e9, 1e9)]),
)
@settings(max_examples=100, deadline=None)
def test_targets_are_those_of_the_definition(seed: int, n: int, bars: tuple[float, float]) -> None:
    """Eq. 1 of Espeholt et al. 2018: V(x_s) + sum over t of gamma^(t-s) (product of c_i, s <= i < t) delta_t."""
    random, (rho_bar, c_bar) = np.random.default_rng(seed), bars
    reward, value, next_value = random.normal(size=(3, n)).astype(np.float32)
    ratio = np.exp(random.normal(size=n) * 0.5).astype(np.float32)
    follows = random.random(n) < 0.8
    follows[-1] = False
    discount = np.where(follows | (random.random(n) < 0.5), 0.9, 0).astype(np.float32)
    next_value[:-1] = np.where(follows[:-1], value[1:], next_value[:-1])
    expected = value.astype(np.float64)
    weight = np.zeros(n)
    for stretch in stretches(follows):
        for place, s in enumerate(stretch):
            for t in stretch[place:]:
                between = [i for i in stretch if s <= i < t]
                product = np.prod([min(float(ratio[i]), c_bar) for i in between])
                delta = float(reward[t]) + float(discount[t]) * float(next_value[t]) - float(value[t])
                expected[s] += 0.9 ** len(between) * product * min(float(ratio[t]), rho_bar) * delta
        for s in stretch:
            after = expected[s + 1] if follows[s] else next_value[s]
            weight[s] = min(float(ratio[s]), rho_bar) * (reward[s] + discount[s] * after - value[s])
    found = v_trace(reward, discount, value, next_value, ratio, follows, rho_bar, c_bar)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[1], weight, rtol=1e-3, atol=1e-3)


def test_where_the_policy_is_the_one_that_acted_targets_are_n_step_returns() -> None:
    """Remark 1's on-policy case, eq. 2."""
    reward, discount = np.array([1, 2, 4], np.float32), np.full(3, 0.5, np.float32)
    value, after = np.array([10, 20, 30], np.float32), np.array([20, 30, 8], np.float32)
    targets, _ = v_trace(reward, discount, value, after, np.ones(3, np.float32), np.array([True, True, False]), 1, 1)
    assert targets.tolist() == [1 + 2 / 2 + 4 / 4 + 8 / 8, 2 + 4 / 2 + 8 / 4, 4 + 8 / 2]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("share", [False, True])
def test_a_gradient_step_is_that_of_the_paper(spec: EnvSpec, share: bool) -> None:
    """Section 4.2: along rho_s grad log pi (r_s + gamma v_{s+1} - V), (v_s - V) grad V and the entropy's gradient."""
    torch.manual_seed(1)
    config = Config(share=share, batch_size=1000, scale_reward=False, max_grad_norm=0, entropy=0.02)
    vtrace = shaken(VTrace(spec, config))
    with feeding(vtrace, spec) as feed:
        vtrace.update(feed.next())
        rollout = feed.next()
        shaken(vtrace, 0.03)
        said = InDoubles(vtrace, rollout)
        with torch.no_grad():
            judged = [said.judge(i)[0] for i in range(len(rollout))]
            ratio = np.exp(np.array([float(each) for each in judged]) - rollout.log_prob).astype(np.float32)
            value, after = said.values.numpy().astype(np.float32), said.next_values.numpy().astype(np.float32)
        target, weight = v_trace(reward=rollout.reward, discount=rollout.discount, value=value, next_value=after,
                                 ratio=ratio, follows=rollout.follows, rho_bar=1.0, c_bar=1.0)  # fmt: skip
        loss = torch.zeros((), dtype=torch.float64)
        for i in range(len(rollout)):
            log_prob, entropy = said.judge(i)
            loss = loss - float(weight[i]) * log_prob - 0.02 * entropy
            loss = loss + 0.5 * 0.5 * (said.values[i] - float(target[i])) ** 2
        torch.autograd.backward(loss / len(rollout))
        learned = vtrace.update(rollout)
    assert 0 < learned.metrics["truncated"].item() < 1
    assert learned.updates == 1
    for mine, (name, theirs) in zip(vtrace.nets.parameters(), said.nets.named_parameters(), strict=True):
        if not len(theirs):
            continue
        assert theirs.grad is not None and mine.grad is not None, name
        np.testing.assert_allclose(mine.grad, theirs.grad, rtol=1e-3, atol=2e-5, err_msg=name)


def test_a_rollout_gives_one_step_for_each_of_its_parts() -> None:
    torch.manual_seed(0)
    vtrace = VTrace(DISCRETE, Config(batch_size=32))
    with feeding(vtrace, DISCRETE) as feed:
        rollout = feed.next(100)
        assert vtrace.update(rollout).updates == round(len(rollout) / 32) > 3


def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened() -> None:
    torch.manual_seed(0)
    one, other = VTrace(HYBRID, Config()), VTrace(HYBRID, Config())
    with feeding(one, HYBRID) as feed:
        one.update(feed.next())
        file = io.BytesIO()
        torch.save(one.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        for _ in range(2):
            rollout, learned = feed.next(), []
            for vtrace in (one, other):
                torch.manual_seed(5)
                learned.append(vtrace.update(rollout))
            assert_equal(learned[0].metrics, learned[1].metrics)
        assert torch.equal(one.policy_parameters(), other.policy_parameters())
        assert_equal(one.state_dict(), other.state_dict())
        kept = copy.deepcopy(other.state_dict())
        one.update(rollout)
        assert_equal(other.state_dict(), kept)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"batch_size": 0}, "--algo.batch-size 0"),
        ({"rho_bar": 0.0}, "--algo.rho-bar 0.0"),
        ({"c_bar": 2.0}, "--algo.c-bar 2.0; it must be above 0, at most --algo.rho-bar 1.0"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Config(**wrong)
