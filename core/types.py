"""What an environment and an algorithm say about themselves, and the layout of one row of the ring.

Nothing here imports torch: the environment workers read this file too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from core.acting import PolicySpec

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.void]
"""Rows of the ring: a structured array, one element a transition, laid out by row_layout."""

Obs = Mapping[str, npt.NDArray[Any]]
"""Field name -> (n, ...), one entry along the first axis for each agent."""


ACTION_MASK = "action_mask"
"""observation field of what may not be done now: (sum of the branches,) bool, True: allowed. No network sees it"""


@dataclass(frozen=True)
class FieldSpec:
    """One observation field of one agent: its shape and numpy dtype. Three dimensions are an image, channels first."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    stack: int = 1
    """so many frames lie along the first axis, the newest last; at an episode's start all are its first"""


@dataclass(frozen=True)
class ActionSpec:
    """The actions of one agent: continuous ones within [low, high], and discrete ones, one choice in each branch."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    branches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high):
            raise ValueError(f"{len(self.low)} lower bounds and {len(self.high)} upper bounds; give one pair an action")
        for low, high in zip(self.low, self.high, strict=True):
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise ValueError(f"action bounds [{low}, {high}]; they must be finite, the lower below the upper")

    @property
    def num_continuous(self) -> int:
        return len(self.low)


@dataclass(frozen=True)
class EnvSpec:
    """What one environment offers: observation fields, actions, and how many agents act side by side."""

    obs: dict[str, FieldSpec]
    action: ActionSpec
    num_agents: int


class Action(NamedTuple):
    """What a batch of n agents does."""

    continuous: FloatArray
    """(n, num_continuous) in the environment's own units"""
    discrete: IntArray
    """(n, number of branches) the choice in each branch"""


def row_layout(spec: EnvSpec) -> np.dtype[np.void]:
    """The dtype of one row: a header (index, epoch, agent), then one transition.

    `action` is what the policy said, each in [-1, 1]; `discount` is gamma^n, or 0 after a true end.
    """
    obs = np.dtype([(name, each.dtype, each.shape) for name, each in spec.obs.items()], align=True)
    fields: list[tuple[str, Any] | tuple[str, Any, tuple[int, ...]]] = [
        ("index", np.int64),
        ("epoch", np.int32),
        ("agent", np.int32),
        ("obs", obs),
        ("reward", np.float32),
        ("discount", np.float32),
        ("next_obs", obs),
    ]
    if spec.action.num_continuous:
        fields.insert(4, ("action", np.float32, (spec.action.num_continuous,)))
    if spec.action.branches:
        fields.insert(4, ("choice", np.int32, (len(spec.action.branches),)))
    return np.dtype(fields, align=True)


@dataclass(frozen=True)
class Batch:
    """Rows drawn from the ring, as tensors on the learner's device; n is the batch size."""

    obs: dict[str, torch.Tensor]
    """each (n, ...)"""
    action: torch.Tensor
    """(n, num_continuous), each in [-1, 1]"""
    reward: torch.Tensor
    """(n,) sum of the n-step window's rewards, discounted"""
    discount: torch.Tensor
    """(n,) gamma^n, or 0 after a true end"""
    next_obs: dict[str, torch.Tensor]
    """each (n, ...)"""


def require(name: str, value: object, holds: bool, wish: str) -> None:
    """Raises ValueError, naming the option, its value and what it must be, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} {value}; it must be {wish}")


class Algorithm(Protocol):
    """The learning object. One file in algos/ each; no base class."""

    @property
    def policy_spec(self) -> PolicySpec:
        """What the workers act with: the network as data, its head and its exploration."""
        ...

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step on one batch. Metrics stay tensors: reading one waits for the device."""
        ...

    def policy_parameters(self) -> torch.Tensor:
        """(P,) float32: all that policy_spec.net needs to act, in its order."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
