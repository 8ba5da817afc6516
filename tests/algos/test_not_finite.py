"""What cannot be learned from leaves no trace: such a gradient step is skipped, and told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algos import ALGORITHMS
from algos.config import Networks
from algos.nets import Normalizer, flatten
from algos.optimizer import Optimizer
from core.types import Rows
from tests.algos import continuous_rows, discrete_rows, recurrent_rows, rollouts

FAR = np.float32(3e38)
Learn = Callable[[bool], Any]
"""Learn once; from numbers that are far too large, if so."""


def spoil(rows: Rows) -> Rows:
    """Finite all of it, but no sum of it."""
    signs = np.random.default_rng(0).choice([-FAR, FAR], len(rows))
    rows["reward"] = signs if rows["reward"].ndim == 1 else signs[:, None]
    for side in {"obs", "next_obs"}.intersection(rows.dtype.names or ()):
        rows[side]["a"][::2] = FAR
        rows[side]["a"][1::2] = -FAR
    return rows


@contextlib.contextmanager
def learning(name: str) -> Iterator[tuple[Any, Learn]]:
    """An algorithm of this name and what makes it learn."""
    torch.manual_seed(1)
    recipe, number = ALGORITHMS[name], iter(range(100))
    if name in ("ppo", "vtrace"):
        algorithm: Any = recipe.build(rollouts.HYBRID, recipe.config())
        with rollouts.feeding(algorithm, rollouts.HYBRID) as feed:

            def learn_in_order(badly: bool) -> Any:
                rollout = feed.next()
                if badly:
                    rollout.reward[:] = np.where(np.arange(len(rollout)) % 2, -FAR, FAR)
                return algorithm.update(rollout)

            yield algorithm, learn_in_order
        return
    if name == "r2d2":
        algorithm = recipe.build(recurrent_rows.SPEC, recurrent_rows.SMALL)
        batch: Any = recurrent_rows.batch

        def make(seed: int) -> Rows:
            return recurrent_rows.rows(recurrent_rows.SMALL, seed)

    elif name in ("ddpg", "td3", "sac"):
        algorithm, batch = recipe.build(continuous_rows.SPEC, recipe.config()), continuous_rows.batch

        def make(seed: int) -> Rows:
            return continuous_rows.rows(32, seed)

    else:
        algorithm, batch = recipe.build(discrete_rows.SPEC, recipe.config()), discrete_rows.batch

        def make(seed: int) -> Rows:
            return discrete_rows.rows(32, seed, algorithm.recording)

    def learn(badly: bool) -> Any:
        rows = make(next(number))
        return algorithm.update(batch(spoil(rows) if badly else rows))

    yield algorithm, learn


def tensors(state: Any) -> Iterator[Tensor]:
    for each in state.values() if isinstance(state, dict) else [state]:
        if isinstance(each, dict):
            yield from tensors(each)
        elif isinstance(each, Tensor):
            yield each


def is_finite(algorithm: Any) -> bool:
    return all(
        bool(each.isfinite().all()) for each in [*tensors(algorithm.state_dict()), algorithm.policy_parameters()]
    )


def total(algorithm: Any) -> int:
    return sum(each.skipped().total for each in algorithm.optimizers)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_numbers_that_overflow_leave_everything_finite_and_it_learns_on(name: str) -> None:
    with learning(name) as (algorithm, learn):
        for _ in range(3):
            learn(False)
        assert is_finite(algorithm) and total(algorithm) == 0
        for _ in range(3):
            learn(True)
            assert is_finite(algorithm)
        skipped, before = total(algorithm), algorithm.policy_parameters().clone()
        for _ in range(3):
            learn(False)
            assert is_finite(algorithm)
        assert not torch.equal(algorithm.policy_parameters(), before)
        assert total(algorithm) == skipped


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"ppo", "vtrace", "rainbow"}))
def test_a_loss_that_overflows_is_skipped_and_counted(name: str) -> None:
    """The others scale their rewards, or learn a distribution over a range."""
    with learning(name) as (algorithm, learn):
        learn(False)
        learn(True)
        assert total(algorithm) > 0


with_a_look_or_without = pytest.mark.parametrize(
    "is_cpu", [True, False], ids=["with a look", "without waiting for the device"]
)


@with_a_look_or_without
@pytest.mark.parametrize(
    "bad", ["nan gradient", "infinite gradient", "gradient whose square overflows", "infinite loss"]
)
def test_a_skipped_step_changes_nothing_and_the_next_one_is_as_if_it_had_not_been(bad: str, is_cpu: bool) -> None:
    config = Networks(max_grad_norm=0.5)
    flat = [flatten(nn.Parameter(torch.linspace(-1, 1, 7))) for _ in range(2)]
    one, other = (Optimizer(each) for each in flat)
    one._is_cpu = is_cpu
    factor = {"nan gradient": np.nan, "infinite gradient": np.inf, "gradient whose square overflows": 1e25}.get(bad, 1)
    for number in range(6):
        for each, optimizer in zip(flat, (one, other), strict=True):
            optimizer.descend(loss_of(each), config, 1e-2, 0)
        before = flat[0].data.clone()
        loss = loss_of(flat[0]) * factor
        one.descend(loss + np.inf if bad == "infinite loss" else loss, config, 1e-2, 0)
        assert torch.equal(flat[0].data, before)
        assert one.skipped().total == number + 1
    assert torch.equal(flat[0].data, flat[1].data)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert other.skipped().total == 0


def loss_of(flat: nn.Parameter) -> Tensor:
    return (flat - torch.arange(7)).square().sum()


@with_a_look_or_without
def test_skipped_steps_in_a_row_are_told_until_one_is_done_or_a_state_is_loaded(is_cpu: bool) -> None:
    flat = flatten(nn.Parameter(torch.ones(3)))
    optimizer = Optimizer(flat)
    optimizer._is_cpu = is_cpu
    config = Networks()

    def descend(factor: float) -> tuple[int, int]:
        optimizer.descend(flat.sum() * factor, config, 1e-3, 0)
        return optimizer.skipped()

    assert [descend(factor) for factor in (1, np.nan, np.nan, np.inf)] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert [descend(factor) for factor in (1, np.nan)] == [(3, 0), (4, 1)]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.skipped() == (4, 0)


def test_statistics_of_huge_numbers_stay_finite_and_those_of_others_are_as_ever() -> None:
    normalizer = Normalizer(2)
    for sign in (1, -1, 1):
        normalizer.count(torch.tensor([[float(FAR) * sign, 1.0], [float(FAR), 3.0]]))
    assert all(each.isfinite().all() for each in normalizer.state_dict().values())
    assert normalizer.mean[1] == 2 and normalizer.scale[1] == 1
    assert normalizer(torch.tensor([[float(FAR), 3.0], [-float(FAR), 1.0]])).isfinite().all()
