"""From a message's agents to arrays, and from actions to a message.

It takes a few microseconds an agent: the numbers of an observation are never looked at one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import (
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    TerminalSteps,
)

from core.types import FloatArray
from envproc.unity import images
from envproc.unity.messages import OK, LeanAction, LeanActions, LeanMessage

_PIXELS = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE


def channels_first(sensor: ObservationSpec) -> bool:
    """Whether an image's shape is (channels, height, width), as from package 3.0 on, or has its channels last."""
    return bool(sensor.dimension_property[0] != _PIXELS and sensor.dimension_property[-1] == _PIXELS)


def read_steps(infos: Sequence[Any], spec: BehaviorSpec) -> tuple[DecisionSteps, TerminalSteps]:
    """What mlagents_envs.rpc_utils.steps_from_proto makes of the same agents, from their lean messages.

    Raises ValueError, naming agent and sensor, for an observation that does not have the shape of the spec.
    """
    waiting: list[Any] = []
    ended: list[Any] = []
    for info in infos:
        (ended if info.done else waiting).append(info)
    branches = spec.action_spec.discrete_branches
    masks = _masks(waiting, branches) if branches and waiting else None
    reward, group_reward = _rewards(waiting)
    decisions = DecisionSteps(
        _observations(waiting, spec), reward, _ids(waiting), masks, [info.group_id for info in waiting], group_reward
    )
    if not ended:  # nearly always
        return decisions, TerminalSteps.empty(spec)
    interrupted = np.array([info.max_step_reached for info in ended], np.bool_)
    reward, group_reward = _rewards(ended)
    terminals = TerminalSteps(
        _observations(ended, spec), reward, interrupted, _ids(ended), [info.group_id for info in ended], group_reward
    )
    return decisions, terminals


def _ids(infos: list[Any]) -> npt.NDArray[np.int32]:
    return np.array([info.id for info in infos], np.int32)


def _rewards(infos: list[Any]) -> tuple[FloatArray, FloatArray]:
    own = np.array([info.reward for info in infos], np.float32)
    return own, np.array([info.group_reward for info in infos], np.float32)


def _observations(infos: list[Any], spec: BehaviorSpec) -> list[FloatArray]:
    """One array a sensor, (n, *shape), read-only."""
    for info in infos:
        if len(info.observations) != len(spec.observation_specs):
            raise ValueError(
                f"agent {info.id} has {len(info.observations)} sensors, the first of its behaviour "
                f"had {len(spec.observation_specs)}; agents of one behaviour must have the same"
            )
    return [_observation(infos, place, sensor) for place, sensor in enumerate(spec.observation_specs)]


def _observation(infos: list[Any], place: int, sensor: ObservationSpec) -> FloatArray:
    seen = [info.observations[place] for info in infos]
    if seen and seen[0].compressed_data:
        return np.stack([_image(info, each, sensor) for info, each in zip(infos, seen, strict=True)])
    size = 4 * prod(sensor.shape)
    numbers = [each.float_data.data for each in seen]
    data = b"".join(numbers)
    if len(data) != size * len(seen):
        which = next(i for i, each in enumerate(numbers) if len(each) != size)
        raise ValueError(
            f"sensor {sensor.name!r} of agent {infos[which].id} gave {len(numbers[which]) // 4} numbers, of shape "
            f"{list(seen[which].shape)}; its behaviour's is {list(sensor.shape)}"
        )
    array: FloatArray = np.frombuffer(data, np.float32).reshape(len(seen), *sensor.shape)
    return array


def _image(info: Any, seen: Any, sensor: ObservationSpec) -> FloatArray:
    first = channels_first(sensor)
    try:
        image = images.decode(seen.compressed_data, sensor.shape[0 if first else -1], seen.compressed_channel_mapping)
    except (ValueError, OSError) as error:
        raise ValueError(f"sensor {sensor.name!r} of agent {info.id}: {error}") from error
    if first:
        image = image.transpose(2, 0, 1)
    if image.shape != tuple(sensor.shape):
        raise ValueError(
            f"sensor {sensor.name!r} of agent {info.id} gave an image of shape {image.shape}; "
            f"its behaviour's is {tuple(sensor.shape)}"
        )
    return image


def _masks(waiting: list[Any], branches: Sequence[int]) -> list[npt.NDArray[np.bool_]]:
    """(n, size) for each branch, True: forbidden. A mask that is absent, or of another length, forbids nothing."""
    total = sum(branches)
    given = (info.action_mask for info in waiting)
    data = b"".join([mask if len(mask) == total else bytes(total) for mask in given])
    forbidden = np.frombuffer(data, np.uint8).reshape(len(waiting), total) != 0
    return np.split(forbidden, np.cumsum(branches)[:-1], axis=1)


def step_message(actions: Mapping[str, ActionTuple], side_channel: bytes) -> bytes:
    """The answer that lets the player go on: for each behaviour the actions of those who asked, in their order."""
    message = LeanMessage()
    message.header.status = OK
    rl_input = message.unity_input.rl_input
    rl_input.SetInParent()
    if side_channel:
        rl_input.side_channel = side_channel
    for name, action in actions.items():
        if len(action.continuous):
            rl_input.agent_actions[name] = _actions(action)
    return message.SerializeToString()  # type: ignore[no-any-return]


def _actions(action: ActionTuple) -> bytes:
    """A ListAgentActionProto."""
    numbers = np.ascontiguousarray(action.continuous, np.float32)
    if action.discrete.shape[1]:
        rows = zip(numbers, action.discrete.tolist(), strict=True)
        each = [LeanAction(continuous_actions=row.tobytes(), discrete_actions=choice) for row, choice in rows]
        return LeanActions(value=each).SerializeToString()  # type: ignore[no-any-return]
    # Without discrete actions all agents' bytes are alike but for the numbers, with which they end.
    size = 4 * numbers.shape[1]
    one = LeanActions(value=[LeanAction(continuous_actions=bytes(size))]).SerializeToString()
    table = np.empty((len(numbers), len(one)), np.uint8)
    table[:] = np.frombuffer(one, np.uint8)
    table[:, len(one) - size :] = numbers.view(np.uint8)
    return table.tobytes()
