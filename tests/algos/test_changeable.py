"""What declares itself changeable can be changed between two updates, and matters from then on."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from algos import ALGORITHMS
from core.types import ActionSpec, EnvSpec, FieldSpec, changeable_fields
from tests.algos import continuous_rows, discrete_rows, recurrent_rows
from tests.algos.rollouts import assert_equal, feeding, shaken

ROLLED_OUT = EnvSpec({"a": FieldSpec((3,)), "b": FieldSpec((2, 2))}, ActionSpec((-1.0,), (1.0,)), 4)
SPECS = {
    **dict.fromkeys(("ddpg", "td3", "sac"), continuous_rows.SPEC),
    **dict.fromkeys(("dqn", "qrdqn", "iqn", "sac_discrete"), discrete_rows.SPEC),
    "r2d2": recurrent_rows.SPEC,
    **dict.fromkeys(("ppo", "vtrace"), ROLLED_OUT),
}
# where everything matters: rates fall, gradients are clipped, everybody moves far
FIRST = {
    "lr_steps": 10_000, "lr_end": 0.5, "max_grad_norm": 0.2, "munchausen": True, "clip_value": 0.001,
    "entropy": 0.1, "batch_size": 32, "hidden": (16,), "lr": 0.01, "actor_lr": 0.01, "critic_lr": 0.01,
    "epochs": 3, "epsilon_steps": 50_000, "clip": 0.01, "rho_bar": 1.01, "c_bar": 1.0, "bonus_min": -0.01,
}  # fmt: skip
SECOND = {
    "lr_steps": 20_000, "lr_end": 0.1, "max_grad_norm": 0.1, "tau": 0.5, "target_every": 2, "actor_lr": 0.02,
    "lr": 0.02, "critic_lr": 0.02, "temperature_lr": 0.1, "sigma": 0.5, "target_sigma": 0.9,
    "target_clip": 0.1, "policy_delay": 1, "entropy": 0.3, "value_weight": 2.0, "epsilon_start": 0.7,
    "epsilon_end": 0.3, "epsilon_steps": 20_000, "eta": 0.1, "temperature": 0.5, "bonus": 0.1,
    "bonus_min": -0.5, "batch_size": 16, "clip": 0.3, "clip_value": 0.5, "epochs": 2, "target_kl": 1e-6,
    "gae_lambda": 0.1, "rho_bar": 1.3, "c_bar": 0.5,
}  # fmt: skip
OF_THE_FEED = "replay_ratio"


def config_of(name: str) -> Any:
    default = ALGORITHMS[name].config()
    known = {each.name for each in fields(default)}
    first = {key: value for key, value in FIRST.items() if key in known}
    if name == "sac_discrete":
        first["entropy"] = 0.5
    return replace(default, **first)


CASES = [
    (name, field) for name in SPECS for field in changeable_fields(ALGORITHMS[name].config()) if field != OF_THE_FEED
]


def outcome(name: str, field: str | None) -> Any:
    """What is learned in three updates of the same rows, if `field` is changed after the first."""
    torch.manual_seed(1)
    algorithm: Any = ALGORITHMS[name].build(SPECS[name], config_of(name), "cpu")
    learned = []
    with contextlib.ExitStack() as opened:
        feed = opened.enter_context(feeding(shaken(algorithm), SPECS[name])) if name in ("ppo", "vtrace") else None
        for step in range(3):
            if step == 1 and field is not None:
                algorithm.config = replace(algorithm.config, **{field: SECOND[field]})
            if feed is not None:
                batch: Any = feed.next()
            elif name == "r2d2":
                batch = recurrent_rows.batch(recurrent_rows.rows(algorithm.config, step))
            else:
                rows = continuous_rows if SPECS[name] is continuous_rows.SPEC else discrete_rows
                batch = rows.batch(rows.rows(64, step))
            batch.agent_steps = 5000
            learned.append(algorithm.update(batch))
    state = {"algorithm": algorithm.state_dict(), "policy": algorithm.policy_parameters()}
    return state | {f"priorities {step}": each.td_error for step, each in enumerate(learned)}


@functools.cache
def unchanged(name: str) -> Any:
    """What is learned otherwise."""
    return outcome(name, None)


@pytest.mark.parametrize(("name", "field"), CASES)
def test_what_is_changed_in_the_middle_matters_from_then_on(name: str, field: str) -> None:
    with pytest.raises(AssertionError):
        assert_equal(unchanged(name), outcome(name, field))


@pytest.mark.parametrize("name", SPECS)
def test_without_a_change_the_same_is_learned(name: str) -> None:
    assert_equal(unchanged(name), outcome(name, None))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_option_that_a_preset_has_anew_stays_changeable(name: str) -> None:
    config = ALGORITHMS[name].config()
    declared = {
        each
        for kind in type(config).__mro__[1:]
        if hasattr(kind, "__dataclass_fields__")
        for each in changeable_fields(kind)
    }
    assert declared <= set(changeable_fields(config))
