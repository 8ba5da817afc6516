"""NetSpec: what a network is, as data, and its forward pass in numpy.

The same spec is what torch trains (algos/nets.py), what the workers act with (here, without torch), and what is
shipped. All of a network's numbers lie in one flat vector, in the order of `shapes`. Both forward passes go through
the groups of `layers` in their order:

    vector (normalised), images (convolved), extra -> body -> LSTM -> times the quantiles' cosines -> head (and value)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from core.layers import Conv, Dense, Forward, Layer, Lstm, Shapes, conv, dense, encode, lstm, pool, relu
from core.types import FloatArray, Obs, require

NORMALIZED_LIMIT = 5.0
"""normalised observations are clipped to +- this many standard deviations"""
ACTING_QUANTILES = 32
"""a network with cosines acts by its mean over this many evenly spaced quantiles"""


@dataclass(frozen=True)
class NetSpec:
    """A network over observation fields: an encoder for each image, dense layers, perhaps an LSTM, one of some heads.

    Raises ValueError for what cannot be built; `shapes` does for images that are too small for their encoder.
    """

    inputs: dict[str, tuple[int, ...]]
    """field name -> shape of one agent's value, in the order in which they enter. Three dimensions are an image
    (channels, height, width); all other fields are flattened and put side by side: the vector"""
    hidden: tuple[int, ...]
    """width of each dense hidden layer"""
    outputs: int
    activation: Literal["relu", "tanh"] = "relu"
    """after each hidden layer; convolutions always have relu"""
    normalize: bool = True
    """subtract a mean from the vector and multiply it by a scale; both ship with the parameters"""
    layer_norm: bool = False
    """LayerNorm (Ba et al. 2016) between each hidden layer and its activation"""
    conv: Literal["simple", "nature", "impala"] = "nature"
    """each image's encoder: ML-Agents' two convolutions; Mnih et al. 2015; Espeholt et al. 2018, figure 3 right"""
    extra: int = 0
    """numbers that enter the first dense layer beside the encoded observation, not normalised: a critic's action"""
    lstm: int = 0
    """units of an LSTM before the head; an agent's state is (2 * lstm,), h then c. Hidden layers lie before it, except
    the streams of a dueling head"""
    dueling: tuple[int, ...] = ()
    """sizes of the discrete branches: the last hidden layer exists twice, for a value and for advantages, centred in
    each branch (Wang et al. 2016, eq. 9). Outputs are (sum of the branches, atoms), flattened"""
    noisy: bool = False
    """factorised Gaussian noise in the last hidden layer and the output's (Fortunato et al. 2018); with an LSTM, in
    the layers behind it"""
    cosines: int = 0
    """cosines that embed a quantile, multiplied into what enters the last hidden layer (Dabney et al. 2018, eq. 4)"""
    extras: dict[str, int] = field(default_factory=dict)
    """name -> count of further numbers that ship after the network's, for the policy's head"""

    def __post_init__(self) -> None:
        require("outputs", self.outputs, self.outputs >= 1, "at least 1")
        for name in ("extra", "lstm", "cosines"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("hidden", "dueling"):
            require(name, getattr(self, name), all(each >= 1 for each in getattr(self, name)), "sizes of at least 1")
        for name, count in self.extras.items():
            require(f"extras[{name!r}]", count, count >= 1, "at least 1")
        divides = not self.dueling or self.outputs % sum(self.dueling) == 0
        require("outputs", self.outputs, divides, f"a multiple of the sum of the dueling branches {self.dueling}")
        require("cosines", self.cosines, not (self.cosines and self.lstm), "0 in a network with an LSTM")
        require("extra", self.extra, not (self.extra and self.lstm), "0 in a network with an LSTM")
        require("inputs", self.inputs, bool(self.inputs), "at least one observation field")

    @cached_property
    def images(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in self.inputs.items() if len(shape) == 3}

    @cached_property
    def vector(self) -> dict[str, int]:
        """Field name -> how many numbers it gives to the vector."""
        return {name: math.prod(shape) for name, shape in self.inputs.items() if len(shape) != 3}

    @cached_property
    def width(self) -> int:
        """How many numbers the vector has."""
        return sum(self.vector.values())


def layers(spec: NetSpec) -> dict[str, list[Layer]]:
    """The network's layers in groups: an "image0" for each image, "body", "lstm", "cosine", "value" and "head"."""
    result: dict[str, list[Layer]] = {}
    width = spec.width + spec.extra
    for number, (name, shape) in enumerate(spec.images.items()):
        convs = _convs(spec.conv, shape[0])
        result[f"image{number}"] = list(convs)
        width += _features(name, shape, spec.conv)

    def chain(sizes: Iterable[int], noisy: bool = False) -> list[Layer]:
        """Hidden layers on top of what there is so far."""
        nonlocal width
        chained: list[Layer] = []
        for size in sizes:
            chained.append(Dense(width, size, spec.activation, spec.layer_norm, noisy))
            width = size
        return chained

    in_head = 0 if spec.lstm and not spec.dueling else 1
    before, last = spec.hidden[: len(spec.hidden) - in_head], spec.hidden[len(spec.hidden) - in_head :]
    result["body"] = chain(before)
    result["lstm"] = [Lstm(width, spec.lstm)] if spec.lstm else []
    width = spec.lstm or width
    result["cosine"] = [Dense(spec.cosines, width, "relu")] if spec.cosines else []
    streams = chain(last, spec.noisy)
    atoms = spec.outputs // sum(spec.dueling or (spec.outputs,))
    result["value"] = [*streams, Dense(width, atoms, noisy=spec.noisy)] if spec.dueling else []
    result["head"] = [*streams, Dense(width, spec.outputs, noisy=spec.noisy)]
    return result


def _convs(kind: str, channels: int) -> list[Conv]:
    if kind == "simple":
        return [Conv(channels, 16, 8, 4), Conv(16, 32, 4, 2)]
    if kind == "nature":
        return [Conv(channels, 32, 8, 4), Conv(32, 64, 4, 2), Conv(64, 64, 3)]
    result = []
    for width in (16, 32, 32):
        result += [Conv(channels, width, 3, 1, 1), *[Conv(width, width, 3, 1, 1)] * 4]
        channels = width
    return result


SMALLEST = {"simple": 20, "nature": 36, "impala": 1}
"""encoder -> the fewest pixels that it takes in each direction"""


def _features(name: str, shape: tuple[int, ...], kind: Literal["simple", "nature", "impala"]) -> int:
    """How many numbers the encoder makes of this image."""
    channels, *sides = shape
    if min(sides) < SMALLEST[kind]:
        others = " and ".join(f"{other!r} from {least} x {least}" for other, least in SMALLEST.items() if other != kind)
        raise ValueError(
            f"image {name!r} of shape {shape} is too small for the encoder {kind!r}, which takes images from "
            f"{SMALLEST[kind]} x {SMALLEST[kind]}; the other encoders: {others}"
        )
    convs = _convs(kind, channels)
    if kind == "impala":  # padded convolutions keep the size, each pooling halves it, rounding up
        sides = [-(-side // 8) for side in sides]
    else:
        for each in convs:
            sides = [(side - each.kernel) // each.stride + 1 for side in sides]
    return convs[-1].outputs * math.prod(sides)


def shapes(spec: NetSpec) -> Shapes:
    """Name and shape of every parameter array, in the order in which they lie in the flat vector."""
    result: Shapes = {"mean": (spec.width,), "scale": (spec.width,)} if spec.normalize and spec.width else {}
    for group, members in layers(spec).items():
        for number, layer in enumerate(members):
            result |= {f"{group}.{number}.{array}": shape for array, shape in layer.shapes().items()}
    return result | {f"extras.{name}": (count,) for name, count in spec.extras.items()}


def num_parameters(spec: NetSpec) -> int:
    return sum(math.prod(shape) for shape in shapes(spec).values())


def unpack(spec: NetSpec, parameters: FloatArray) -> dict[str, FloatArray]:
    """Views of the flat vector, by their names. Raises ValueError if it has too many numbers or too few."""
    arrays: dict[str, FloatArray] = {}
    start = 0
    for name, shape in shapes(spec).items():
        size = math.prod(shape)
        arrays[name] = parameters[start : start + size].reshape(shape)
        start += size
    if start != parameters.size:
        raise ValueError(f"{parameters.size} parameters for a network of {start}")
    return arrays


def acting_cosines(spec: NetSpec) -> FloatArray:
    """(ACTING_QUANTILES, cosines) what embeds the quantiles that a network acts by."""
    quantiles = (np.arange(ACTING_QUANTILES, dtype=np.float32)[:, None] + 0.5) / ACTING_QUANTILES
    cosines: FloatArray = np.cos(np.pi * np.arange(spec.cosines, dtype=np.float32) * quantiles)
    return cosines


class Net:
    """The forward pass, on parameters that may change in place between calls. Raises ValueError if they are too many
    or too few, and for a critic: what workers act with sees observations only."""

    extras: dict[str, FloatArray]
    """views of the numbers that ship beside the network's"""

    def __init__(self, spec: NetSpec, parameters: FloatArray) -> None:
        require("extra", spec.extra, spec.extra == 0, "0 in a network to act with")
        arrays = unpack(spec, parameters)
        self.extras = {name: arrays[f"extras.{name}"] for name in spec.extras}
        self._spec = spec
        self._vector = tuple(spec.vector.items())
        self._normal = (arrays["mean"], arrays["scale"]) if "mean" in arrays else None
        self._noise: list[FloatArray] = []
        groups: dict[str, list[Forward]] = {}
        for group, members in layers(spec).items():
            groups[group] = []
            for number, layer in enumerate(members):
                own = {array: arrays[f"{group}.{number}.{array}"] for array in layer.shapes()}
                if isinstance(layer, Lstm):
                    self._lstm = lstm(layer, own)
                elif isinstance(layer, Conv):
                    groups[group].append(conv(layer, own))
                else:
                    noise = [np.zeros(size, np.float32) for size in (layer.inputs, layer.outputs) if layer.noisy]
                    self._noise += noise
                    groups[group].append(dense(layer, own, noise))
        self._images = tuple((name, groups[f"image{number}"]) for number, name in enumerate(spec.images))
        self._body, self._cosine, self._value, self._head = (
            groups[group] for group in ("body", "cosine", "value", "head")
        )
        self._cosines = acting_cosines(spec)

    def __call__(self, obs: Obs, state: FloatArray | None = None) -> FloatArray:
        """(n, outputs), before any output transform. `state` (n, 2 * lstm) goes one step on in place."""
        spec = self._spec
        encoded = [obs[name].reshape(len(obs[name]), size) for name, size in self._vector]
        if encoded:
            encoded = [self._normalized(encoded)]
        for name, convs in self._images:
            image = obs[name].astype(np.float32, copy=False)
            if obs[name].dtype == np.uint8:
                image /= 255  # of a copy: the dtype was another
            features: FloatArray = encode(convs, spec.conv == "impala", image, relu, pool)
            encoded.append(features.reshape(len(features), math.prod(features.shape[1:])))
        x: FloatArray = encoded[0] if len(encoded) == 1 else np.concatenate(encoded, axis=1)
        for layer in self._body:
            x = layer(x)
        if spec.lstm:
            assert state is not None
            x = self._lstm(x, state)
        n = len(x)
        for layer in self._cosine:
            x = (x[:, None] * layer(self._cosines)).reshape(n * ACTING_QUANTILES, x.shape[1])
        value = x
        for layer in self._head:
            x = layer(x)
        if spec.dueling:
            for layer in self._value:
                value = layer(value)
            x = self._duel(value, x)
        return x.reshape(n, ACTING_QUANTILES, spec.outputs).mean(axis=1) if spec.cosines else x

    def renoise(self, random: np.random.Generator) -> None:
        """Draw the noise of every noisy layer anew."""
        for noise in self._noise:
            drawn = random.standard_normal(noise.shape, np.float32)
            np.multiply(np.sign(drawn), np.sqrt(np.abs(drawn)), out=noise)

    def quiet(self) -> None:
        """No noise, as at the start."""
        for noise in self._noise:
            noise[:] = 0

    def _normalized(self, fields: list[FloatArray]) -> FloatArray:
        x = fields[0] if len(fields) == 1 else np.concatenate(fields, axis=1)
        x = x.astype(np.float32, copy=False)
        if self._normal is not None:
            mean, scale = self._normal
            x = x - mean
            x *= scale
            np.maximum(x, -NORMALIZED_LIMIT, out=x)
            np.minimum(x, NORMALIZED_LIMIT, out=x)
        return x

    def _duel(self, value: FloatArray, advantages: FloatArray) -> FloatArray:
        """(n, atoms) and (n, outputs) -> (n, outputs)"""
        branches = self._spec.dueling
        q = advantages.reshape(len(advantages), sum(branches), value.shape[1])
        start = 0
        for size in branches:
            branch = q[:, start : start + size]
            branch -= branch.mean(axis=1, keepdims=True)
            start += size
        q += value[:, None]
        return q.reshape(advantages.shape)
