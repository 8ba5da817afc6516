"""R2D2 against the paper's equations, decision by decision; and that it can be stopped and taken up again."""

from __future__ import annotations

import copy
import io
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.nets import Network, prepare
from algos.r2d2 import R2D2, Config
from core.acting import Policy
from core.gather import as_batch
from core.types import ACTION_MASK, ActionSpec, Batch, EnvSpec, FieldSpec, Rows, row_layout

BRANCHES = (3, 2)
OBS = {"a": FieldSpec((3,)), "b": FieldSpec((2, 2))}
SPEC = EnvSpec({**OBS, ACTION_MASK: FieldSpec((5,), "bool")}, ActionSpec(branches=BRANCHES), 4)
SMALL = Config(
    hidden=(6, 5), lstm=4, burn_in=3, unroll=5, stride=4, n_step=3, batch_size=12, tau=0.5, target_every=2, lr=1e-3
)


def rows(config: Config, seed: int) -> Rows:
    """As they would lie in a batch: of episodes' starts, middles and ends, true and cut ones."""
    random = np.random.default_rng(seed)
    r2d2, length = R2D2(SPEC, config), config.burn_in + config.unroll
    result: Rows = np.zeros(config.batch_size, row_layout(SPEC, r2d2.recording))
    for name, each in OBS.items():
        result["obs"][name] = random.normal(1, 2, (len(result), length + 1, *each.shape))
    mask = random.random((len(result), length + 1, sum(BRANCHES))) < 0.6
    mask[..., [0, 3]] = True
    result["obs"][ACTION_MASK] = mask
    for branch, size in enumerate(BRANCHES):
        result["choice"][:, :, branch] = random.integers(0, size, (len(result), length))
    result["reward"] = random.normal(0, 3, (len(result), length))
    result["discount"], result["valid"] = config.gamma, 1
    result["state"] = random.normal(0, 0.5, result["state"].shape)
    for number, row in enumerate(result):
        if number % 3 == 0:
            row["state"] = 0
        if number % 4:  # the end of an episode: one that is cut, a true one, a true one at the last decision
            end = length if number % 4 == 3 else int(random.integers(config.burn_in + 1, length))
            row["discount"][end - 1] = 0 if number % 4 > 1 else config.gamma
            for name in ("reward", "discount", "valid", "choice"):
                row[name][end:] = 0
    return result


def batch(rows: Rows, seed: int = 0) -> Batch:
    weight = torch.from_numpy(np.random.default_rng(seed).uniform(0.3, 1, len(rows)).astype(np.float32))
    return as_batch(torch.from_numpy(rows.view("u1").reshape(len(rows), -1)), rows.dtype, weight, {})


