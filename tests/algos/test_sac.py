"""SAC against the paper's equations, written term by term; and that worker and learner mean the same policy."""

from __future__ import annotations

import math
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.nets import Network
from algos.sac import SAC, Config
from core.acting import LOG_STD, Policy
from core.types import ActionSpec, EnvSpec, Rows
from tests.algos.continuous_rows import (
    IMAGES,
    SPEC,
    Adam,
    assert_a_loaded_state_is_a_copy,
    assert_goes_on_as_if_nothing_had_happened,
    assert_moved_alike,
    batch,
    exact,
    flat,
    follow,
    move,
    normalized,
    rows,
    says,
    states,
    weights,
)

CONFIG = Config(hidden=(16, 8), tau=0.05, actor_lr=2e-3, temperature_lr=1e-2)
N = 32
NETWORKS = ("actor", "critics.one", "critics.other", "target_critics.one", "target_critics.other")


class Paper:
    """Algorithm 1 of Haarnoja et al. 2018 (arXiv 1812.05905) in loops and double precision."""

    def __init__(self, sac: SAC) -> None:
        self.config = config = sac.config
        self.networks = {name: exact(at(sac, name)) for name in NETWORKS}
        both = [*self.networks["critics.one"].parameters(), *self.networks["critics.other"].parameters()]
        self._critic_adam = Adam(both, config.critic_lr)
        self._actor_adam = Adam(list(self.networks["actor"].parameters()), config.actor_lr)
        self.log_alpha = torch.nn.Parameter(torch.tensor(math.log(config.temperature or 0.1), dtype=torch.float64))
        self._alpha_adam = Adam([self.log_alpha], config.temperature_lr)
        self._shown = torch.zeros(0, 7, dtype=torch.float64)
        self.td_error = np.zeros(N)
        self.figures: dict[str, float] = {}

    def update(self, rows: Rows, weight: Tensor) -> None:
        config, networks = self.config, self.networks
        s, s2 = states(rows, "obs"), states(rows, "next_obs")
        if config.normalize:
            self._shown = torch.cat([self._shown, s])
            s, s2 = normalized(s, self._shown), normalized(s2, self._shown)
        a = torch.from_numpy(rows["action"].astype(np.float64))
        next_drawn, drawn = torch.randn(N, 2).double(), torch.randn(N, 2).double()
        alpha = float(self.log_alpha.detach().exp())

        # J_Q(theta_i) = E[1/2 (Q_i(s, a) - (r + gamma (min_j Q'_j(s', a') - alpha log pi(a'|s'))))^2] (equations 5, 6)
        losses, qs = [], []
        for i in range(N):
            a2, log_prob = policy(networks["actor"], s2[i], next_drawn[i])
            lower = min(says(networks[f"target_critics.{which}"], s2[i], a2).item() for which in ("one", "other"))
            y = float(rows["reward"][i]) + float(rows["discount"][i]) * (lower - alpha * log_prob.item())
            q = [says(networks[f"critics.{which}"], s[i], a[i])[0] for which in ("one", "other")]
            losses += [float(weight[i]) * 0.5 * (each - y) ** 2 / N for each in q]
            qs += [each.item() for each in q]
            self.td_error[i] = (abs(y - q[0].item()) + abs(y - q[1].item())) / 2
        critic_loss = torch.stack(losses).sum()
        self._critic_adam.descend(critic_loss)

        # J_pi(phi) = E[alpha log pi(f(e; s)|s) - min_i Q_i(s, f(e; s))] (equation 9)
        losses, log_probs = [], []
        for i in range(N):
            act, log_prob = policy(networks["actor"], s[i], drawn[i])
            one, other = (says(networks[f"critics.{which}"], s[i], act)[0] for which in ("one", "other"))
            losses.append((alpha * log_prob - (one if one.item() < other.item() else other)) / N)
            log_probs.append(log_prob.item())
        actor_loss = torch.stack(losses).sum()
        self._actor_adam.descend(actor_loss)

        # J(alpha) = E[-alpha log pi(a|s) - alpha H], H = -dim(A) (equation 18)
        if not config.temperature:
            self._alpha_adam.descend(
                torch.stack([self.log_alpha.exp() * (-each - -2.0) for each in log_probs]).sum() / N
            )
        for which in ("one", "other"):
            follow(networks[f"target_critics.{which}"], networks[f"critics.{which}"], config.tau)
        self.figures = {
            "critic_loss": critic_loss.item(),
            "actor_loss": actor_loss.item(),
            "q": sum(qs) / len(qs),
            "entropy": -sum(log_probs) / N,
            "temperature": alpha,
        }


