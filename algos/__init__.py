"""Algorithms: mathematics only, no processes, no shared memory of their own, no files.

To add one, write its file and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from algos import ddpg, sac, td3
from core.types import Algorithm


class Recipe(NamedTuple):
    """What the command line needs of an algorithm."""

    config: Callable[[], Any]
    """its Config, with defaults"""
    build: Callable[..., Algorithm]
    """(EnvSpec, Config, device) -> the algorithm; raises ValueError for an environment that it cannot learn"""


ALGORITHMS = {
    "ddpg": Recipe(ddpg.Config, ddpg.DDPG),
    "sac": Recipe(sac.Config, sac.SAC),
    "td3": Recipe(td3.Config, td3.TD3),
}
