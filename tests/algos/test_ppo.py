"""PPO against the papers' equations, written term by term; and that it can be stopped and taken up again."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from algos.nets import prepare
from algos.ppo import PPO, Config, gae
from algos.returns import RewardScale
from core.rollout import Rollout
from core.types import ACTION_MASK, EnvSpec, Learned
from tests.algos.rollouts import (
    AGENTS,
    CONTINUOUS,
    DISCRETE,
    HYBRID,
    MASKED,
    SPECS,
    InDoubles,
    assert_equal,
    feeding,
    shaken,
    stretches,
)


@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
@settings(max_examples=100, deadline=None)
def test_advantages_are_the_sums_of_the_paper(seed: int, n: int, lam: float) -> None:
    """Sum over l of (gamma lambda)^l delta_{t+l}, eq. 16 of Schulman et al. 2016, for each stretch by itself."""
    random = np.random.default_rng(seed)
    reward, value, next_value = random.normal(size=(3, n)).astype(np.float32)
    follows = random.random(n) < 0.8
    follows[-1] = False
    discount = np.where(follows | (random.random(n) < 0.5), 0.9, 0).astype(np.float32)  # a true end, or cut short
    expected = np.zeros(n)
    for stretch in stretches(follows):
        for place, t in enumerate(stretch):
            for length, k in enumerate(stretch[place:]):
                delta = float(reward[k]) + float(discount[k]) * float(next_value[k]) - float(value[k])
                expected[t] += (0.9 * lam) ** length * delta
    found = gae(reward, discount, value, next_value, follows, lam)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_with_lambda_1_an_advantage_is_the_whole_return_and_what_is_expected_after_a_truncation() -> None:
    reward, discount = np.array([1, 2, 4], np.float32), np.array([0.5, 0.5, 0.5], np.float32)
    value, after = np.array([10, 20, 30], np.float32), np.array([20, 30, 8], np.float32)
    follows = np.array([True, True, False])
    assert gae(reward, discount, value, after, follows, 1.0)[0] == 1 + 2 / 2 + 4 / 4 + 8 / 8 - 10
    discount[2] = 0  # a true end: nothing is expected
    assert gae(reward, discount, value, after, follows, 1.0)[0] == 1 + 2 / 2 + 4 / 4 - 10


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("share", [False, True])
def test_the_policy_that_acted_is_the_one_that_learns(spec: EnvSpec, share: bool) -> None:
    """The ratio is 1 before the first step, in every rollout: normalisation changes with the policy, not before."""
    torch.manual_seed(0)
    ppo = shaken(PPO(spec, Config(share=share, epochs=2)))
    with feeding(ppo, spec) as feed:
        for number in range(3):
            rollout = feed.next()
            # what was decided before the last update and got its row after it is another policy's: one row an agent
            stale = abs(ppo.nets.look_over(rollout).log_prob - rollout.log_prob) > 2e-5
            assert stale.sum() <= (AGENTS if number else 0)
            before = ppo.policy_parameters()
            ppo.update(rollout)
            assert not torch.equal(before, ppo.policy_parameters())
            assert abs(ppo.nets.look_over(rollout).log_prob - rollout.log_prob).max() > 1e-3


def papers_loss(config: Config, said: InDoubles, rollout: Rollout) -> Tensor:
    """Eq. 9 of Schulman et al. 2017 over all rows, as of the first step: old values are the networks' own."""
    n = len(rollout)
    advantage = [0.0] * n
    for stretch in stretches(rollout.follows):
        total = 0.0
        for t in reversed(stretch):
            gamma = float(rollout.discount[t])
            delta = float(rollout.reward[t]) + gamma * said.next_values[t].item() - said.values[t].item()
            advantage[t] = total = delta + gamma * config.gae_lambda * total
    mean = sum(advantage) / n
    deviation = math.sqrt(sum((each - mean) ** 2 for each in advantage) / n)
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        log_prob, entropy = said.judge(i)
        ratio = torch.exp(log_prob - float(rollout.log_prob[i]))
        a = (advantage[i] - mean) / (deviation + 1e-8)
        surrogate = torch.minimum(ratio * a, torch.clamp(ratio, 1 - config.clip, 1 + config.clip) * a)
        squared = (said.values[i] - (advantage[i] + said.values[i].item())) ** 2
        loss = loss - surrogate + config.value_weight * 0.5 * squared - config.entropy * entropy
    return loss / n


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("share", [False, True])
def test_a_gradient_step_is_that_of_the_paper(spec: EnvSpec, share: bool) -> None:
    torch.manual_seed(1)
    config = Config(share=share, epochs=1, batch_size=1000, entropy=0.02, scale_reward=False, max_grad_norm=0, clip=0.1)
    ppo = shaken(PPO(spec, config))
    with feeding(ppo, spec) as feed:
        ppo.update(feed.next())  # so that there is something to normalise by
        rollout = feed.next()
        shaken(ppo, 0.03)  # ratios beside 1, some beyond the clip
        said = InDoubles(ppo, rollout)
        loss = papers_loss(config, said, rollout)
        torch.autograd.backward(loss)
        learned = ppo.update(rollout)
    for mine, (name, theirs) in zip(ppo.nets.parameters(), said.nets.named_parameters(), strict=True):
        if not len(theirs):  # no continuous actions, no deviations
            continue
        assert theirs.grad is not None and mine.grad is not None, name
        np.testing.assert_allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5, err_msg=name)
    assert learned.updates == 1
    metrics = learned.metrics
    total = metrics["policy_loss"] + 0.5 * metrics["value_loss"] - 0.02 * metrics["entropy"]
    assert total.item() == pytest.approx(loss.item(), abs=1e-4)
    assert 0.05 < metrics["clipped"].item() < 0.95
    assert not any(metric.requires_grad for metric in metrics.values())


