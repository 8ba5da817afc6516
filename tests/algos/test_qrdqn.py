"""QR-DQN against Dabney et al. 2018, "Distributional reinforcement learning with quantile regression", in loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.qrdqn import QRDQN, Config
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


def paper(qrdqn: QRDQN, rows: Rows, weight: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """Algorithm 1: the loss, its gradient, and each row's TD error, in double precision."""
    online, target, n = exact(qrdqn.online), exact(qrdqn.target), qrdqn.config.quantiles
    loss, errors = torch.zeros((), dtype=torch.float64), []
    for i in range(len(rows)):
        error = 0.0
        for branch in range(len(SIZES)):
            later = says(target, rows, "next_obs", i)[branch]
            judge = says(online, rows, "next_obs", i)[branch] if qrdqn.config.double else later
            # a* = argmax_a' sum_j q_j theta_j(x', a'), q_j = 1 / N
            worth = [float(judge[choice].detach().sum()) / n for choice in range(SIZES[branch])]
            best = max(allowed(rows, "next_obs", i, branch), key=worth.__getitem__)
            y = [float(rows["reward"][i] + rows["discount"][i] * z) for z in later[best].tolist()]
            theta = says(online, rows, "obs", i)[branch][int(rows["choice"][i, branch])]
            # sum_i E_j[rho_tau_i(T theta_j - theta_i)]
            for number in range(n):
                tau = (2 * number + 1) / (2 * n)
                for each in y:
                    u = each - theta[number]
                    term = abs(tau - (1.0 if float(u.detach()) < 0 else 0.0)) * huber(u)
                    loss = loss + float(weight[i]) * term / n / len(SIZES) / len(rows)
            error += abs(sum(y) / n - float(theta.detach().mean())) / len(SIZES)
        errors.append(error)
    return loss, gradient(online, loss), errors


@pytest.mark.parametrize("options", [{}, {"double": False}, {"dueling": True}, {"quantiles": 1}], ids=str)
def test_loss_errors_and_gradient_are_those_of_the_paper(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    qrdqn = QRDQN(SPEC, Config(**{"hidden": (12, 8), "normalize": False, "quantiles": 5, **options}))
    move(qrdqn.online, qrdqn.target)
    drawn, weight = rows(8, seed=1), torch.rand(8)
    loss, wanted, errors = paper(qrdqn, drawn, weight)
    learned = qrdqn.update(batch(drawn, weight))
    assert learned.td_error is not None
    assert learned.metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(learned.td_error, errors, rtol=1e-3, atol=1e-5)
    assert wanted.abs().max() > 1e-3
    np.testing.assert_allclose(stepped_by(qrdqn.online), wanted, rtol=0, atol=1e-5)
    assert not any(metric.requires_grad for metric in learned.metrics.values())


def test_the_target_follows_every_so_many_updates() -> None:
    qrdqn = QRDQN(SPEC, Config(hidden=(8,), target_every=2, tau=0.5))
    first = flat(qrdqn.target)
    qrdqn.update(batch(rows(16, 0)))
    assert torch.equal(flat(qrdqn.target), first)
    qrdqn.update(batch(rows(16, 1)))
    torch.testing.assert_close(flat(qrdqn.target), 0.5 * first + 0.5 * flat(qrdqn.online))


@pytest.mark.parametrize("noisy", [False, True])
def test_what_was_saved_and_loaded_goes_on_as_if_nothing_had_happened(noisy: bool) -> None:
    config = Config(hidden=(16, 8), target_every=2, noisy=noisy)
    assert_goes_on_as_if_nothing_had_happened(QRDQN(SPEC, config), QRDQN(SPEC, config))


def test_no_quantiles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--algo.quantiles 0; it must be at least 1"):
        Config(quantiles=0)
