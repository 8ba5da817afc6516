"""R2D2 against the paper's equations, decision by decision; and that it can be stopped and taken up again."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.nets import Network, prepare
from algos.r2d2 import R2D2, Config
from core.acting import Policy
from core.types import ACTION_MASK, ActionSpec, EnvSpec
from tests.algos.r2d2_by_the_paper import Paper
from tests.algos.recurrent_rows import BRANCHES, OBS, SMALL, SPEC, batch, rows


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
