"""IQN against Dabney et al. 2018, "Implicit quantile networks for distributional reinforcement learning", in loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.iqn import IQN, Config
from core.types import Rows
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


def paper(
    iqn: IQN, rows: Rows, weight: Tensor, taus: Tensor, target_taus: Tensor
) -> tuple[Tensor, Tensor, list[float]]:
    """Equation 3: the loss, its gradient, and each row's TD error, in double precision."""
    online, target, config = exact(iqn.online), exact(iqn.target), iqn.config
    evenly = (torch.arange(config.choice_samples) + 0.5) / config.choice_samples
    loss, errors = torch.zeros((), dtype=torch.float64), []
    for i in range(len(rows)):
        error = 0.0
        for branch in range(len(SIZES)):
            judge = says(online if config.double else target, rows, "next_obs", i, evenly)[branch]
            worth = judge.detach().mean(1).tolist()
            best = max(allowed(rows, "next_obs", i, branch), key=worth.__getitem__)
            later = says(target, rows, "next_obs", i, target_taus[i])[branch][best].tolist()
            y = [float(rows["reward"][i] + rows["discount"][i] * z) for z in later]
            z = says(online, rows, "obs", i, taus[i])[branch][int(rows["choice"][i, branch])]
            # sum_i 1 / N' sum_j rho_tau_i(delta_ij)
            for number in range(config.samples):
                for each in y:
                    delta = each - z[number]
                    below = 1.0 if float(delta.detach()) < 0 else 0.0
                    term = abs(float(taus[i, number]) - below) * huber(delta)
                    loss = loss + float(weight[i]) * term / len(y) / len(SIZES) / len(rows)
            error += abs(sum(y) / len(y) - float(z.detach().mean())) / len(SIZES)
        errors.append(error)
    return loss, gradient(online, loss), errors


@pytest.mark.parametrize(
    "options", [{}, {"double": False}, {"dueling": True}, {"samples": 2, "target_samples": 5}], ids=str
)
def test_loss_errors_and_gradient_are_those_of_the_paper(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    small = {"hidden": (12, 8), "normalize": False, "samples": 4, "target_samples": 3, "choice_samples": 6}
    config = Config(cosines=7, **{**small, **options})
    iqn = IQN(SPEC, config)
    move(iqn.online, iqn.target)
    drawn, weight = rows(8, seed=1), torch.rand(8)
    torch.manual_seed(5)
    target_taus, taus = torch.rand(8, config.target_samples), torch.rand(8, config.samples)
    loss, wanted, errors = paper(iqn, drawn, weight, taus, target_taus)
    torch.manual_seed(5)
    learned = iqn.update(batch(drawn, weight))
    assert learned.td_error is not None
    assert learned.metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(learned.td_error, errors, rtol=1e-3, atol=1e-5)
    assert wanted.abs().max() > 1e-3
    np.testing.assert_allclose(stepped_by(iqn.online), wanted, rtol=0, atol=1e-5)
    assert not any(metric.requires_grad for metric in learned.metrics.values())


def test_the_target_follows_every_so_many_updates() -> None:
    iqn = IQN(SPEC, Config(hidden=(8,), target_every=2, tau=0.5))
    first = flat(iqn.target)
    iqn.update(batch(rows(16, 0)))
    assert torch.equal(flat(iqn.target), first)
    iqn.update(batch(rows(16, 1)))
    torch.testing.assert_close(flat(iqn.target), 0.5 * first + 0.5 * flat(iqn.online))


@pytest.mark.parametrize("noisy", [False, True])
def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened(noisy: bool) -> None:
    config = Config(hidden=(16, 8), target_every=2, noisy=noisy)
    one, other = IQN(SPEC, config), IQN(SPEC, config)
    assert_goes_on_as_if_nothing_had_happened(one, other)


@pytest.mark.parametrize("name", ["samples", "target_samples", "choice_samples", "cosines"])
def test_nothing_to_ask_at_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--algo.{name.replace('_', '-')} 0; it must be at least 1"):
        replace(Config(), **{name: 0})  # type: ignore[arg-type]
