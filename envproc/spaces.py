"""What Gymnasium calls spaces, as the fields and actions of an EnvSpec, and the way from the one to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from core.types import ACTION_MASK, ActionSpec, FieldSpec, FloatArray, IntArray

Array = np.ndarray[Any, Any]
ToEnv = Callable[[FloatArray, IntArray], Any]
"""one agent's continuous and discrete actions -> what the environment takes"""


def boxes_of(env_id: str, space: gymnasium.Space[Any]) -> dict[str, spaces.Box]:
    """What is observed, field by field."""
    match space:
        case spaces.Discrete():
            return {"vector": spaces.Box(0, 1, (int(space.n),))}
        case spaces.Dict():
            inner = space.spaces
        case _:
            inner = {"image" if len(space.shape or ()) > 1 else "vector": space}
    boxes = {}
    for name, each in inner.items():
        if not isinstance(each, spaces.Box) or not (len(each.shape) in (1, 3) or _is_grey(each)):
            raise ValueError(
                f"{env_id} observes {space}; supported are a Box of 1 or 3 dimensions, or of 2 and uint8, a Dict of "
                "such Boxes and a Discrete: bring it into one of these with a wrapper such as "
                "gymnasium.wrappers.FlattenObservation"
            )
        if name == ACTION_MASK:
            raise ValueError(
                f"{env_id} observes {name!r}; what may not be done belongs into the info of reset and step"
            )
        boxes[name] = each
    return boxes


def _is_grey(box: spaces.Box) -> bool:
    return len(box.shape) == 2 and box.dtype == np.uint8


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Nobody says so; but images have few channels and many columns."""
    return len(shape) == 3 and not (shape[0] <= 4 and shape[2] > shape[0])


def field_of(box: spaces.Box) -> FieldSpec:
    shape = box.shape
    if len(shape) == 2:
        shape = (1, *shape)
    elif _channels_last(shape):
        shape = (shape[2], *shape[:2])
    return FieldSpec(shape, "uint8" if box.dtype == np.uint8 else "float32")


def as_given(room: Array, shape: tuple[int, ...]) -> Array:
    """The same memory with its axes as the environment has them: writing there puts the channels first."""
    if len(shape) == 2:
        return room[:, 0]
    return np.moveaxis(room, 1, -1) if _channels_last(shape) else room


def flat(mask: Any) -> Array:
    """Gymnasium has one mask for a Discrete and a tuple of them, nested as nvec is, for a MultiDiscrete."""
    return np.concatenate([flat(each) for each in mask]) if isinstance(mask, tuple) else np.ravel(mask)


def mask_of(env_id: str, info: dict[str, Any], branches: tuple[int, ...]) -> dict[str, FieldSpec]:
    """The field of what is masked, if this environment masks anything: only a reset can tell."""
    if ACTION_MASK not in info:
        return {}
    got, wanted = len(flat(info[ACTION_MASK])), sum(branches)
    if got != wanted:
        raise ValueError(f"{env_id} has {wanted} choices and an {ACTION_MASK!r} of {got}; give each choice its entry")
    return {ACTION_MASK: FieldSpec((wanted,), "bool")}


def actions_of(env_id: str, space: gymnasium.Space[Any]) -> tuple[ActionSpec, ToEnv]:
    match space:
        case spaces.Box(shape=shape, dtype=dtype) if np.issubdtype(dtype, np.floating) and space.is_bounded():
            low, high = (tuple(map(float, bound.ravel())) for bound in (space.low, space.high))
            return ActionSpec(low, high), lambda continuous, _: continuous.reshape(shape).astype(dtype)
        case spaces.Discrete(start=start):
            return ActionSpec(branches=(int(space.n),)), lambda _, discrete: discrete[0] + start
        case spaces.MultiDiscrete(nvec=nvec, start=start):
            branches = tuple(nvec.ravel().tolist())
            return ActionSpec(branches=branches), lambda _, discrete: discrete.reshape(nvec.shape) + start
        case _:
            raise ValueError(
                f"{env_id} acts in {space}; supported are a Box of floats with finite bounds (see "
                "gymnasium.wrappers.RescaleAction), Discrete and MultiDiscrete"
            )
