"""Algorithms: mathematics only, no processes, no shared memory of their own, no files.

To add one, write its file and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from algos import ddpg, dqn, iqn, ppo, qrdqn, r2d2, sac, sac_discrete, td3, vtrace
from core.types import Algorithm


class Recipe(NamedTuple):
    """What the command line needs of an algorithm."""

    config: Callable[[], Any]
    """its Config, with defaults"""
    build: Callable[..., Algorithm]
    """(EnvSpec, Config, device) -> the algorithm; raises ValueError for an environment that it cannot learn"""


ALGORITHMS = {
    "ddpg": Recipe(ddpg.Config, ddpg.DDPG),
    "td3": Recipe(td3.Config, td3.TD3),
    "sac": Recipe(sac.Config, sac.SAC),
    "dqn": Recipe(dqn.Config, dqn.DQN),
    "rainbow": Recipe(dqn.Rainbow, dqn.DQN),
    "apex": Recipe(dqn.ApeX, dqn.DQN),
    "qrdqn": Recipe(qrdqn.Config, qrdqn.QRDQN),
    "iqn": Recipe(iqn.Config, iqn.IQN),
    "sac_discrete": Recipe(sac_discrete.Config, sac_discrete.SACDiscrete),
    "ppo": Recipe(ppo.Config, ppo.PPO),
    "vtrace": Recipe(vtrace.Config, vtrace.VTrace),
    "r2d2": Recipe(r2d2.Config, r2d2.R2D2),
}
