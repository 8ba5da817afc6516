"""What a user may ask of a Unity player. Kept apart from what uses it: nothing here imports ML-Agents."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from core.types import changeable, require


@dataclass(frozen=True)
class UnityOptions:
    """Of every player of the run."""

    time_scale: float = changeable(20.0)
    """how much faster than real time the player is asked to run"""
    no_graphics: bool = False
    """start players without a display (-nographics -batchmode)"""
    others: tuple[str, ...] = ()
    """for which of the scene's other behaviours a trained policy acts, each as NAME=RUN_DIRECTORY"""
    args: str = ""
    """more arguments for the player's command line, as one string"""
    base_port: int = 0
    """the players' first port, one after the other; 0: the system chooses (the Editor's is 5004)"""
    image_bytes: bool = False
    """keep images as bytes, which takes a quarter of the memory: for cameras. A sensor of three dimensions that is
    none, as a grid with numbers beyond 0 to 1, must stay as it is"""
    players_per_worker: int = 1
    """players of each worker: while one computes, the answer of another is learned from"""
    max_agents: int = 0
    """agents that may live at once in one player; 0: as many as decide first. For scenes that spawn agents"""
    launch_s: float = 60.0
    """seconds that a player may take to start"""
    answer_s: float = 60.0
    """seconds that a player may take for an answer after that"""

    def __post_init__(self) -> None:
        require("--unity.time-scale", self.time_scale, 1 <= self.time_scale <= 100, "from 1 to 100, Unity's limit")
        require("--unity.base-port", self.base_port, 0 <= self.base_port < 65_000, "from 0 to 64999")
        players = self.players_per_worker
        require("--unity.players-per-worker", players, 1 <= players <= 64, "from 1 to 64")
        require("--unity.max-agents", self.max_agents, self.max_agents >= 0, "at least 0")
        for name in ("launch_s", "answer_s"):
            value = getattr(self, name)
            require(f"--unity.{name.replace('_', '-')}", value, 0 < value < 1e6, "seconds above 0")
        self.arguments()
        self.policies()

    def arguments(self) -> list[str]:
        """`args` as a shell would split it. Raises ValueError for a quote without its end."""
        try:
            return shlex.split(self.args)
        except ValueError as error:
            raise ValueError(f"--unity.args {self.args!r}: {error}") from error

    def policies(self) -> dict[str, str]:
        """`others`: run directory by behaviour. Raises ValueError for one that is not NAME=RUN_DIRECTORY."""
        found = {}
        for each in self.others:
            name, _, found[name] = each.partition("=")
            require(
                "--unity.others", each, bool(name and found[name]), "NAME=RUN_DIRECTORY, as in Chaser=runs/chaser-1"
            )
        return found
