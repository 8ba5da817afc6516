"""A saved policy as an ONNX model: the network and the head that the workers act with, node by node, without exploring.

Normalisation and the scaling of actions are inside. A model has one of two faces:

    plain   in: the observation fields, and `state_in` of a recurrent policy
            out: `action` in the environment's units, `choice` in each branch, `state_out`
    unity   in: obs_0, obs_1, ... (one a sensor), action_masks (1: allowed), recurrent_in
            out: what ML-Agents looks for, `continuous_actions` in [-1, 1] and so on: drawn, where the policy draws,
            and beside it, as `deterministic_...`, at its best

Inputs are there as far as they are needed, outputs as far as there are such actions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import onnx

from core import layers as described
from core.acting import LOG_STD, PolicySpec
from core.checkpoint import SavedPolicy
from core.layers import LAYER_NORM_EPSILON, dense, encode
from core.net import ACTING_QUANTILES, NORMALIZED_LIMIT, NetSpec, acting_cosines, layers, unpack
from core.onnx_nodes import BATCH, OPSETS, Nodes, Value
from core.types import ACTION_MASK, ActionSpec, FloatArray, require

_LEAST = -3e38
"""what a forbidden choice is worth: about the smallest float32; infinity times zero would be no number"""
_OWN_NAMES = ("action", "choice", "state_in", "state_out")
_UNITY_VERSION = 3
"""of ML-Agents' convention for names and constants: that of package 2.0 and later"""

Arrays = dict[str, FloatArray]
"""Name -> parameters, as core.net.unpack gives them."""


class _Seen(NamedTuple):
    """The inputs, as the policy takes them."""

    fields: dict[str, Value]
    """each (n, ...) float32; images that come as bytes from 0 to 1"""
    mask: Value | None
    """(n, sum of the branches) float32, 1: allowed"""
    state: Value
    """(n, 2 * lstm)"""


class _Said(NamedTuple):
    """What the policy decides: at its best, and as it is drawn. One value twice where nothing is drawn."""

    best: Value
    drawn: Value


def build(
    saved: SavedPolicy, parameters: FloatArray, *, unity: bool = False, opset: int = OPSETS[0]
) -> onnx.ModelProto:
    """The model of `saved` with its (P,) parameters.

    Raises ValueError for another number of parameters, an opset that is not in OPSETS, and names or shapes of
    observation fields that the model's inputs cannot have.
    """
    require("opset", opset, opset in OPSETS, f"from {OPSETS[0]} to {OPSETS[-1]}")
    nodes, spec, action = Nodes(opset), saved.policy_spec, saved.env_spec.action
    arrays = unpack(spec.net, parameters)
    seen = _from_unity(nodes, saved) if unity else _from_env(nodes, saved)
    output, state = _network(nodes, spec.net, arrays, seen)
    continuous = _continuous(nodes, spec, action.num_continuous, arrays, output) if action.num_continuous else None
    discrete = _discrete(nodes, spec, action, output, seen.mask) if action.branches else None
    (_to_unity if unity else _to_env)(nodes, saved, continuous, discrete, state)
    return nodes.model()


def _from_env(nodes: Nodes, saved: SavedPolicy) -> _Seen:
    net, fields = saved.policy_spec.net, {}
    for name, field in saved.env_spec.obs.items():
        if name in _OWN_NAMES:
            raise ValueError(
                f"the observation field {name!r} has the name of an input or output of every exported model; rename "
                f"it in the environment, or export with --unity"
            )
        value = nodes.input(name, field.shape, field.dtype)
        fields[name] = value if field.dtype == "float32" else value.cast("float32")
        if name in net.images and field.dtype == "uint8":
            fields[name] /= 255
    mask = fields.pop(ACTION_MASK, None)
    return _Seen(fields, mask, nodes.input("state_in", (2 * net.lstm,)))


def _from_unity(nodes: Nodes, saved: SavedPolicy) -> _Seen:
    net, fields = saved.policy_spec.net, {}
    sensors = [(name, field) for name, field in saved.env_spec.obs.items() if name != ACTION_MASK]
    for place, (name, field) in enumerate(sensors):
        if not 1 <= len(field.shape) <= 3:
            raise ValueError(
                f"the observation field {name!r} has the shape {field.shape}, and Unity's sensors have one to three "
                f"dimensions; export without --unity"
            )
        value = nodes.input(f"obs_{place}", field.shape)
        if name in net.images and field.dtype == "uint8":  # Unity's go to 1; in training they were made bytes
            value = (value * 255 + 0.5).apply("Floor").clip(0, 255) / 255
        fields[name] = value
    # Unity insists on masks and gives them always, whether the policy was trained with some or not
    mask = nodes.input("action_masks", (sum(saved.env_spec.action.branches),))
    return _Seen(fields, mask, nodes.input("recurrent_in", (1, 2 * net.lstm)).flat())