class Plain:
    """The network of one algorithm: one observation at a time, in double precision."""

    def __init__(self, network: Network) -> None:
        self.spec = network.spec
        self.arrays = {name: each.detach().double().requires_grad_() for name, each in network.named_parameters()}

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Values of each branch's choices, and the state after."""
        hidden = len(self.spec.hidden)
        in_head = 1 if self.spec.dueling else 0
        for number in range(hidden - in_head):
            x = torch.relu(self._dense(f"body.{number}", x))
        # Gers et al. 2000
        w, p = self.arrays, "lstm.0"
        gates = w[f"{p}.weight_ih_l0"] @ x + w[f"{p}.bias_ih_l0"] + w[f"{p}.weight_hh_l0"] @ h + w[f"{p}.bias_hh_l0"]
        i, f, g, o = gates.view(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        if not self.spec.dueling:
            return self._branches(self._dense("head.0", h)), h, c
        # Wang et al. 2016, equation 9
        value = self._dense("value.1", torch.relu(self._dense("value.0", h)))
        advantages = self._branches(self._dense("head.1", torch.relu(self._dense("head.0", h))))
        return [value + each - each.mean() for each in advantages], h, c

    def unroll(self, xs: list[Tensor], state: Tensor, cut: int) -> list[list[Tensor]]:
        """[time][branch] values; no gradient goes back beyond observation `cut`."""
        h, c = state.view(2, -1)
        values = []
        for time, x in enumerate(xs):
            if time == cut:
                h, c = h.detach(), c.detach()
            said, h, c = self.step(x, h, c)
            values.append(said)
        return values

    def _dense(self, name: str, x: Tensor) -> Tensor:
        return self.arrays[f"{name}.weight"] @ x + self.arrays[f"{name}.bias"]

    def _branches(self, x: Tensor) -> list[Tensor]:
        return [x[first:end] for first, end in pairwise(accumulate(BRANCHES, initial=0))]

    def vector(self) -> Tensor:
        return torch.cat([each.detach().reshape(-1) for each in self.arrays.values()])


class Paper:
    """Section 2.3 of Kapturowski et al. 2019 in loops and double precision, and Adam as Kingma and Ba 2015 wrote it."""

    def __init__(self, r2d2: R2D2) -> None:
        self.config = r2d2.config
        self.online, self.target = Plain(r2d2.online), Plain(r2d2.target)
        self.shown: list[Tensor] = []
        self.priorities: list[float] = []
        self.loss = 0.0
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._updates = 0

    def update(self, rows: Rows, weight: Tensor) -> None:
        self._updates += 1
        for row in rows:
            self.shown += self._observed(row)[: int(row["valid"].sum())]
        losses, number = [], 0
        self.priorities = []
        for row, importance in zip(rows, weight.double(), strict=True):
            deltas = self._deltas(row)
            losses += [importance * sum(delta**2 for delta in each) / len(each) for each in deltas]
            number += len(deltas)
            # p = eta max_i |delta_i| + (1 - eta) mean of |delta_i|
            sizes = [sum(float(delta.detach().abs()) for delta in each) / len(each) for each in deltas]
            self.priorities.append(self.config.eta * max(sizes) + (1 - self.config.eta) * sum(sizes) / len(sizes))
        loss = torch.stack(losses).sum() / number
        self.loss = float(loss.detach())
        self._adam(loss)
        if self._updates % self.config.target_every == 0:
            tau = self.config.tau
            for name, slow in self.target.arrays.items():
                slow.data = tau * self.online.arrays[name].data + (1 - tau) * slow.data

    def _deltas(self, row: Any) -> list[list[Tensor]]:
        """h(G) - Q(s, a) of each branch, for each decision that is learned."""
        config, end = self.config, int(row["valid"].sum())
        first, state = not row["state"].any(), torch.from_numpy(row["state"].astype(np.float64))
        xs = [self._normalized(x) for x in self._observed(row)]
        q = self.online.unroll(xs, state, cut=-1 if first else config.burn_in)
        slow = self.target.unroll(xs, state, cut=-1)
        reward, discount = row["reward"].astype(np.float64), row["discount"].astype(np.float64)
        result = []
        for t in range(0 if first else config.burn_in, end):
            n, each = min(config.n_step, end - t), []
            for branch, values in enumerate(q[t]):
                g, factor = 0.0, 1.0
                for k in range(n):
                    g, factor = g + factor * reward[t + k], factor * discount[t + k]
                said, judge = slow[t + n][branch], (q if config.double else slow)[t + n][branch]
                allowed = row["obs"][ACTION_MASK][t + n][sum(BRANCHES[:branch]) :]
                best = max((value.item(), choice) for choice, value in enumerate(judge) if allowed[choice])[1]
                g += factor * self._h_inverse(said[best].item())
                each.append(self._h(g) - values[row["choice"][t, branch]])
            result.append(each)
        return result

    def _h(self, x: float) -> float:
        return float(np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 1e-3 * x) if self.config.rescale else x

    def _h_inverse(self, x: float) -> float:
        e = 1e-3
        root = np.sqrt(1 + 4 * e * (abs(x) + 1 + e)) - 1
        return float(np.sign(x) * ((root / (2 * e)) ** 2 - 1)) if self.config.rescale else x

    def _observed(self, row: Any) -> list[Tensor]:
        fields = [row["obs"][name].reshape(len(row["obs"]), -1) for name in OBS]
        return list(torch.from_numpy(np.concatenate(fields, axis=1).astype(np.float64)))

    def _normalized(self, x: Tensor) -> Tensor:
        if not self.config.normalize:
            return x
        shown = torch.stack(self.shown)
        deviation = torch.sqrt(((shown - shown.mean(0)) ** 2).mean(0))
        return torch.clamp((x - shown.mean(0)) / deviation, -5, 5)

    def _adam(self, loss: Tensor) -> None:
        arrays = self.online.arrays
        gradients = torch.autograd.grad(loss, list(arrays.values()))
        for (name, parameter), gradient in zip(arrays.items(), gradients, strict=True):
            m, v = self._moments.get(name, (torch.zeros_like(gradient), torch.zeros_like(gradient)))
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            self._moments[name] = m, v
            unbiased_m, unbiased_v = m / (1 - 0.9**self._updates), v / (1 - 0.999**self._updates)
            parameter.data = parameter.data - self.config.lr * unbiased_m / (torch.sqrt(unbiased_v) + 1e-8)


def vector(network: Network) -> Tensor:
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach().double()


def shaken(config: Config = SMALL) -> R2D2:
    """Target apart, outputs not near zero."""
    torch.manual_seed(1)
    r2d2 = R2D2(SPEC, config)
    for network in (r2d2.online, r2d2.target):
        for parameter in network.parameters():
            parameter.data.add_(torch.randn(parameter.shape) * 0.3)
    return r2d2


def but(**changes: Any) -> Config:
    return Config(**{**vars(SMALL), **changes})


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        but(normalize=False, rescale=False),
        but(double=False, dueling=False, n_step=1, eta=0.3),
        but(burn_in=0, n_step=5, hidden=(5,)),
    ],
)
def test_three_updates_are_those_of_the_paper(config: Config) -> None:
    r2d2 = shaken(config)
    paper = Paper(r2d2)
    start = {name: vector(getattr(r2d2, name)) for name in ("online", "target")}
    for number in range(3):
        drawn = rows(config, seed=number)
        learned = r2d2.update(batch(drawn, number))
        paper.update(drawn, batch(drawn, number).weight)
        assert learned.td_error is not None
        np.testing.assert_allclose(learned.td_error, paper.priorities, rtol=1e-4, atol=1e-4)
        assert learned.metrics["loss"].item() == pytest.approx(paper.loss, rel=1e-4)
    for name in start:
        moved, wanted = vector(getattr(r2d2, name)) - start[name], getattr(paper, name).vector() - start[name]
        assert wanted.abs().max() > 1e-4
        np.testing.assert_allclose(moved, wanted, rtol=0, atol=2e-5)


