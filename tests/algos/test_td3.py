"""TD3 against the paper's equations, written term by term; and that it can be stopped and taken up again."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch

from algos.nets import Network
from algos.td3 import TD3, Config
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

CONFIG = Config(hidden=(16, 8), tau=0.05, actor_lr=2e-3, target_sigma=0.4, target_clip=0.3)
N = 32
NETWORKS = (
    *("actor", "target_actor"),
    *("critics.one", "critics.other", "target_critics.one", "target_critics.other"),
)


class Paper:
    """Algorithm 1 of Fujimoto et al. 2018 in loops and double precision."""

    def __init__(self, td3: TD3) -> None:
        self.config = config = td3.config
        self.networks = {name: exact(at(td3, name)) for name in NETWORKS}
        both = [*self.networks["critics.one"].parameters(), *self.networks["critics.other"].parameters()]
        self._critic_adam = Adam(both, config.critic_lr)
        self._actor_adam = Adam(list(self.networks["actor"].parameters()), config.actor_lr)
        self._shown = torch.zeros(0, 7, dtype=torch.float64)
        self._t = 0
        self.td_error = np.zeros(N)
        self.critic_loss = self.actor_loss = self.q = float("nan")

    def update(self, rows: Rows, weight: torch.Tensor) -> None:
        config, networks = self.config, self.networks
        self._t += 1
        s, s2 = states(rows, "obs"), states(rows, "next_obs")
        if config.normalize:
            self._shown = torch.cat([self._shown, s])
            s, s2 = normalized(s, self._shown), normalized(s2, self._shown)
        a = torch.from_numpy(rows["action"].astype(np.float64))
        drawn = config.target_sigma * torch.randn(N, 2).double()

        # a~ = pi'(s') + e, e ~ clip(N(0, sigma), -c, c);  y = r + gamma min_i Q'_i(s', a~)
        losses, qs = [], []
        for i in range(N):
            noise = torch.clamp(drawn[i], -config.target_clip, config.target_clip)
            a2 = torch.clamp(torch.tanh(says(networks["target_actor"], s2[i])) + noise, -1, 1)
            lower = min(says(networks[f"target_critics.{which}"], s2[i], a2).item() for which in ("one", "other"))
            y = float(rows["reward"][i]) + float(rows["discount"][i]) * lower

            # theta_i = argmin 1/N sum (y - Q_i(s, a))^2, each row by its importance
            q = [says(networks[f"critics.{which}"], s[i], a[i])[0] for which in ("one", "other")]
            losses += [float(weight[i]) * (y - each) ** 2 / N for each in q]
            qs += [each.item() for each in q]
            self.td_error[i] = (abs(y - q[0].item()) + abs(y - q[1].item())) / 2
        loss = torch.stack(losses).sum()
        self._critic_adam.descend(loss)
        self.critic_loss, self.q = loss.item(), sum(qs) / len(qs)

        # if t mod d: phi up the gradient of 1/N sum Q_1(s, pi(s)); targets follow
        if self._t % config.policy_delay == 0:
            values = [
                says(networks["critics.one"], s[i], torch.tanh(says(networks["actor"], s[i])))[0] for i in range(N)
            ]
            loss = -torch.stack(values).sum() / N
            self._actor_adam.descend(loss)
            self.actor_loss = loss.item()
            for name in ("actor", "critics.one", "critics.other"):
                follow(networks[f"target_{name}"], networks[name], config.tau)


def at(td3: TD3, name: str) -> Network:
    """The network of that dotted name."""
    network = attrgetter(name)(td3)
    assert isinstance(network, Network)
    return network


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, normalize=False, policy_delay=3)])
def test_updates_metrics_and_td_errors_are_those_of_the_paper(config: Config) -> None:
    torch.manual_seed(1)
    td3 = TD3(SPEC, config)
    move(td3.actor, td3.critics, td3.target_actor, td3.target_critics)
    paper = Paper(td3)
    start = {name: flat(at(td3, name)) for name in NETWORKS}
    for number in range(5):
        drawn, weight = rows(N, seed=number), weights(N, seed=number)
        torch.manual_seed(number)
        learned = td3.update(batch(drawn, weight))
        torch.manual_seed(number)
        paper.update(drawn, weight)
        for name in ("critic_loss", "actor_loss", "q"):
            wanted = pytest.approx(getattr(paper, name), abs=1e-4, nan_ok=True)
            assert learned.metrics[name].item() == wanted and not learned.metrics[name].requires_grad
        assert learned.td_error is not None
        np.testing.assert_allclose(learned.td_error, paper.td_error, rtol=0, atol=1e-4)
    for name in NETWORKS:
        assert_moved_alike(start[name], flat(at(td3, name)), flat(paper.networks[name]))


def test_smoothing_that_is_clipped_to_nothing_changes_no_target() -> None:
    plain = TD3(SPEC, replace(CONFIG, target_sigma=0.0))
    clipped = TD3(SPEC, replace(CONFIG, target_sigma=10.0, target_clip=0.0))
    clipped.load_state_dict(plain.state_dict())
    assert torch.equal(errors(plain), errors(clipped))


def errors(td3: TD3) -> torch.Tensor:
    learned = td3.update(batch(rows(N, seed=0)))
    assert learned.td_error is not None
    return learned.td_error


def test_targets_start_as_the_networks_that_they_follow_and_the_twins_apart() -> None:
    td3 = TD3(SPEC, Config())
    for name in ("actor", "critics"):
        assert torch.equal(flat(getattr(td3, name)), flat(getattr(td3, f"target_{name}")))
    assert not torch.equal(flat(td3.critics.one), flat(td3.critics.other))


def test_actor_and_targets_wait_for_their_turn() -> None:
    td3 = TD3(SPEC, replace(CONFIG, policy_delay=3))
    moved = []
    for number in range(6):
        before = {name: flat(at(td3, name)) for name in NETWORKS}
        td3.update(batch(rows(N, seed=number)))
        moved.append({name for name in NETWORKS if not torch.equal(before[name], flat(at(td3, name)))})
    assert [each == set(NETWORKS) for each in moved] == [False, False, True] * 2
    assert all(each == {"critics.one", "critics.other"} for each in moved[:2])


def test_the_actors_step_leaves_no_gradient_in_the_critics() -> None:
    td3 = TD3(SPEC, replace(CONFIG, policy_delay=1))
    td3.update(batch(rows(N, seed=0), torch.zeros(N)))  # whose critics have nothing to learn
    assert all(not each.grad.any() for each in td3.critics.parameters() if each.grad is not None)
    assert any(each.grad.any() for each in td3.actor.parameters() if each.grad is not None)


def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened() -> None:
    assert_goes_on_as_if_nothing_had_happened(TD3(SPEC, CONFIG), TD3(SPEC, CONFIG))


def test_a_state_that_was_loaded_is_a_copy() -> None:
    assert_a_loaded_state_is_a_copy(TD3(SPEC, CONFIG), TD3(SPEC, CONFIG))


def test_it_learns_from_images_beside_a_vector() -> None:
    td3 = TD3(IMAGES, CONFIG)
    for number in range(2):
        assert torch.isfinite(td3.update(batch(rows(4, number, IMAGES))).metrics["critic_loss"])


def test_discrete_actions_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"TD3 takes continuous actions; .* 1 discrete"):
        TD3(EnvSpec(SPEC.obs, ActionSpec(branches=(3,)), 4), Config())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tau": 0.0}, "--algo.tau 0.0"),
        ({"actor_lr": 1.0}, "--algo.actor-lr 1.0"),
        ({"critic_lr": 0.0}, "--algo.critic-lr 0.0"),
        ({"sigma": -0.1}, "--algo.sigma -0.1"),
        ({"target_sigma": -0.1}, "--algo.target-sigma -0.1"),
        ({"target_clip": 2.5}, "--algo.target-clip 2.5"),
        ({"policy_delay": 0}, "--algo.policy-delay 0"),
        ({"n_step": 0}, "--algo.n-step 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_name_and_value(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}; it must be"):
        Config(**wrong)
