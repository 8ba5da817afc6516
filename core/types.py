"""What an environment and an algorithm say about themselves, and the layout of one row of the ring.

Nothing here imports torch: the environment workers read this file too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

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


@dataclass(frozen=True)
class Recording:
    """What the workers write into the ring: which transitions make a row, and what stands in it beside them."""

    gamma: float = 0.99
    """discount of one decision"""
    n_step: int = 1
    """decisions in the window of one row, where rows are transitions"""
    ordered: bool = False
    """for learners that read in order: log_prob and decision stand in each row"""
    priority: bool = False
    """each row carries the TD error that its worker's own policy gives it (Horgan et al. 2018)"""
    length: int = 0
    """rows are sequences of so many decisions of one agent; 0: rows are transitions"""
    stride: int = 1
    """decisions from the start of an agent's sequence to that of its next one"""
    state_dim: int = 0
    """size of the recurrent state that stands at the start of a sequence"""


def row_layout(spec: EnvSpec, recording: Recording) -> np.dtype[np.void]:
    """The dtype of one row: a header (index, epoch, agent), then one transition or one sequence of T of them.

    `action` is what the policy said, in units of [-1, 1], before it was clipped; `choice` the choice in each branch.
    A transition has reward, `discount` (gamma^n, or 0 after a true end) and next_obs; if ordered, log_prob and
    `decision`, its number in its episode. In a sequence obs stands T + 1 times, the rest T times; `valid` is 1 up to
    the end of its episode and 0 after, where the last observation stands again and all else is 0. Of a field of
    stacked frames there are the frames' numbers in the lane.
    """
    header: list[Any] = [("index", np.int64), ("epoch", np.int32), ("agent", np.int32)]
    fields = {
        name: ("i8", (each.stack,)) if each.stack > 1 else (each.dtype, each.shape) for name, each in spec.obs.items()
    }
    obs = np.dtype([(name, *each) for name, each in fields.items()], align=True)
    once: list[Any] = []
    if spec.action.num_continuous:
        once.append(("action", np.float32, (spec.action.num_continuous,)))
    if spec.action.branches:
        once.append(("choice", np.int32, (len(spec.action.branches),)))
    once += [("reward", np.float32, ()), ("discount", np.float32, ())]
    if recording.length:
        once.append(("valid", np.float32, ()))
        each = [(name, dtype, (recording.length, *shape)) for name, dtype, shape in once]
        sequence = [("state", np.float32, (recording.state_dim,)), ("obs", obs, (recording.length + 1,))]
        return np.dtype(header + sequence + each + _more(recording), align=True)
    if recording.ordered:
        once += [("log_prob", np.float32, ()), ("decision", np.int32, ())]
    return np.dtype([*header, ("obs", obs), *once, ("next_obs", obs), *_more(recording)], align=True)


def _more(recording: Recording) -> list[Any]:
    return [("priority", np.float32)] if recording.priority else []


def frames_of(spec: EnvSpec) -> dict[str, FieldSpec]:
    """Of each field of stacked frames, what one observation adds to the stack."""
    return {
        name: FieldSpec((each.shape[0] // each.stack, *each.shape[1:]), each.dtype)
        for name, each in spec.obs.items()
        if each.stack > 1
    }


@dataclass
class Batch:
    """Rows of the ring as tensors on the learner's device: n transitions, or n sequences of T decisions.

    Of sequences, obs has (n, T + 1, ...) and action, choice, reward, discount have (n, T, ...); there is no next_obs.
    """

    obs: dict[str, torch.Tensor]
    """each (n, ...)"""
    action: torch.Tensor
    """(n, num_continuous), what the policy said, in units of [-1, 1]"""
    choice: torch.Tensor
    """(n, branches) int32, the choice in each branch"""
    reward: torch.Tensor
    """(n,) sum of the n-step window's rewards, discounted"""
    discount: torch.Tensor
    """(n,) gamma^n, or 0 after a true end"""
    next_obs: dict[str, torch.Tensor]
    """each (n, ...)"""
    weight: torch.Tensor
    """(n,) importance weights of prioritised replay, at most 1; else ones"""
    log_prob: torch.Tensor | None = None
    """(n,) of rows read in order: log-probability of what was done, under the policy that did it"""
    valid: torch.Tensor | None = None
    """(n, T) of sequences: 1 before the end of the episode, 0 after"""
    state: torch.Tensor | None = None
    """(n, state_dim) of sequences: the recurrent state before the first observation"""
    agent_steps: int = 0
    """of the run so far: what schedules go by"""


class Learned(NamedTuple):
    """What one call of `update` did."""

    metrics: dict[str, torch.Tensor]
    """They stay tensors: reading one waits for the device"""
    td_error: torch.Tensor | None = None
    """(n,) of each row, absolute: its priority from now on, where replay is prioritised"""
    updates: int = 1
    """gradient steps"""


class Skipped(NamedTuple):
    """Gradient steps that were not done because loss or gradient was not finite."""

    total: int
    in_a_row: int
    """up to now"""


_CHANGEABLE = "changeable"


def changeable(default: Any) -> Any:
    """A dataclass field with this default, which may also be changed while a run goes on."""
    return field(default=default, metadata={_CHANGEABLE: True})


def changeable_fields(config: Any) -> list[str]:
    """Names of the fields of a dataclass that were declared so."""
    return [each.name for each in fields(config) if _CHANGEABLE in each.metadata]


def require(name: str, value: object, holds: bool, wish: str) -> None:
    """Raises ValueError, naming the option, its value and what it must be, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} {value}; it must be {wish}")


def in_one_line(error: BaseException, most: int | None = None) -> str:
    """What it says, its first `most` letters."""
    return " ".join(str(error).split())[:most]


class Algorithm(Protocol):
    """The learning object. One file in algos/ each; no base class.

    Those that replay implement update(batch: Batch), those that read the ring in order update(rollout: Rollout).
    """

    config: Any
    """its options, a dataclass; put in another one, with other values of changeable fields, and they hold from the next
    update on"""

    @property
    def policy_spec(self) -> PolicySpec:
        """What the workers act with: the network as data, its head and its exploration."""
        ...

    @property
    def recording(self) -> Recording:
        """What the workers write down."""
        ...

    def update(self, experience: Any, /) -> Learned:
        """Learn from one batch, or from one rollout."""
        ...

    def policy_parameters(self) -> torch.Tensor:
        """(P,) float32: all that policy_spec.net needs to act, in its order."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Descends(Protocol):
    """What makes an algorithm's gradient steps, and skips those that are not finite."""

    def skipped(self) -> Skipped: ...


@runtime_checkable
class HasOptimizers(Protocol):
    """An algorithm that tells how often it skipped a gradient step."""

    @property
    def optimizers(self) -> Sequence[Descends]: ...
