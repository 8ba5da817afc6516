"""DDPG against the paper's equations, written term by term; and that it can be stopped and taken up again."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algos.ddpg import DDPG, Config
from algos.nets import VECTOR
from core.gather import as_batch
from core.types import ActionSpec, Batch, EnvSpec, FieldSpec, Recording, Rows, row_layout

SPEC = EnvSpec({"a": FieldSpec((3,)), "b": FieldSpec((2, 2))}, ActionSpec((-1.0,) * 2, (1.0,) * 2), 4)


def rows(count: int, seed: int, spec: EnvSpec = SPEC) -> Rows:
    """As they would lie in a batch: everything random."""
    random = np.random.default_rng(seed)
    result: Rows = np.zeros(count, row_layout(spec, Recording()))
    for side in ("obs", "next_obs"):
        for name, each in spec.obs.items():
            result[side][name] = random.normal(1, 2, (count, *each.shape)).astype(each.dtype)
    result["action"] = random.uniform(-1, 1, result["action"].shape)
    result["reward"] = random.normal(size=count)
    result["discount"] = random.choice([0.0, 0.99], count)
    return result


def batch(rows: Rows) -> Batch:
    return as_batch(torch.from_numpy(rows.view("u1").reshape(len(rows), -1)), rows.dtype, torch.ones(len(rows)), {})


class Paper:
    """Algorithm 1 of Lillicrap et al. 2016 in loops and double precision, and Adam as Kingma and Ba 2015 wrote it."""

    def __init__(self, ddpg: DDPG) -> None:
        self.config = ddpg.config
        networks = (ddpg.actor, ddpg.critic, ddpg.target_actor, ddpg.target_critic)
        self.actor, self.critic, self.target_actor, self.target_critic = (plain(each) for each in networks)
        self.shown: list[Tensor] = []
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}
        self._updates = 0

    def update(self, rows: Rows) -> None:
        self._updates += 1
        s, s2 = self._observe(rows, "obs"), self._observe(rows, "next_obs")
        if self.config.normalize:
            self.shown += list(s)
            s, s2 = self._normalized(s), self._normalized(s2)
        a, n = torch.from_numpy(rows["action"].astype(np.float64)), len(rows)

        # y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1})); gamma is 0 after a true end
        y = []
        for i in range(n):
            q2 = self.target_critic(torch.cat([s2[i], torch.tanh(self.target_actor(s2[i]))]))
            y.append(float(rows["reward"][i]) + float(rows["discount"][i]) * q2.detach())

        # L = 1/N sum_i (y_i - Q(s_i, a_i))^2
        loss = sum(((y[i] - self.critic(torch.cat([s[i], a[i]]))) ** 2 for i in range(n)), torch.zeros(1)) / n
        self._adam(self.critic, loss, self.config.critic_lr)

        # J = 1/N sum_i Q(s_i, mu(s_i)), climbed along mu's parameters
        value = sum((self.critic(torch.cat([s[i], torch.tanh(self.actor(s[i]))])) for i in range(n)), torch.zeros(1))
        self._adam(self.actor, -value / n, self.config.actor_lr)

        # theta' = tau theta + (1 - tau) theta'
        for target, network in ((self.target_critic, self.critic), (self.target_actor, self.actor)):
            for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
                slow.data = self.config.tau * fast.data + (1 - self.config.tau) * slow.data

    def _observe(self, rows: Rows, side: str) -> Tensor:
        fields = [rows[side][name].reshape(len(rows), -1) for name in SPEC.obs]
        return torch.from_numpy(np.concatenate(fields, axis=1).astype(np.float64))

    def _normalized(self, s: Tensor) -> Tensor:
        """By mean and deviation of every observation shown so far, within 5 deviations."""
        shown = torch.stack(self.shown)
        deviation = torch.sqrt(((shown - shown.mean(0)) ** 2).mean(0))
        return torch.clamp((s - shown.mean(0)) / deviation, -5, 5)

    def _adam(self, network: nn.Module, loss: Tensor, rate: float) -> None:
        parameters = list(network.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            m, v = self._moments.get(id(parameter), (torch.zeros_like(gradient), torch.zeros_like(gradient)))
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            self._moments[id(parameter)] = m, v
            unbiased_m, unbiased_v = m / (1 - 0.9**self._updates), v / (1 - 0.999**self._updates)
            parameter.data = parameter.data - rate * unbiased_m / (torch.sqrt(unbiased_v) + 1e-8)


def plain(network: nn.Module) -> nn.Module:
    """The same layers with parameters of their own, in double precision."""
    layers: list[nn.Module] = []
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            fresh = nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64)
            fresh.weight.data.copy_(layer.weight.data)
            fresh.bias.data.copy_(layer.bias.data)
            layers += [fresh, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def vector(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach().double()


@pytest.mark.parametrize("normalize", [True, False])
def test_three_updates_are_those_of_the_paper(normalize: bool) -> None:
    torch.manual_seed(1)
    ddpg = DDPG(SPEC, Config(hidden=(16, 8), tau=0.05, normalize=normalize, actor_lr=2e-3, critic_lr=1e-3))
    for network in (ddpg.critic, ddpg.target_critic, ddpg.actor, ddpg.target_actor):
        for parameter in network.parameters():
            parameter.data.add_(torch.randn(parameter.shape) * 0.2)  # targets apart, outputs not near zero
    paper = Paper(ddpg)
    start = {name: vector(getattr(ddpg, name)) for name in NETWORKS}
    for number in range(3):
        ddpg.update(batch(rows(32, seed=number)))
        paper.update(rows(32, seed=number))
    for name in NETWORKS:
        moved, wanted = vector(getattr(ddpg, name)) - start[name], vector(getattr(paper, name)) - start[name]
        assert wanted.abs().max() > 1e-4
        np.testing.assert_allclose(moved, wanted, rtol=0, atol=1e-5)


NETWORKS = ("actor", "critic", "target_actor", "target_critic")


def test_metrics_are_those_of_the_losses() -> None:
    torch.manual_seed(0)
    ddpg = DDPG(SPEC, Config(normalize=False))
    drawn = batch(rows(64, seed=0))
    before = copy.deepcopy(ddpg)
    learned = ddpg.update(drawn)
    metrics = learned.metrics
    obs, next_obs = (
        {VECTOR: torch.cat([each["a"], each["b"].flatten(1)], dim=1)} for each in (drawn.obs, drawn.next_obs)
    )
    with torch.no_grad():
        q = before.critic(obs, drawn.action).squeeze(1)
        next_q = before.target_critic(next_obs, before.target_actor(next_obs).tanh()).squeeze(1)
        td_error = drawn.reward + drawn.discount * next_q - q
        loss = td_error.square().mean()
        value = ddpg.critic(obs, before.actor(obs).tanh()).mean()
    assert metrics["q"].item() == pytest.approx(q.mean().item(), abs=1e-6)
    assert metrics["critic_loss"].item() == pytest.approx(loss.item(), abs=1e-5)
    assert metrics["actor_loss"].item() == pytest.approx(-value.item(), abs=1e-5)
    assert not any(metric.requires_grad for metric in metrics.values())
    assert learned.td_error is not None and not learned.td_error.requires_grad
    torch.testing.assert_close(learned.td_error, td_error.abs())


def test_targets_start_as_the_networks_that_they_follow() -> None:
    ddpg = DDPG(SPEC, Config())
    assert torch.equal(vector(ddpg.actor), vector(ddpg.target_actor))
    assert torch.equal(vector(ddpg.critic), vector(ddpg.target_critic))


def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened() -> None:
    torch.manual_seed(0)
    one, other = DDPG(SPEC, Config()), DDPG(SPEC, Config())
    for number in range(5):
        one.update(batch(rows(32, seed=number)))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for number in range(5, 10):
        drawn = batch(rows(32, seed=number))
        metrics, same = one.update(drawn).metrics, other.update(drawn).metrics
        assert all(torch.equal(metrics[name], same[name]) for name in metrics)
    assert torch.equal(one.policy_parameters(), other.policy_parameters())
    assert_equal(one.state_dict(), other.state_dict())


def assert_equal(one: Any, other: Any) -> None:
    """Two nests of dicts and lists, tensors and numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_a_state_that_was_loaded_is_a_copy() -> None:
    torch.manual_seed(0)
    one, other = DDPG(SPEC, Config()), DDPG(SPEC, Config())
    one.update(batch(rows(32, seed=0)))
    other.load_state_dict(one.state_dict())
    kept = copy.deepcopy(other.state_dict())
    one.update(batch(rows(32, seed=1)))
    assert_equal(other.state_dict(), kept)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (ActionSpec(branches=(3, 2)), r"0 continuous and 2 discrete branch\(es\) of sizes \[3, 2\]"),
        (ActionSpec((-1.0,), (1.0,), (4,)), r"1 continuous and 1 discrete branch\(es\) of sizes \[4\]"),
        (ActionSpec(), r"0 continuous and 0 discrete"),
    ],
)
def test_discrete_actions_are_refused_by_name(action: ActionSpec, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DDPG(EnvSpec(SPEC.obs, action, 4), Config())


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
def test_the_tensors_of_a_batch_are_the_fields_of_its_rows_and_share_their_memory(dtype: str) -> None:
    spec = EnvSpec({"x": FieldSpec((3,), dtype), "y": FieldSpec(()), "z": FieldSpec((2, 2))}, SPEC.action, 1)
    sampled = rows(16, 0, spec)
    views = batch(sampled)
    for number in range(2):
        for name in ("action", "reward", "discount"):
            assert np.array_equal(getattr(views, name), sampled[name])
        for name in ("obs", "next_obs"):
            for key, tensor in getattr(views, name).items():
                assert tensor.numpy().dtype == sampled[name][key].dtype
                assert np.array_equal(tensor, sampled[name][key])
        sampled[:] = rows(16, number + 1, spec)
