"""Discrete SAC against Christodoulou 2019, in loops and double precision; its masks; saved and loaded; refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.nets import Network
from algos.sac_discrete import Config, SACDiscrete
from core.acting import Policy
from core.types import ACTION_MASK, Rows
from tests.algos.discrete_rows import (
    SIZES,
    SPEC,
    allowed,
    assert_goes_on_as_if_nothing_had_happened,
    batch,
    exact,
    flat,
    gradient,
    huber,
    move,
    rows,
    says,
    stepped_by,
)


class Paper:
    """Algorithm 1, one row and one branch at a time. Choices that are not allowed do not exist."""

    def __init__(self, sac: SACDiscrete) -> None:
        self.actor = exact(sac.actor)
        self.critics, self.targets = ([exact(each) for each in both] for both in (sac.critics, sac.target_critics))
        self.alpha = float(sac.log_temperature.detach().exp())
        self.fraction = sac.config.entropy

    def critic_loss(self, rows: Rows, weight: Tensor) -> Tensor:
        """Equations 6 and 10: y = r + gamma pi(s')^T (min Q'(s') - alpha log pi(s'))."""
        loss = torch.zeros((), dtype=torch.float64)
        for i in range(len(rows)):
            for branch in range(len(SIZES)):
                value = 0.0
                policy = self.policy(rows, "next_obs", i, branch)
                both = [says(target, rows, "next_obs", i)[branch][:, 0].tolist() for target in self.targets]
                for choice, p in policy.items():
                    q = min(both[0][choice], both[1][choice])
                    value += float(p.detach()) * (q - self.alpha * math.log(float(p.detach())))
                y = float(rows["reward"][i]) + float(rows["discount"][i]) * value
                for critic in self.critics:
                    q_said = says(critic, rows, "obs", i)[branch][int(rows["choice"][i, branch]), 0]
                    loss = loss + float(weight[i]) * huber(y - q_said) / len(SIZES) / len(rows)
        return loss

    def actor_loss(self, rows: Rows) -> Tensor:
        """Equation 12: pi(s)^T (alpha log pi(s) - min Q(s))."""
        loss = torch.zeros((), dtype=torch.float64)
        for i in range(len(rows)):
            for branch in range(len(SIZES)):
                both = [says(critic, rows, "obs", i)[branch][:, 0].tolist() for critic in self.critics]
                for choice, p in self.policy(rows, "obs", i, branch).items():
                    q = min(both[0][choice], both[1][choice])
                    loss = loss + p * (self.alpha * p.log() - q) / len(SIZES) / len(rows)
        return loss

    def surplus(self, rows: Rows) -> float:
        """Equation 11's inner part: the entropy above the one asked for."""
        total = 0.0
        for i in range(len(rows)):
            for branch in range(len(SIZES)):
                policy = [float(p.detach()) for p in self.policy(rows, "obs", i, branch).values()]
                entropy = -sum(p * math.log(p) for p in policy)
                total += (entropy - self.fraction * math.log(len(policy))) / len(SIZES) / len(rows)
        return total

    def policy(self, rows: Rows, side: str, i: int, branch: int) -> dict[int, Tensor]:
        """Allowed choice -> its probability."""
        choices = allowed(rows, side, i, branch)
        likely = says(self.actor, rows, side, i)[branch][choices, 0].softmax(0)
        return dict(zip(choices, likely, strict=True))


def both(networks: list[Network]) -> torch.nn.ModuleList:
    return torch.nn.ModuleList(networks)