def test_a_clipped_value_is_no_nearer_to_its_target_than_the_clip_allows() -> None:
    """The second step's loss: the worse of the new value, and of the new value held near the old one."""
    once, twice = (shaken_alike(Config(epochs=n, batch_size=1000, clip_value=0.01, lr=1e-2)) for n in (1, 2))
    with feeding(once, DISCRETE) as feed, feeding(twice, DISCRETE) as same:
        rollout, copied = feed.next(), same.next()
        _, old, after = once.nets.look_over(rollout)
        once.update(rollout)  # which normalises anew at its end; the second step does not see that yet
        once.nets.normalizer.load_state_dict(shaken_alike(Config()).nets.normalizer.state_dict())
        new = once.nets.look_over(rollout).value
        reward = RewardScale(0.99)(rollout)
        target = old + gae(reward, rollout.discount, old, after, rollout.follows, 0.95)
        near = old + np.clip(new - old, -0.01, 0.01)
        assert (abs(new - old) > 0.01).any()
        expected = 0.5 * np.maximum((new - target) ** 2, (near - target) ** 2).mean()
        assert twice.update(copied).metrics["value_loss"].item() == pytest.approx(expected, rel=1e-4)


def shaken_alike(config: Config, spec: EnvSpec = DISCRETE) -> PPO:
    torch.manual_seed(3)
    ppo: PPO = shaken(PPO(spec, config))
    return ppo


def test_the_epochs_end_early_once_the_policy_has_moved_too_far() -> None:
    counts = []
    for target_kl in (0.0, 1e9, 1e-5):
        ppo = shaken_alike(Config(epochs=7, batch_size=1000, target_kl=target_kl, lr=1e-2))
        with feeding(ppo, DISCRETE) as feed:
            counts.append(ppo.update(feed.next()).updates)
    assert counts[:2] == [7, 7]
    assert counts[2] == 2  # in the first it has not moved yet


