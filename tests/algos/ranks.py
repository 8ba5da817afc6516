"""One learner of two, or the only one, on the same rows: `python -m tests.algos.ranks FILE` with torchrun's variables.

Of two, each has half of the rows; what it has learned is in FILE.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.ddpg import DDPG
from algos.ddpg import Config as DDPGConfig
from algos.dqn import DQN
from algos.dqn import Config as DQNConfig
from algos.nets import Network
from algos.ppo import PPO
from algos.ppo import Config as PPOConfig
from algos.sac import SAC
from algos.sac import Config as SACConfig
from core import rollout as rollouts_of
from core.group import Group
from core.ring import Ring, Word
from core.rollout import Rollout
from tests.algos import continuous_rows, discrete_rows, rollouts

BOTH = -1
"""the rank of the one that has all rows"""
ROWS, UPDATES = 64, 3
STEPS = (40, 70)
"""of the rollouts on the two lanes: the ranks have not equally many rows"""
REPLAYS: dict[str, tuple[Any, Any, Any]] = {
    "ddpg": (DDPG, DDPGConfig(hidden=(16, 16)), continuous_rows),
    "sac": (SAC, SACConfig(hidden=(16, 16)), continuous_rows),
    "dqn": (DQN, DQNConfig(hidden=(16, 16), normalize=True), discrete_rows),
}
Gradients = dict[str, list[list[Tensor]]]


def learn(rank: int) -> Gradients:
    """By algorithm and update: the gradient that each of its optimizers has gone down."""
    return {**{name: _replay(name, rank) for name in REPLAYS}, "ppo": _ppo(rank)}


def _replay(name: str, rank: int) -> list[list[Tensor]]:
    torch.manual_seed(3)
    kind, config, made = REPLAYS[name]
    algorithm = kind(made.SPEC, config)
    with torch.no_grad():
        for each in vars(algorithm).values():
            continuous_rows.move(*([each] if isinstance(each, Network) else []))
    part = slice(None) if rank == BOTH else slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    drawn, randn_like = torch.Generator().manual_seed(5), torch.randn_like

    def part_of_drawn(like: Tensor) -> Tensor:
        return torch.randn(ROWS, *like.shape[1:], generator=drawn)[part]

    torch.randn_like = part_of_drawn  # type: ignore[assignment]
    gradients = []
    for number in range(UPDATES):
        rows = made.rows(ROWS, number)[part].copy()
        weight = continuous_rows.weights(ROWS, number)[part]
        algorithm.update(made.batch(rows, weight))
        gradients.append(_gradients(algorithm))
    torch.randn_like = randn_like
    return gradients


def _ppo(rank: int) -> list[list[Tensor]]:
    torch.manual_seed(3)
    config = PPOConfig(hidden=(16, 16), epochs=1, batch_size=10**6, entropy=0.01)
    at_once, rollouts_of._AT_ONCE = rollouts_of._AT_ONCE, 64  # so that one has more pieces than the other
    algorithm = rollouts.shaken(PPO(rollouts.HYBRID, config))
    gradients = []
    with Ring.create(rollouts.HYBRID, algorithm.recording, 2, 4000) as ring:
        noises = [rollouts.Noise(algorithm, rollouts.HYBRID, ring, lane, lane) for lane in range(2)]
        begin = np.zeros(2, np.int64)
        for _ in range(UPDATES):
            for noise, steps in zip(noises, STEPS, strict=True):
                noise.run(steps)
            end = ring.load(Word.PUBLISHED)
            parts = [_in_order(ring, lane, int(begin[lane]), int(end[lane])) for lane in range(2)]
            mine = parts if rank == BOTH else parts[rank : rank + 1]
            lanes = np.concatenate([np.full(len(index), lane) for lane, index in mine])
            rollout = Rollout(ring, lanes, np.concatenate([index for _, index in mine]), torch.device("cpu"))
            if rank != BOTH:
                rollout.lengths = tuple(len(index) for _, index in parts)
            algorithm.update(rollout)
            gradients.append(_gradients(algorithm))
            begin = end
    rollouts_of._AT_ONCE = at_once
    return gradients


def _in_order(ring: Ring, lane: int, first: int, last: int) -> tuple[int, np.ndarray[Any, np.dtype[np.int64]]]:
    index = np.arange(first, last)
    return lane, index[np.argsort(ring.rows[lane]["agent"][index % ring.capacity], kind="stable")]


def _gradients(algorithm: Any) -> list[Tensor]:
    return [each._grad.clone() for each in algorithm.optimizers]


if __name__ == "__main__":
    group = Group()
    group.connect(torch.device("cpu"), 60, 60)
    torch.save(learn(group.rank), Path(sys.argv[1]))
    os._exit(0)  # as scripts.train does: torch's threads may look for a rank that has gone