def policy(actor: Network, s: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u), u = mu + sigma e; log pi(a|s) = log N(u; mu, sigma) - sum log(1 - tanh(u)^2) (equation 26);
    1 - tanh(u)^2 is 1 / cosh(u)^2."""
    mean, log_std = says(actor, s).chunk(2)
    std = torch.clamp(log_std, *LOG_STD).exp()
    u = mean + std * e
    normal = -0.5 * ((u - mean) / std) ** 2 - torch.log(std) - 0.5 * math.log(2 * math.pi)
    return torch.tanh(u), (normal + 2 * torch.log(torch.cosh(u))).sum()


def at(sac: SAC, name: str) -> Network:
    """The network of that dotted name."""
    network = attrgetter(name)(sac)
    assert isinstance(network, Network)
    return network


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, normalize=False, temperature=0.3)])
def test_updates_metrics_and_td_errors_are_those_of_the_paper(config: Config) -> None:
    torch.manual_seed(1)
    sac = SAC(SPEC, config)
    move(sac.actor, sac.critics, sac.target_critics)
    list(sac.actor.parameters())[-1].data[2:] = torch.tensor(LOG_STD)  # some deviations lie beyond the limits
    paper = Paper(sac)
    start = {name: flat(at(sac, name)) for name in NETWORKS}
    for number in range(4):
        drawn, weight = rows(N, seed=number), weights(N, seed=number)
        torch.manual_seed(number)
        learned = sac.update(batch(drawn, weight))
        torch.manual_seed(number)
        paper.update(drawn, weight)
        assert learned.metrics.keys() == paper.figures.keys()
        for name, metric in learned.metrics.items():
            assert metric.item() == pytest.approx(paper.figures[name], abs=1e-4) and not metric.requires_grad
        assert learned.td_error is not None
        np.testing.assert_allclose(learned.td_error, paper.td_error, rtol=0, atol=1e-4)
    for name in NETWORKS:
        assert_moved_alike(start[name], flat(at(sac, name)), flat(paper.networks[name]))
    assert sac.state_dict()["log_temperature"].item() == pytest.approx(paper.log_alpha.item(), abs=1e-5)


def test_a_fixed_temperature_stays_and_another_finds_its_way() -> None:
    fixed, free = SAC(SPEC, replace(CONFIG, temperature=0.5)), SAC(SPEC, CONFIG)
    for sac in (fixed, free):
        for number in range(3):
            metrics = sac.update(batch(rows(N, seed=number))).metrics
    assert metrics["entropy"] > -2 and metrics["temperature"] < 0.1  # it was higher than asked for
    assert fixed.update(batch(rows(N, seed=9))).metrics["temperature"].item() == pytest.approx(0.5)


def test_the_workers_draw_from_the_distribution_that_the_learner_means() -> None:
    torch.manual_seed(0)
    n = 200
    sac = SAC(SPEC, replace(CONFIG, normalize=False))
    for parameter in sac.actor.parameters():
        parameter.data.copy_(torch.randn(parameter.shape))  # it says extremes
    seen = rows(n, seed=5)
    obs = {name: np.array(seen["obs"][name]) for name in SPEC.obs}
    acting = Policy(sac.policy_spec, SPEC.action, n, sac.policy_parameters().numpy(), seed=3)
    explored, best = acting.explore(obs, np.arange(n)).action, acting.act(obs, np.arange(n)).action

    drawn = torch.from_numpy(np.random.Generator(np.random.SFC64(3)).standard_normal((n, 2), np.float32)).double()
    actor, s = exact(sac.actor), states(seen, "obs")
    with torch.no_grad():
        outputs = torch.stack([says(actor, each) for each in s])
        wanted = torch.stack([policy(actor, s[i], drawn[i])[0] for i in range(n)])
    assert (outputs[:, 2:] < LOG_STD[0]).any() and (outputs[:, 2:] > LOG_STD[1]).any()
    np.testing.assert_allclose(best, outputs[:, :2].tanh(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(explored, wanted, rtol=0, atol=1e-4)


def test_certain_actions_at_their_bounds_have_a_finite_probability() -> None:
    sac = SAC(SPEC, CONFIG)
    for parameter in sac.actor.parameters():
        parameter.data.fill_(30.0)
    for number in range(2):
        metrics = sac.update(batch(rows(N, number))).metrics
        assert all(torch.isfinite(metric) for metric in metrics.values())
    assert torch.isfinite(sac.policy_parameters()).all()


def test_targets_start_as_the_critics_that_they_follow_and_the_twins_apart() -> None:
    sac = SAC(SPEC, Config())
    assert torch.equal(flat(sac.critics), flat(sac.target_critics))
    assert not torch.equal(flat(sac.critics.one), flat(sac.critics.other))


def test_the_actors_step_leaves_no_gradient_in_the_critics() -> None:
    sac = SAC(SPEC, CONFIG)
    sac.update(batch(rows(N, seed=0), torch.zeros(N)))  # whose critics have nothing to learn
    assert all(not each.grad.any() for each in sac.critics.parameters() if each.grad is not None)
    assert any(each.grad.any() for each in sac.actor.parameters() if each.grad is not None)


def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened() -> None:
    assert_goes_on_as_if_nothing_had_happened(SAC(SPEC, CONFIG), SAC(SPEC, CONFIG))


def test_a_state_that_was_loaded_is_a_copy() -> None:
    assert_a_loaded_state_is_a_copy(SAC(SPEC, CONFIG), SAC(SPEC, CONFIG))


def test_it_learns_from_images_beside_a_vector() -> None:
    sac = SAC(IMAGES, CONFIG)
    for number in range(2):
        assert torch.isfinite(sac.update(batch(rows(4, number, IMAGES))).metrics["critic_loss"])


def test_discrete_actions_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"SAC takes continuous actions; .* 1 discrete"):
        SAC(EnvSpec(SPEC.obs, ActionSpec(branches=(3,)), 4), Config())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tau": 1.5}, "--algo.tau 1.5"),
        ({"actor_lr": 1.0}, "--algo.actor-lr 1.0"),
        ({"critic_lr": 0.0}, "--algo.critic-lr 0.0"),
        ({"temperature": -0.1}, "--algo.temperature -0.1"),
        ({"temperature": math.inf}, "--algo.temperature inf"),
        ({"temperature_lr": 0.0}, "--algo.temperature-lr 0.0"),
        ({"alpha": 2.0}, "--algo.alpha 2.0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_name_and_value(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}; it must be"):
        Config(**wrong)