def test_a_mask_that_allows_everything_is_no_mask() -> None:
    ppo, masked = shaken_alike(Config()), shaken_alike(Config(), MASKED)
    with feeding(ppo, DISCRETE) as feed:
        batch = feed.next().take(np.arange(40))
        plain = ppo.nets.judge(batch)
        batch.obs[ACTION_MASK] = torch.ones(40, 5, dtype=torch.bool)
        for one, other in zip(plain, masked.nets.judge(batch), strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_what_is_masked_has_no_part_in_probabilities_entropy_or_gradient() -> None:
    ppo = shaken_alike(Config(), MASKED)
    with feeding(ppo, MASKED) as feed:
        batch = feed.next().take(np.arange(40))
        batch.obs[ACTION_MASK][:] = torch.tensor([True, False, False, False, True])  # one choice in each branch
        batch.choice[:] = torch.tensor([0, 1])
        log_prob, entropy, _ = ppo.nets.judge(batch)
        assert log_prob.abs().max() < 1e-6 and entropy.abs().max() < 1e-6
        torch.autograd.backward(log_prob.sum() + entropy.sum())
        gradients = [parameter.grad for parameter in ppo.nets.actor.parameters()]
        assert all(each is not None and each.abs().max() < 1e-6 for each in gradients)


def test_rewards_are_divided_by_the_deviation_of_every_agents_discounted_return() -> None:
    """As VecNormalize does it: the return of an episode goes on over rollouts, and starts anew with each episode."""
    ppo = shaken_alike(Config(gamma=0.9), CONTINUOUS)
    scale, running, seen = RewardScale(0.9), dict[int, float](), []
    with feeding(ppo, CONTINUOUS) as feed:
        for _ in range(4):
            rollout = feed.next(steps=17)
            for agent, decision, reward in zip(rollout.agent, rollout.decision, rollout.reward, strict=True):
                running[agent] = float(reward) + (0.9 * running[agent] if decision else 0.0)
                seen.append(running[agent])
            expected = (rollout.reward / np.std(seen)).clip(-10, 10)
            np.testing.assert_allclose(scale(rollout), expected, rtol=1e-4)


def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened() -> None:
    one, other = shaken_alike(Config(epochs=2), HYBRID), PPO(HYBRID, Config(epochs=2))
    with feeding(one, HYBRID) as feed:
        one.update(feed.next())
        file = io.BytesIO()
        torch.save(one.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        for _ in range(2):
            rollout = feed.next()
            learned: list[Learned] = []
            for ppo in (one, other):
                torch.manual_seed(5)
                learned.append(ppo.update(rollout))
            assert_equal(learned[0].metrics, learned[1].metrics)
        assert torch.equal(one.policy_parameters(), other.policy_parameters())
        assert_equal(one.state_dict(), other.state_dict())
        kept = copy.deepcopy(other.state_dict())
        one.update(rollout)
        assert_equal(other.state_dict(), kept)


def test_at_first_every_choice_is_about_as_likely_and_deviations_are_what_was_asked_for() -> None:
    torch.manual_seed(0)
    ppo = PPO(HYBRID, Config(log_std=-0.5))
    with feeding(ppo, HYBRID) as feed:
        batch = feed.next().take(np.arange(50))
        outputs, value = ppo.nets(prepare(batch.obs, ppo.policy_spec.net, ppo.nets.normalizer))
    assert outputs.abs().max() < 0.1 < value.abs().max()
    assert ppo.nets.log_std.tolist() == [-0.5]
    assert ppo.policy_parameters()[-1] == -0.5


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "--algo.epochs 0"),
        ({"batch_size": 1}, "--algo.batch-size 1"),
        ({"gae_lambda": 1.1}, "--algo.gae-lambda 1.1"),
        ({"clip": 0.0}, "--algo.clip 0.0"),
        ({"clip_value": -1.0}, "--algo.clip-value -1.0"),
        ({"target_kl": -1.0}, "--algo.target-kl -1.0"),
        ({"lr": 0.0}, "--algo.lr 0.0"),
        ({"entropy": -0.1}, "--algo.entropy -0.1"),
        ({"value_weight": -0.1}, "--algo.value-weight -0.1"),
        ({"log_std": 3.0}, "--algo.log-std 3.0"),
        ({"horizon": 0}, "--algo.horizon 0"),
        ({"ahead": -1}, "--algo.ahead -1"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Config(**wrong)
