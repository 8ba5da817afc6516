"""Sequences of rows as a recurrent learner of discrete actions samples them."""

from __future__ import annotations

import numpy as np
import torch

from algos.r2d2 import R2D2, Config
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
