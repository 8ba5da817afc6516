"""Algorithms: mathematics only, no processes, no shared memory of their own, no files.

To add one, write its file and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from algos import ddpg, ppo, r2d2, vtrace
from core.types import Algorithm


class Recipe(NamedTuple):
    """What the command line needs of an algorithm."""

    config: Callable[[], Any]
    """its Config, with defaults"""
    build: Callable[..., Algorithm]
    """(EnvSpec, Config, device) -> the algorithm; raises ValueError for an environment that it cannot learn"""


ALGORITHMS = {
    "ddpg": Recipe(ddpg.Config, ddpg.DDPG),
    "ppo": Recipe(ppo.Config, ppo.PPO),
    "vtrace": Recipe(vtrace.Config, vtrace.VTrace),
    "r2d2": Recipe(r2d2.Config, r2d2.R2D2),
}