def _network(nodes: Nodes, spec: NetSpec, arrays: Arrays, seen: _Seen) -> tuple[Value, Value]:
    """(n, outputs), and the recurrent state after. The steps of core.net.Net, in their order."""

    def own(group: str, number: int, layer: described.Layer) -> Arrays:
        return {array: arrays[f"{group}.{number}.{array}"] for array in layer.shapes()}

    state = seen.state
    groups: dict[str, list[Callable[[Value], Value]]] = {}
    for group, members in layers(spec).items():
        groups[group] = []
        for number, layer in enumerate(members):
            if isinstance(layer, described.Dense):
                groups[group].append(_dense(layer, own(group, number, layer)))
            elif isinstance(layer, described.Conv):
                groups[group].append(_conv(nodes, layer, own(group, number, layer)))

    encoded = []
    if spec.vector:
        vector = nodes.side_by_side([seen.fields[name].flat() for name in spec.vector])
        if "mean" in arrays:
            vector = ((vector - arrays["mean"]) * arrays["scale"]).clip(-NORMALIZED_LIMIT, NORMALIZED_LIMIT)
        encoded.append(vector)
    for number, name in enumerate(spec.images):
        convs = groups[f"image{number}"]
        features: Value = encode(convs, spec.conv == "impala", seen.fields[name], lambda x: x.apply("Relu"), _pool)
        encoded.append(features.flat())
    x = nodes.side_by_side(encoded)
    for through in groups["body"]:
        x = through(x)
    for layer in layers(spec)["lstm"]:
        x, state = _lstm(nodes, spec.lstm, own("lstm", 0, layer), x, state)
    for layer in layers(spec)["cosine"]:
        assert isinstance(layer, described.Dense)
        embedded = dense(layer, own("cosine", 0, layer), [])(acting_cosines(spec))  # the same whatever is observed
        x = (x.reshape(-1, 1, layer.outputs) * embedded).reshape(-1, layer.outputs)
    value = x
    for through in groups["head"]:
        x = through(x)
    if spec.dueling:
        for through in groups["value"]:
            value = through(value)
        x = _duel(nodes, spec, value, x)
    if spec.cosines:
        x = x.reshape(-1, ACTING_QUANTILES, spec.outputs).mean().flat()
    return x, state


def _dense(layer: described.Dense, own: Arrays) -> Callable[[Value], Value]:
    """Where the layer is noisy, without its noise."""

    def forward(x: Value) -> Value:
        x = x @ own["weight"].T + own["bias"]
        if layer.norm:  # spelled out: there is no node for it before opset 17
            x = x - x.mean()
            x = x / ((x * x).mean() + LAYER_NORM_EPSILON).apply("Sqrt") * own["norm_weight"] + own["norm_bias"]
        return x if layer.activation == "none" else x.apply("Relu" if layer.activation == "relu" else "Tanh")

    return forward


def _conv(nodes: Nodes, layer: described.Conv, own: Arrays) -> Callable[[Value], Value]:
    def forward(x: Value) -> Value:
        numbers = nodes.constant(own["weight"]), nodes.constant(own["bias"])
        sizes = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
        return nodes.call("Conv", x, *numbers, **sizes)

    return forward


