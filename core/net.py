"""NetSpec: what a network is, as data, and its forward pass in numpy.

The same spec is what torch trains (algos/nets.py), what the workers act with (here, without torch), and what is
shipped. All of a network's numbers lie in one flat vector, in the order of `shapes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from core.types import FloatArray, Obs

NORMALIZED_LIMIT = 5.0
"""normalised observations are clipped to +- this many standard deviations"""


@dataclass(frozen=True)
class NetSpec:
    """A multilayer perceptron over the observation fields, flattened and put side by side."""

    inputs: dict[str, tuple[int, ...]]
    """field name -> shape of one agent's value, in the order in which they enter"""
    hidden: tuple[int, ...]
    """width of each hidden layer"""
    outputs: int
    activation: Literal["relu", "tanh"] = "relu"
    normalize: bool = True
    """subtract a mean and multiply by a scale before the first layer; both ship with the parameters"""

    @property
    def width(self) -> int:
        """How many numbers enter."""
        return sum(math.prod(shape) for shape in self.inputs.values())


def shapes(spec: NetSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter array, in the order in which they lie in the flat vector."""
    sizes = [spec.width, *spec.hidden, spec.outputs]
    result: dict[str, tuple[int, ...]] = {"mean": (spec.width,), "scale": (spec.width,)} if spec.normalize else {}
    for layer, (before, after) in enumerate(pairwise(sizes)):
        result[f"weight{layer}"] = (after, before)
        result[f"bias{layer}"] = (after,)
    return result


def num_parameters(spec: NetSpec) -> int:
    return sum(math.prod(shape) for shape in shapes(spec).values())


class Net:
    """The forward pass, on parameters that may change in place between calls."""

    def __init__(self, spec: NetSpec, parameters: FloatArray) -> None:
        self._spec = spec
        self._arrays: dict[str, FloatArray] = {}
        start = 0
        for name, shape in shapes(spec).items():
            size = math.prod(shape)
            self._arrays[name] = parameters[start : start + size].reshape(shape)
            start += size
        if start != parameters.size:
            raise ValueError(f"{parameters.size} parameters for a network of {start}")

    def __call__(self, obs: Obs) -> FloatArray:
        """(n, outputs), before any output transform."""
        fields = [obs[name].reshape(len(obs[name]), math.prod(shape)) for name, shape in self._spec.inputs.items()]
        x: FloatArray = fields[0] if len(fields) == 1 else np.concatenate(fields, axis=1)
        arrays = self._arrays
        if self._spec.normalize:
            x = (x - arrays["mean"]) * arrays["scale"]
            np.clip(x, -NORMALIZED_LIMIT, NORMALIZED_LIMIT, out=x)
        last = len(self._spec.hidden)
        for layer in range(last + 1):
            x = x @ arrays[f"weight{layer}"].T
            x += arrays[f"bias{layer}"]
            if layer < last:
                x = np.maximum(x, 0, out=x) if self._spec.activation == "relu" else np.tanh(x, out=x)
        return x
