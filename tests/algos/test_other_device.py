"""On another device than the CPU: torch's "meta", where tensors have no numbers.

Whoever mixes devices there, or looks at a number, which on a GPU would wait for it, is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from algos import ALGORITHMS
from algos.actor_critic import ActorCritic, Outlook
from core.gather import as_batch
from core.rollout import Rollout
from core.types import Batch, EnvSpec, Rows
from tests.algos import continuous_rows, discrete_rows, recurrent_rows, rollouts

META = torch.device("meta")
IN_ORDER = ("ppo", "vtrace")
UNSEEN = dataclasses.replace(recurrent_rows.SMALL, normalize=False)  # its normaliser waits for the device


@pytest.fixture(autouse=True)
def other_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a GPU: a module's parameters stay the same objects when it is moved; torch.autocast knows no "meta"."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    monkeypatch.setattr("algos.dense._is_cast", lambda a, b: False)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


def build(name: str, spec: EnvSpec, config: Any, **others: Any) -> Any:
    return ALGORITHMS[name].build(spec, dataclasses.replace(config, **others), "meta")


def batch_there(rows: Rows) -> Batch:
    raw = torch.from_numpy(rows.view("u1").reshape(len(rows), -1)).to(META)
    return as_batch(raw, rows.dtype, torch.ones(len(rows), device=META), {})


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - set(IN_ORDER)))
def test_updates_from_replay_mix_no_devices_and_wait_for_nothing(name: str) -> None:
    config = UNSEEN if name == "r2d2" else ALGORITHMS[name].config()
    for others in ({}, {"max_grad_norm": 0.5, "lr_steps": 1000, "layer_norm": True}):
        if name == "r2d2":
            algorithm, rows = build(name, recurrent_rows.SPEC, config, **others), recurrent_rows.rows(UNSEEN, 0)
        elif name in ("ddpg", "td3", "sac"):
            algorithm, rows = build(name, continuous_rows.SPEC, config, **others), continuous_rows.rows(32, 0)
        else:
            algorithm = build(name, discrete_rows.SPEC, config, **others)
            rows = discrete_rows.rows(32, 0, algorithm.recording)
        for _ in range(2):
            learned = algorithm.update(batch_there(rows))
        assert all(each.is_meta for each in learned.metrics.values())
        assert learned.td_error is None or learned.td_error.is_meta
        assert algorithm.policy_parameters().is_meta


@pytest.mark.parametrize("name", IN_ORDER)
def test_updates_from_rollouts_mix_no_devices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ALGORITHMS[name].config()
    with rollouts.feeding(ALGORITHMS[name].build(rollouts.HYBRID, config), rollouts.HYBRID) as feed:
        rollout = feed.next()
        rollout._device = META

        def look_over(nets: ActorCritic, rollout: Rollout) -> Outlook:  # which waits for the device
            return Outlook(*(np.zeros(len(rollout), np.float32) for _ in range(3)))

        monkeypatch.setattr(ActorCritic, "look_over", look_over)
        algorithm = build(name, rollouts.HYBRID, config)
        assert algorithm.update(rollout).metrics["policy_loss"].is_meta