def test_what_stands_behind_the_end_of_an_episode_changes_nothing() -> None:
    one, other = shaken(), shaken()
    drawn = rows(SMALL, seed=0)
    spoiled = drawn.copy()
    for row in spoiled:
        end = int(row["valid"].sum())
        row["choice"][end:], row["reward"][end:], row["discount"][end:] = 1, 100, 0.5
        for name in OBS:
            row["obs"][name][end + 1 :] += 10
    learned, same = one.update(batch(drawn)), other.update(batch(spoiled))
    assert learned.td_error is not None and same.td_error is not None
    torch.testing.assert_close(learned.td_error, same.td_error)
    torch.testing.assert_close(one.policy_parameters(), other.policy_parameters())


def test_nothing_is_learned_from_a_burn_in_but_the_state() -> None:
    """Its choices and rewards do not matter, its observations do."""
    drawn = rows(SMALL, seed=0)[[1, 2, 4, 5]]
    told, seen = drawn.copy(), drawn.copy()
    told["reward"][:, :3] += 5
    told["choice"][:, :3] = 0
    seen["obs"]["a"][:, :3] += 1
    priorities = [shaken(but(normalize=False)).update(batch(each)).td_error for each in (drawn, told, seen)]
    right, same, other = (each for each in priorities if each is not None)
    torch.testing.assert_close(right, same)
    assert (right != other).all()


def test_the_rescaling_is_that_of_the_paper_and_its_inverse_restores_what_it_was_given() -> None:
    r2d2 = R2D2(SPEC, SMALL)
    x = torch.cat([-torch.logspace(-6, 5, 200), torch.zeros(1), torch.logspace(-6, 5, 200)])
    exact = x.double()
    h = exact.sign() * ((exact.abs() + 1).sqrt() - 1) + 1e-3 * exact
    np.testing.assert_allclose(r2d2._rescaled(x), h, rtol=1e-5, atol=2e-7)
    np.testing.assert_allclose(r2d2._restored(h.float()), exact, rtol=1e-5, atol=1e-6)


def test_q_is_the_mean_value_of_what_was_learned_in_units_of_reward() -> None:
    r2d2 = shaken(but(normalize=False))
    drawn = batch(rows(SMALL, seed=0))
    assert drawn.valid is not None and drawn.state is not None
    obs = prepare(drawn.obs, r2d2.policy_spec.net, None)
    with torch.no_grad():
        said = r2d2.online.unroll(obs, drawn.state)[0]
    values = []
    for row, valid, state, choice in zip(said, drawn.valid, drawn.state, drawn.choice.tolist(), strict=True):
        for t in range(0 if not state.any() else 3, int(valid.sum())):
            values.append(r2d2._restored(row[t][[choice[t][0], 3 + choice[t][1]]]).mean().item())
    metrics = r2d2.update(drawn).metrics
    assert metrics["q"].item() == pytest.approx(np.mean(values), rel=1e-4)
    assert not any(metric.requires_grad for metric in metrics.values())