def test_losses_and_gradients_are_those_of_the_paper() -> None:
    torch.manual_seed(1)
    sac = SACDiscrete(SPEC, Config(hidden=(16, 8), normalize=False, temperature=0.3, temperature_lr=1e-2, entropy=0.6))
    move(sac.actor, *sac.critics, *sac.target_critics)
    paper, drawn, weight = Paper(sac), rows(16, seed=1), torch.rand(16)
    before, target = sac.log_temperature.item(), flat(both(sac.target_critics))
    metrics = sac.update(batch(drawn, weight)).metrics

    critic_loss, actor_loss = paper.critic_loss(drawn, weight), paper.actor_loss(drawn)
    assert metrics["critic_loss"].item() == pytest.approx(critic_loss.item(), rel=1e-4)
    assert metrics["actor_loss"].item() == pytest.approx(actor_loss.item(), rel=1e-4)
    wanted = gradient(both(paper.critics), critic_loss)
    assert wanted.abs().max() > 1e-3
    np.testing.assert_allclose(stepped_by(both(sac.critics)), wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(stepped_by(sac.actor), gradient(paper.actor, actor_loss), rtol=0, atol=1e-5)

    # the first step of Adam is by the learning rate, against the gradient's sign; log alpha's is the surplus
    assert sac.log_temperature.grad is not None
    assert sac.log_temperature.grad.item() == pytest.approx(paper.surplus(drawn), rel=1e-4)
    assert sac.log_temperature.item() == pytest.approx(before - 1e-2 * np.sign(paper.surplus(drawn)), abs=1e-6)
    tau = sac.config.tau
    torch.testing.assert_close(flat(both(sac.target_critics)), (1 - tau) * target + tau * flat(both(sac.critics)))
    assert not any(metric.requires_grad for metric in metrics.values())


def test_what_a_mask_excludes_has_no_part_in_anything() -> None:
    torch.manual_seed(0)
    drawn = rows(64, seed=0)
    drawn["obs"][ACTION_MASK][:, 0] = drawn["next_obs"][ACTION_MASK][:, 0] = False
    drawn["obs"][ACTION_MASK][:, 1] = drawn["next_obs"][ACTION_MASK][:, 1] = True
    drawn["choice"][:, 0] = 1
    learned = []
    for worth in (0.0, 1e3):  # of what is never allowed
        torch.manual_seed(0)
        sac = SACDiscrete(SPEC, Config(hidden=(16, 8)))
        for network in (sac.actor, *sac.critics, *sac.target_critics):
            last: Any = network.groups["head"][-1]
            last.bias.data[0] = worth
        learned.append(sac.update(batch(drawn)).metrics)
    for name, metric in learned[0].items():
        assert metric.isfinite() and torch.equal(metric, learned[1][name])


def test_a_worker_chooses_as_likely_as_the_learner_thinks() -> None:
    torch.manual_seed(0)
    sac = SACDiscrete(SPEC, Config(hidden=(16, 8), normalize=False))
    move(sac.actor)
    drawn = rows(1, seed=3)
    policy = Policy(sac.policy_spec, SPEC.action, 20_000, sac.policy_parameters().numpy(), seed=0)
    many = {name: np.repeat(drawn["obs"][name], 20_000, axis=0) for name in SPEC.obs}
    choice = policy.explore(many, np.arange(20_000)).choice
    for branch in range(len(SIZES)):
        likely = Paper(sac).policy(drawn, "obs", 0, branch)
        for option in range(SIZES[branch]):
            held = float(likely[option].detach()) if option in likely else 0.0
            assert (choice[:, branch] == option).mean() == pytest.approx(held, abs=0.015 if held else 0)


def test_a_temperature_that_does_not_learn_stays() -> None:
    sac = SACDiscrete(SPEC, Config(hidden=(8,), temperature_lr=0.0, temperature=0.5))
    for number in range(3):
        sac.update(batch(rows(16, number)))
    assert sac.log_temperature.exp().item() == pytest.approx(0.5)


def test_a_temperature_stays_within_its_bounds() -> None:
    sac = SACDiscrete(SPEC, Config(hidden=(8,), temperature_lr=0.9, entropy=0.1))
    for number in range(30):
        sac.update(batch(rows(16, number)))
    assert sac.log_temperature.item() == pytest.approx(-10)


def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened() -> None:
    config = Config(hidden=(16, 8))
    assert_goes_on_as_if_nothing_had_happened(SACDiscrete(SPEC, config), SACDiscrete(SPEC, config))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"entropy": 1.0}, "--algo.entropy 1.0; it must be at least 0, below 1"),
        ({"temperature": 0.0}, "--algo.temperature 0.0"),
        ({"temperature_lr": 1.0}, "--algo.temperature-lr 1.0"),
        ({"actor_lr": 0.0}, "--algo.actor-lr 0.0"),
        ({"critic_lr": 1.0}, "--algo.critic-lr 1.0"),
        ({"tau": 2.0}, "--algo.tau 2.0"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Config(**options)