def _pool(x: Value) -> Value:
    return x.nodes.call("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def _lstm(nodes: Nodes, units: int, own: Arrays, x: Value, state: Value) -> tuple[Value, Value]:
    """One step: (n, units), and the state after it."""
    h, c = state.columns(0, units), state.columns(units, 2 * units)
    gates = x @ own["weight_ih_l0"].T + own["bias_ih_l0"] + (h @ own["weight_hh_l0"].T + own["bias_hh_l0"])
    entering, kept, cell, shown = (gates.columns(i * units, (i + 1) * units) for i in range(4))
    c = c * kept.apply("Sigmoid") + entering.apply("Sigmoid") * cell.apply("Tanh")
    h = shown.apply("Sigmoid") * c.apply("Tanh")
    return h, nodes.side_by_side([h, c])


def _duel(nodes: Nodes, spec: NetSpec, value: Value, advantages: Value) -> Value:
    """(n, atoms) and (n, outputs) -> (n, outputs)"""
    choices = sum(spec.dueling)
    atoms = spec.outputs // choices
    advantages = advantages.reshape(-1, choices, atoms)
    branches = [advantages.columns(*ends) for ends in pairwise(accumulate(spec.dueling, initial=0))]
    centred = nodes.side_by_side([branch - branch.mean() for branch in branches])
    return (centred + value.reshape(-1, 1, atoms)).flat()


def _continuous(nodes: Nodes, spec: PolicySpec, num: int, arrays: Arrays, output: Value) -> _Said:
    """(n, num) in [-1, 1]"""
    mean = output.columns(0, num)
    match spec.head:
        case "squashed":
            deviation = output.columns(num, 2 * num).clip(*LOG_STD).apply("Exp")
            return _Said(mean.apply("Tanh"), (mean + mean.noise() * deviation).apply("Tanh"))
        case "stochastic":
            drawn = mean + mean.noise() * np.exp(arrays["extras.log_std"])
            return _Said(mean.clip(-1, 1), drawn.clip(-1, 1))
        case _:
            best = output.apply("Tanh")
            return _Said(best, best)


def _discrete(nodes: Nodes, spec: PolicySpec, action: ActionSpec, output: Value, mask: Value | None) -> _Said:
    """(n, branches) int64"""
    choices = sum(action.branches)
    if spec.head == "greedy":
        worth = _worth(spec, choices, output)
    else:
        worth = output.columns(action.num_continuous, action.num_continuous + choices)
    best, drawn = [], []
    for ends in pairwise(accumulate(action.branches, initial=0)):
        branch = worth.columns(*ends)
        if mask is not None:
            allowed = mask.columns(*ends)
            allowed = allowed.at_least(1 - allowed.max())  # where nothing may be done, all may
            branch = branch * allowed + (1 - allowed) * _LEAST
        best.append(branch.argmax())
        drawn.append(branch.drawn() if spec.head == "stochastic" else best[-1])
    return _Said(nodes.side_by_side(best), nodes.side_by_side(drawn))


def _worth(spec: PolicySpec, choices: int, output: Value) -> Value:
    """(n, choices): of each choice the mean of its atoms, or of what they make likely."""
    atoms = spec.net.outputs // choices
    if atoms == 1:
        return output
    rows = output.reshape(-1, atoms)
    mean = rows.softmax() @ np.array(spec.support, np.float32)[:, None] if spec.support else rows.mean()
    return mean.reshape(-1, choices)


def _to_env(nodes: Nodes, saved: SavedPolicy, continuous: _Said | None, discrete: _Said | None, state: Value) -> None:
    action, memory = saved.env_spec.action, 2 * saved.policy_spec.net.lstm
    if continuous:
        low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        scaled = continuous.best * ((high - low) / 2) + (low + high) / 2
        nodes.output("action", scaled, (BATCH, action.num_continuous))
    if discrete:
        nodes.output("choice", discrete.best, (BATCH, len(action.branches)), "int64")
    if memory:
        nodes.output("state_out", state, (BATCH, memory))


def _to_unity(nodes: Nodes, saved: SavedPolicy, continuous: _Said | None, discrete: _Said | None, state: Value) -> None:
    action, memory = saved.env_spec.action, 2 * saved.policy_spec.net.lstm
    nodes.output("version_number", nodes.constant([_UNITY_VERSION]), (1,))
    nodes.output("memory_size", nodes.constant([memory]), (1,))
    if continuous:
        num = action.num_continuous
        nodes.output("continuous_actions", continuous.drawn, (BATCH, num))
        nodes.output("continuous_action_output_shape", nodes.constant([num]), (1,))
        nodes.output("deterministic_continuous_actions", continuous.best, (BATCH, num))
    if discrete:
        num = len(action.branches)
        nodes.output("discrete_actions", discrete.drawn, (BATCH, num), "int64")
        nodes.output("discrete_action_output_shape", nodes.constant([action.branches]), (1, num))
        nodes.output("deterministic_discrete_actions", discrete.best, (BATCH, num), "int64")
    if memory:
        nodes.output("recurrent_out", state.reshape(-1, 1, memory), (BATCH, 1, memory))
