"""Sensors of any kind, and the messages of agents that have them."""

from __future__ import annotations

import importlib.metadata
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mlagents_envs.rpc_utils import behavior_spec_from_proto
from PIL import Image

from envproc.unity.messages import LeanMessage, UnityMessage

OLD = importlib.metadata.version("mlagents-envs").startswith("0.")
"""images have their channels last up to 0.28.0, and first in 1.1.0"""


@dataclass(frozen=True)
class Sensor:
    shape: tuple[int, ...]
    """of an image: height, width, channels"""
    png: bool = False
    mapping: tuple[int, ...] = ()
    pngs: int = 1
    first: bool = not OLD
    name: str = "sight"

    def write(self, obs: Any, random: np.random.Generator) -> None:
        obs.name, is_image = self.name, len(self.shape) == 3
        height_width, channels = self.shape[:2], self.shape[-1:]
        obs.shape.extend((channels + height_width if self.first else self.shape) if is_image else self.shape)
        if is_image:
            obs.dimension_properties.extend([1, 2, 2] if self.first else [2, 2, 1])
        if self.png:
            pixels = random.integers(0, 256, (self.pngs, *height_width, 3), np.uint8)
            obs.compression_type = 1
            obs.compressed_data = b"".join(png(each) for each in pixels)
            obs.compressed_channel_mapping.extend(self.mapping)
        else:
            obs.float_data.data.extend(random.standard_normal(self.shape, np.float32).ravel())


def png(pixels: npt.NDArray[Any], mode: str = "PNG") -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, mode)
        return file.getvalue()


def behaviour(sensors: list[Sensor], branches: tuple[int, ...] = ()) -> Any:
    message = UnityMessage().unity_output
    info = message.rl_output.agentInfos["Ball"].value.add()
    for each in sensors:
        each.write(info.observations.add(), np.random.default_rng(0))
    parameters = message.rl_initialization_output.brain_parameters.add()
    parameters.action_spec.num_continuous_actions = 2
    parameters.action_spec.num_discrete_actions = len(branches)
    parameters.action_spec.discrete_branch_sizes.extend(branches)
    return behavior_spec_from_proto(parameters, info)


def both(output: Any) -> tuple[Any, Any]:
    """The same agents from a full message and from a lean one."""
    message = UnityMessage()
    message.unity_output.rl_output.agentInfos["Ball"].value.extend(output)
    lean = LeanMessage.FromString(message.SerializeToString())
    return message.unity_output.rl_output.agentInfos["Ball"].value, lean.unity_output.rl_output.agentInfos["Ball"].value


def info(number: int, sensors: list[Sensor], **fields: Any) -> Any:
    made = UnityMessage().unity_output.rl_output.agentInfos["Ball"].value.add(id=number, **fields)
    for each in sensors:
        each.write(made.observations.add(), np.random.default_rng(abs(number)))
    return made
