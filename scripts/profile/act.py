"""What a worker's policy costs: numpy on one thread, from observations to actions, beside the same network in torch.

The torch side goes from the same numpy observations through a plain torch.nn.Sequential to numpy outputs, and stops
there; ours goes on to the actions. Medians, in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algos.ddpg import DDPG
from algos.ddpg import Config as Continuous
from algos.dqn import DQN
from algos.dqn import Config as Discrete
from core.acting import Policy, PolicySpec
from core.layers import Conv, Dense
from core.net import NORMALIZED_LIMIT, NetSpec, layers, unpack
from core.types import ActionSpec, EnvSpec, FieldSpec, FloatArray
from scripts.profile.measure import times
from scripts.profile.report import Report, option_parser, positive, read_options
from scripts.profile.shapes import SHAPES

AGENTS = (1, 4, 12, 32, 96, 256)


class Acting(NamedTuple):
    """A policy at its beginning."""

    spec: PolicySpec
    action: ActionSpec
    parameters: FloatArray
    obs: dict[str, FieldSpec]


def policies() -> dict[str, Acting]:
    """3DBall's, HalfCheetah's, and the network of Mnih et al. 2015 for Atari."""
    ball, cheetah, images = (SHAPES[name].spec for name in ("3DBall", "HalfCheetah", "images"))
    algorithms: dict[str, tuple[Any, EnvSpec]] = {
        "8-64-64-2": (DDPG(ball, Continuous(hidden=(64, 64))), ball),
        "17-256-256-6": (DDPG(cheetah, Continuous(hidden=(256, 256))), cheetah),
        "84x84x4-nature-512-6": (DQN(images, Discrete(hidden=(512,))), images),
    }
    return {
        name: Acting(each.policy_spec, spec.action, each.policy_parameters().numpy(), spec.obs)
        for name, (each, spec) in algorithms.items()
    }


class _Normalized(nn.Module):
    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self._mean, self._scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self._mean) * self._scale).clamp(-NORMALIZED_LIMIT, NORMALIZED_LIMIT)


class _Bytes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 255


def in_torch(spec: NetSpec, parameters: FloatArray) -> nn.Sequential:
    """The same network of one observation field, with these parameters, as one would write it in torch."""
    arrays = {name: torch.from_numpy(each.copy()) for name, each in unpack(spec, parameters).items()}
    modules: list[nn.Module] = [_Bytes()] if spec.images else []
    modules += [_Normalized(arrays["mean"], arrays["scale"])] if "mean" in arrays else []
    for group in ("image0", "body", "head"):
        for number, layer in enumerate(layers(spec).get(group, [])):
            assert isinstance(layer, Conv | Dense)
            if isinstance(layer, Conv):
                module: Any = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride)
            else:
                module = nn.Linear(layer.inputs, layer.outputs)
            module.weight.data, module.bias.data = (arrays[f"{group}.{number}.{part}"] for part in ("weight", "bias"))
            modules += [module] + [nn.ReLU()] * (isinstance(layer, Conv) or layer.activation == "relu")
        modules += [nn.Flatten()] * (group == "image0")
    return nn.Sequential(*modules)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = option_parser("act", __doc__)
    parser.add_argument("--agents", nargs="+", type=positive, default=AGENTS, help="that act at once")
    options = read_options(parser, arguments)
    torch.set_num_threads(1)  # as in a worker
    report = Report("act", options.json)
    table = report.table("A policy acts, us", 40, "numpy", "torch", "times")
    with torch.inference_mode():
        for name, acting in policies().items():
            module = in_torch(acting.spec.net, acting.parameters)
            for agents in options.agents:
                ((field, spec),) = acting.obs.items()
                seen = np.ones((agents, *spec.shape), spec.dtype)
                policy = Policy(acting.spec, acting.action, agents, acting.parameters, seed=0)
                works: dict[str, Callable[[], object]] = {
                    "numpy": partial(policy.act, {field: seen}, np.arange(agents)),
                    "torch": partial(_say, module, seen),
                }
                us = times(works, 0.01 if options.quick else 1.2)
                table.row(f"{name}, {agents} agents", us["numpy"], us["torch"], us["numpy"] / us["torch"])
    report.write()
    return 0


def _say(module: nn.Module, seen: FloatArray) -> FloatArray:
    said: Tensor = module(torch.from_numpy(seen))
    return said.numpy()
