"""The observation fields of one behaviour: its sensors by their names, and what it may not do."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, ObservationSpec, TerminalSteps

from core.types import ACTION_MASK, ActionSpec, EnvSpec, FieldSpec
from envproc.unity.arrays import channels_first


def bare_name(key: str) -> str:
    """3DBall of "3DBall?team=0", which is a behaviour's full name on the wire."""
    return key.partition("?")[0]


class Fields:
    """How one behaviour's sensors become observation fields.

    An image is (channels, height, width), whatever the package sends; its numbers lie in [0, 1], or are bytes.
    """

    def __init__(self, spec: BehaviorSpec, image_bytes: bool = False) -> None:
        self._image_bytes = image_bytes
        self.sensors: dict[str, ObservationSpec] = {}
        self.branches: tuple[int, ...] = tuple(spec.action_spec.discrete_branches)
        self._num_continuous: int = spec.action_spec.continuous_size
        for place, sensor in enumerate(spec.observation_specs):
            name = sensor.name or f"obs_{place}"
            while name in self.sensors or name == ACTION_MASK:
                name = f"{name}_{place}"
            self.sensors[name] = sensor

    def env_spec(self, num_agents: int) -> EnvSpec:
        obs = {}
        for name, sensor in self.sensors.items():
            height_width_channels = tuple(sensor.shape)
            last = _channels_last(sensor)
            shape = (sensor.shape[2], *sensor.shape[:2]) if last else height_width_channels
            obs[name] = FieldSpec(shape, "uint8" if self._are_bytes(sensor) else "float32")
        if self.branches:
            obs[ACTION_MASK] = FieldSpec((sum(self.branches),), "bool")
        bounds = ((-1.0,) * self._num_continuous, (1.0,) * self._num_continuous)
        return EnvSpec(obs, ActionSpec(*bounds, self.branches), num_agents)

    def see(self, steps: DecisionSteps | TerminalSteps) -> dict[str, Any]:
        """Field name -> (n, ...); of images with their channels last, views that have them first."""
        seen = {}
        for (name, sensor), values in zip(self.sensors.items(), steps.obs, strict=True):
            if self._are_bytes(sensor):
                values = (values * 255 + 0.5).clip(0, 255).astype(np.uint8)
            seen[name] = values.transpose(0, 3, 1, 2) if _channels_last(sensor) else values
        if self.branches:
            masks = getattr(steps, "action_mask", None)  # who ended has none
            allowed = np.ones((len(steps), sum(self.branches)), np.bool_)
            seen[ACTION_MASK] = allowed if masks is None else ~np.concatenate(masks, axis=1)
        return seen

    def _are_bytes(self, sensor: ObservationSpec) -> bool:
        return self._image_bytes and len(sensor.shape) == 3


def _channels_last(sensor: ObservationSpec) -> bool:
    return len(sensor.shape) == 3 and not channels_first(sensor)
