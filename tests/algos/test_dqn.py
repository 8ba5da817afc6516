"""DQN and its additions against the papers' equations, written term by term; what is refused; saved and loaded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos import ALGORITHMS
from algos.dqn import DQN, ApeX, Config, Rainbow
from core.acting import Policy
from core.net import num_parameters
from core.types import ActionSpec, EnvSpec, FieldSpec, Rows
from scripts.options import parse
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
    """One row and one branch at a time, in double precision."""

    def __init__(self, dqn: DQN) -> None:
        self.config = dqn.config
        self.online, self.target = exact(dqn.online), exact(dqn.target)
        self.support = np.linspace(self.config.v_min, self.config.v_max, self.config.atoms)

    def learn(self, rows: Rows, weight: Tensor) -> tuple[Tensor, list[float]]:
        """The loss, and each row's TD error."""
        loss, errors = torch.zeros((), dtype=torch.float64), []
        for i in range(len(rows)):
            error = 0.0
            for branch in range(len(SIZES)):
                said = says(self.online, rows, "obs", i)[branch][int(rows["choice"][i, branch])]
                if self.config.atoms > 1:
                    m, p = self._projected(rows, i, branch), said.softmax(0)
                    term = sum((m[j] * (math.log(m[j]) - p[j].log()) for j in range(len(m)) if m[j] > 0), 0 * loss)
                    error += float(term.detach()) / len(SIZES)
                else:
                    u = (self._munchausen if self.config.munchausen else self._value)(rows, i, branch) - said[0]
                    term = huber(u)
                    error += abs(float(u.detach())) / len(SIZES)
                loss = loss + float(weight[i]) * term / len(SIZES) / len(rows)
            errors.append(error)
        return loss, errors

    def _best(self, rows: Rows, i: int, branch: int) -> Tensor:
        """What the target says of the best choice next, (1,) or (atoms,)."""
        judge = says(self.online if self.config.double else self.target, rows, "next_obs", i)[branch]
        worth = judge.softmax(1) @ torch.from_numpy(self.support) if self.config.atoms > 1 else judge[:, 0]
        best = max(allowed(rows, "next_obs", i, branch), key=worth.tolist().__getitem__)
        return says(self.target, rows, "next_obs", i)[branch][best].detach()

    def _value(self, rows: Rows, i: int, branch: int) -> float:
        """y = r + gamma q'(s', argmax q(s', .))"""
        return float(rows["reward"][i] + rows["discount"][i] * self._best(rows, i, branch)[0])

    def _projected(self, rows: Rows, i: int, branch: int) -> list[float]:
        """Algorithm 1 of Bellemare et al. 2017."""
        config, p = self.config, self._best(rows, i, branch).softmax(0)
        m = [0.0] * config.atoms
        for j, z in enumerate(self.support):
            landed = min(max(rows["reward"][i] + float(rows["discount"][i]) * z, config.v_min), config.v_max)
            b = (landed - config.v_min) / ((config.v_max - config.v_min) / (config.atoms - 1))
            lower, upper = math.floor(b), math.ceil(b)
            if lower == upper:
                m[lower] += float(p[j])
            else:
                m[lower] += float(p[j]) * (upper - b)
                m[upper] += float(p[j]) * (b - lower)
        return m

    def _munchausen(self, rows: Rows, i: int, branch: int) -> float:
        """Equation 2 of Vieillard et al. 2020, with [.] clipping from l0 to 0."""
        config = self.config

        def policy(side: str) -> dict[int, tuple[float, float]]:
            """Choice -> its probability and its value."""
            q = says(self.target, rows, side, i)[branch][:, 0].tolist()
            choices = allowed(rows, side, i, branch)
            highest = max(q[choice] for choice in choices)
            odds = {choice: math.exp((q[choice] - highest) / config.temperature) for choice in choices}
            return {choice: (odds[choice] / sum(odds.values()), q[choice]) for choice in choices}

        log_likely = math.log(policy("obs")[int(rows["choice"][i, branch])][0] + 1e-300)
        y = float(rows["reward"][i]) + config.bonus * max(config.temperature * log_likely, config.bonus_min)
        for likely, value in policy("next_obs").values():
            if likely > 0:
                y += float(rows["discount"][i]) * likely * (value - config.temperature * math.log(likely))
        return y


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"double": False},
        {"dueling": True},
        {"munchausen": True, "temperature": 0.3},
        {"munchausen": True, "bonus_min": -0.05},
        {"atoms": 11, "v_min": -2.0, "v_max": 3.0},
        {"atoms": 5, "v_min": -0.5, "v_max": 0.5, "double": False, "dueling": True},
        {"atoms": 2, "v_min": -3.0, "v_max": 3.0},
    ],
    ids=str,
)
def test_losses_errors_and_gradients_are_those_of_the_papers(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    dqn = DQN(SPEC, Config(hidden=(16, 8), normalize=False, **options))
    move(dqn.online, dqn.target)
    paper, drawn, weight = Paper(dqn), rows(12, seed=1), torch.rand(12)
    learned = dqn.update(batch(drawn, weight))
    loss, errors = paper.learn(drawn, weight)
    assert learned.td_error is not None
    assert learned.metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(learned.td_error, errors, rtol=1e-3, atol=1e-5)
    wanted = gradient(paper.online, loss)
    assert wanted.abs().max() > 1e-3
    np.testing.assert_allclose(stepped_by(dqn.online), wanted, rtol=0, atol=1e-5)
    assert not any(metric.requires_grad for metric in learned.metrics.values())


def test_a_distribution_that_is_its_target_has_no_loss() -> None:
    dqn = DQN(SPEC, Config(hidden=(8,), normalize=False, atoms=11, v_min=-1.0, v_max=1.0))
    drawn = rows(16, seed=0)
    drawn["next_obs"], drawn["reward"], drawn["discount"] = drawn["obs"], 0, 1
    for network in (dqn.online, dqn.target):
        for parameter in network.parameters():
            parameter.data.zero_()
    assert dqn.update(batch(drawn)).metrics["loss"].item() == pytest.approx(0, abs=1e-6)


def test_a_hard_target_becomes_the_network_every_so_many_updates() -> None:
    dqn = DQN(SPEC, Config(hidden=(8,), tau=1.0, target_every=3))
    first = flat(dqn.target)
    assert torch.equal(first, flat(dqn.online))
    for number in range(2):
        dqn.update(batch(rows(16, number)))
    assert torch.equal(flat(dqn.target), first) and not torch.equal(flat(dqn.online), first)
    dqn.update(batch(rows(16, 2)))
    assert torch.equal(flat(dqn.target), flat(dqn.online))


def test_a_soft_target_follows_by_a_fraction() -> None:
    dqn = DQN(SPEC, Config(hidden=(8,), tau=0.1, target_every=1))
    before = flat(dqn.target)
    dqn.update(batch(rows(16, 0)))
    torch.testing.assert_close(flat(dqn.target), 0.9 * before + 0.1 * flat(dqn.online))


def test_noise_is_drawn_anew_for_each_update_and_for_each_network() -> None:
    dqn = DQN(SPEC, Config(hidden=(16, 8), noisy=True))
    seen = []
    for number in range(2):
        dqn.update(batch(rows(16, number)))
        seen += [torch.cat([noise.clone() for noise in each.buffers()]) for each in (dqn.online, dqn.target)]
    for one in range(4):
        assert (seen[one] != 0).all()
        for other in range(one):
            assert not (seen[one] == seen[other]).any()


def test_epsilon_falls_evenly_with_the_agents_steps_and_ships_last() -> None:
    dqn = DQN(SPEC, Config(epsilon_start=0.8, epsilon_end=0.2, epsilon_steps=100))
    shipped = [dqn.policy_parameters()[-1].item()]
    for now in (50, 100, 1000):
        dqn.update(batch(rows(16, 0), agent_steps=now))
        shipped.append(dqn.policy_parameters()[-1].item())
    assert shipped == pytest.approx([0.8, 0.5, 0.2, 0.2])
    assert DQN(SPEC, Config(noisy=True)).policy_parameters()[-1] == 0


@pytest.mark.parametrize("name", ["dqn", "rainbow", "apex", "qrdqn", "iqn"])
@pytest.mark.parametrize("options", [{}, {"dueling": True, "noisy": True, "ladder": 0.0}], ids=str)
def test_what_a_worker_thinks_of_its_choices_is_what_the_learner_thinks(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(2)
    recipe = ALGORITHMS[name]
    algorithm: Any = recipe.build(SPEC, replace(recipe.config(), **options))
    move(algorithm.online)
    algorithm.normalizer.show(batch(rows(64, 1, algorithm.recording)).obs, algorithm.policy_spec.net)
    algorithm.online.quiet()
    parameters = algorithm.policy_parameters().numpy()
    assert parameters.shape == (num_parameters(algorithm.policy_spec.net),)
    drawn = rows(12, 0, algorithm.recording)
    policy = Policy(algorithm.policy_spec, SPEC.action, 12, parameters, seed=0)
    decision = policy.act({each: drawn["obs"][each] for each in SPEC.obs}, np.arange(12))
    spec, network = algorithm.policy_spec, exact(algorithm.online)
    observed = batch(drawn).obs
    observed |= {  # shown as the network sees it
        each: ((observed[each].flatten(1) - mean) * scale).clamp(-5, 5).view(observed[each].shape)
        for each, mean, scale in zip(
            ("a", "b"),
            algorithm.normalizer.mean.split((3, 4)),
            algorithm.normalizer.scale.split((3, 4)),
            strict=True,
        )
    }
    for each in ("a", "b"):
        drawn["obs"][each] = observed[each].numpy()
    for i in range(12):
        value = 0.0
        for branch in range(len(SIZES)):
            taus = (torch.arange(32) + 0.5) / 32 if name == "iqn" else None
            said = says(network, drawn, "obs", i, taus)[branch]
            worth = said.softmax(1) @ torch.tensor(spec.support).double() if spec.support else said.mean(1)
            best = max(allowed(drawn, "obs", i, branch), key=worth.tolist().__getitem__)
            assert decision.choice[i, branch] == best
            value += worth[best].item() / len(SIZES)
        assert decision.value[i] == pytest.approx(value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("config", [Config(), Rainbow(), ApeX(), Config(munchausen=True)], ids=repr)
def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened(config: Config) -> None:
    config = type(config)(**{**vars(config), "target_every": 2, "hidden": (16, 8)})
    assert_goes_on_as_if_nothing_had_happened(DQN(SPEC, config), DQN(SPEC, config))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"v_min": 2.0, "v_max": 2.0}, r"--algo.v-min 2.0; it must be below --algo.v-max 2.0"),
        ({"v_max": math.inf}, r"--algo.v-max inf; it must be finite"),
        ({"atoms": 0}, r"--algo.atoms 0; it must be at least 1"),
        ({"atoms": 51, "munchausen": True}, r"--algo.atoms 51; it must be 1 with --algo.munchausen"),
        ({"atoms": 51, "prioritized": True, "worker_priorities": True}, r"51; it must be 1 with --algo.worker-prior"),
        ({"worker_priorities": True}, r"--algo.worker-priorities True; it must be False without --algo.prioritized"),
        ({"ladder": 7.0, "noisy": True}, r"--algo.ladder 7.0; it must be 0 with --algo.noisy"),
        ({"temperature": 0.0}, r"--algo.temperature 0.0"),
        ({"bonus": 1.5}, r"--algo.bonus 1.5"),
        ({"bonus_min": 1.0}, r"--algo.bonus-min 1.0"),
        ({"lr": 0.0}, r"--algo.lr 0.0"),
        ({"tau": 0.0}, r"--algo.tau 0.0"),
        ({"target_every": 0}, r"--algo.target-every 0"),
        ({"epsilon_start": 1.1}, r"--algo.epsilon-start 1.1"),
        ({"epsilon_end": -0.1}, r"--algo.epsilon-end -0.1"),
        ({"epsilon_steps": -1}, r"--algo.epsilon-steps -1"),
        ({"ladder": -1.0}, r"--algo.ladder -1.0"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Config(**options)


@pytest.mark.parametrize("name", ["dqn", "rainbow", "apex", "qrdqn", "iqn", "sac_discrete"])
def test_continuous_actions_are_refused(name: str) -> None:
    spec = EnvSpec({"a": FieldSpec((3,))}, ActionSpec((-1.0,), (1.0,)), 1)
    with pytest.raises(ValueError, match="takes discrete actions; this environment has 1 continuous and 0 discrete"):
        ALGORITHMS[name].build(spec, ALGORITHMS[name].config())


def test_presets_are_configurations_with_other_defaults_that_can_be_changed() -> None:
    rainbow = parse(["rainbow", "--algo.v-max", "200"])[1].algo
    assert (rainbow.atoms, rainbow.noisy, rainbow.dueling, rainbow.double) == (51, True, True, True)
    assert (rainbow.prioritized, rainbow.n_step, rainbow.v_max) == (True, 3, 200)
    dqn = DQN(SPEC, parse(["apex"])[1].algo)
    assert dqn.recording.priority and dqn.policy_spec.ladder == 7 and dqn.policy_parameters()[-1] == pytest.approx(0.4)


def test_the_help_of_a_preset_has_its_own_defaults_and_every_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["rainbow", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--algo.atoms INT returns that the network gives a probability each" in words
    assert "(default: 51)" in words