def test_workers_value_choices_as_the_learner_does_and_each_agent_remembers_its_own_episode() -> None:
    random = np.random.default_rng(0)
    r2d2 = shaken()
    for number in range(2):
        r2d2.update(batch(rows(SMALL, seed=number)))
    policy = Policy(r2d2.policy_spec, SPEC.action, 4, r2d2.policy_parameters().numpy(), seed=0)
    seen: list[list[dict[str, Any]]] = [[] for _ in range(4)]
    for time in range(12):
        agents = np.flatnonzero(random.random(4) < 0.7)
        obs = {name: random.normal(size=(len(agents), *each.shape)).astype("f4") for name, each in OBS.items()}
        obs[ACTION_MASK] = np.ones((len(agents), 5), np.bool_)
        decision = policy.act(obs, agents)
        for row, agent in enumerate(agents.tolist()):
            seen[agent].append({name: torch.from_numpy(each[row]) for name, each in obs.items()})
            episode = {name: torch.stack([each[name] for each in seen[agent]]).unsqueeze(0) for name in obs}
            told = prepare(episode, r2d2.policy_spec.net, r2d2.normalizer)
            before = {name: each[:, :-1] for name, each in told.items()}
            with torch.no_grad():
                values = r2d2.online.unroll(told, torch.zeros(1, 8))[0][0, -1]
                state = r2d2.online.unroll(before, torch.zeros(1, 8))[1][0] if len(seen[agent]) > 1 else torch.zeros(8)
            np.testing.assert_allclose(decision.state[row], state, atol=1e-5)
            branches = torch.split(values, list(BRANCHES))
            best = [each.max().item() for each in branches]
            assert decision.value[row] == pytest.approx(np.mean(best), abs=1e-5)
            assert decision.choice[row].tolist() == [int(each.argmax()) for each in branches]
        if time % 4 == 3:
            over = np.array([time % 3, 3])
            policy.restart(over)
            for agent in over.tolist():
                seen[agent].clear()


def test_epsilon_travels_with_the_policy_and_falls_by_agent_steps() -> None:
    r2d2 = R2D2(SPEC, but(epsilon_start=0.8, epsilon_end=0.2, epsilon_steps=100))
    assert r2d2.policy_parameters()[-1].item() == pytest.approx(0.8)
    drawn = batch(rows(SMALL, seed=0))
    drawn.agent_steps = 50
    r2d2.update(drawn)
    assert r2d2.policy_parameters()[-1].item() == pytest.approx(0.5)


@pytest.mark.parametrize("config", [SMALL, but(noisy=True, lr_steps=100, lr_end=0.1, max_grad_norm=0.5)])
def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened(config: Config) -> None:
    one, other = shaken(config), R2D2(SPEC, config)
    for number in range(3):
        one.update(batch(rows(config, seed=number)))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(one.policy_parameters(), other.policy_parameters())
    for number in range(3, 6):
        drawn = rows(config, seed=number)
        torch.manual_seed(number)
        learned = one.update(batch(drawn))
        torch.manual_seed(number)
        same = other.update(batch(drawn))
        assert all(torch.equal(learned.metrics[name], same.metrics[name]) for name in learned.metrics)
    assert torch.equal(one.policy_parameters(), other.policy_parameters())
    assert torch.equal(vector(one.target), vector(other.target))


def test_a_state_that_was_loaded_is_a_copy() -> None:
    one, other = shaken(), R2D2(SPEC, SMALL)
    other.load_state_dict(one.state_dict())
    kept = copy.deepcopy(other.policy_parameters())
    one.update(batch(rows(SMALL, seed=1)))
    assert torch.equal(other.policy_parameters(), kept)


def test_a_sequence_is_burn_in_and_unroll_long_and_begins_with_the_lstms_state() -> None:
    recording = R2D2(SPEC, SMALL).recording
    assert (recording.length, recording.stride, recording.state_dim, recording.n_step) == (8, 4, 8, 1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lstm": 0}, "--algo.lstm 0; it must be at least 1"),
        ({"burn_in": -1}, "--algo.burn-in -1"),
        ({"unroll": 0}, "--algo.unroll 0"),
        ({"stride": 0}, "--algo.stride 0; it must be from 1 to --algo.unroll 5"),
        ({"stride": 6}, "--algo.stride 6; it must be from 1 to --algo.unroll 5, or else some decisions are never"),
        ({"n_step": 6}, "--algo.n-step 6; it must be at most --algo.unroll 5"),
        ({"eta": 1.5}, "--algo.eta 1.5"),
        ({"prioritized": True, "worker_priorities": True}, "--algo.worker-priorities True; it must be False"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        but(**changes)


def test_continuous_actions_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="R2D2 takes discrete actions; this environment has 1 continuous"):
        R2D2(EnvSpec(OBS, ActionSpec((-1.0,), (1.0,)), 1), SMALL)
