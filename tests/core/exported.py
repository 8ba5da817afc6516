"""Policies of all algorithms, to be exported: trained by nobody, but with numbers as if somebody had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch

from algos import ALGORITHMS
from algos.nets import Network, Normalizer
from core.acting import PolicySpec
from core.checkpoint import SavedPolicy
from core.net import NetSpec
from core.types import ACTION_MASK, ActionSpec, EnvSpec, FieldSpec, FloatArray

VECTOR = {"ball": FieldSpec((8,)), "goal": FieldSpec((2, 3), "float64"), "count": FieldSpec((1,), "int64")}
MASKED = {**VECTOR, ACTION_MASK: FieldSpec((7,), "bool")}
IMAGES = {"eye": FieldSpec((4, 21, 20), "uint8", stack=4), "speed": FieldSpec((3,)), "map": FieldSpec((1, 20, 24))}
LOW, HIGH = (-2.0, 0.0), (2.0, 5.0)

SPECS = {
    "continuous": EnvSpec(VECTOR, ActionSpec(LOW, HIGH), 4),
    "one number": EnvSpec({"count": FieldSpec((), "int64")}, ActionSpec(branches=(5,)), 4),
    "choices": EnvSpec(VECTOR, ActionSpec(branches=(5,)), 4),
    "masks": EnvSpec(MASKED, ActionSpec(branches=(7,)), 4),
    "branches": EnvSpec(MASKED, ActionSpec(branches=(4, 1, 2)), 4),
    "mixed": EnvSpec(MASKED, ActionSpec(LOW, HIGH, (4, 3)), 4),
    "images": EnvSpec(IMAGES, ActionSpec(LOW, HIGH), 4),
    "images, choices": EnvSpec({**IMAGES, ACTION_MASK: FieldSpec((3,), "bool")}, ActionSpec(branches=(3,)), 4),
}


class Exported(NamedTuple):
    """A policy as a run would leave it, and the torch network that it is."""

    saved: SavedPolicy
    parameters: FloatArray
    network: Network
    normalizer: Normalizer


def policy(algorithm: str, where: str | EnvSpec, **options: Any) -> Exported:
    torch.manual_seed(0)
    recipe, spec = ALGORITHMS[algorithm], SPECS[where] if isinstance(where, str) else where
    config = replace(recipe.config(), **{"hidden": (24, 16), "normalize": True, "conv": "simple", **options})
    built: Any = recipe.build(spec, config)
    nets = built.nets if hasattr(built, "nets") else built
    network = nets.online if hasattr(nets, "online") else nets.actor
    _move(network, nets.normalizer)
    parameters = built.policy_parameters().detach().numpy().copy()
    return Exported(SavedPolicy({}, spec, built.policy_spec), parameters, network, nets.normalizer)


def says_what_its_network_says(net: NetSpec, obs: dict[str, FieldSpec]) -> Exported:
    """A policy whose actions are the tanh of any network's outputs."""
    torch.manual_seed(0)
    network, normalizer = Network(net), Normalizer(net.width)
    _move(network, normalizer)
    flat = [*normalizer.shipped(net), *(parameter.detach().flatten() for parameter in network.parameters())]
    spec = EnvSpec(obs, ActionSpec((-1.0,) * net.outputs, (1.0,) * net.outputs), 4)
    return Exported(SavedPolicy({}, spec, PolicySpec(net, "tanh")), torch.cat(flat).numpy(), network, normalizer)


def _move(network: Network, normalizer: Normalizer) -> None:
    """Away from the start, where last layers say almost nothing and biases nothing."""
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
            parameter.add_(torch.randn(parameter.shape) / fan_in**0.5)
    if len(normalizer.mean):
        normalizer.count(torch.randn(50, len(normalizer.mean)) * 3 + 2)


def run(model: onnx.ModelProto, inputs: dict[str, Any]) -> dict[str, Any]:
    """The model's outputs; of `inputs` it is given those that it has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {each.name: inputs[each.name] for each in session.get_inputs()}
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True))


def shown(model: onnx.ModelProto, side: str) -> dict[str, tuple[str, list[str | int]]]:
    """Name -> dtype and shape of each of the model's "input" or "output", in their order."""
    found = {}
    for each in getattr(model.graph, side):
        kind = each.type.tensor_type
        shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
        found[each.name] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name, shape
    return found
