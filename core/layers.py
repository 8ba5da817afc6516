"""The layers of a network: what each holds, and what each does in numpy. algos/nets.py has the same in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided

from core.types import FloatArray

Shapes = dict[str, tuple[int, ...]]
"""Array's name -> its shape, in the order in which they ship."""

Forward = Callable[[FloatArray], FloatArray]

LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Dense:
    """(n, inputs) -> (n, outputs): weights, then LayerNorm, then the activation, as far as they are asked for."""

    inputs: int
    outputs: int
    activation: Literal["relu", "tanh", "none"] = "none"
    norm: bool = False
    noisy: bool = False
    """y = W x + b + e_out * (S (e_in * x) + s): factorised Gaussian noise (Fortunato et al. 2018, eqs. 9 to 11)"""

    def shapes(self) -> Shapes:
        result: Shapes = {"weight": (self.outputs, self.inputs), "bias": (self.outputs,)}
        if self.noisy:
            result |= {"weight_sigma": (self.outputs, self.inputs), "bias_sigma": (self.outputs,)}
        if self.norm:
            result |= {"norm_weight": (self.outputs,), "norm_bias": (self.outputs,)}
        return result


@dataclass(frozen=True)
class Conv:
    """(n, inputs, height, width) -> (n, outputs, fewer, fewer)."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0

    def shapes(self) -> Shapes:
        return {"weight": (self.outputs, self.inputs, self.kernel, self.kernel), "bias": (self.outputs,)}


@dataclass(frozen=True)
class Lstm:
    """(n, inputs) and a state -> (n, units). Packed as torch.nn.LSTM: input, forget, cell and output gate."""

    inputs: int
    units: int

    def shapes(self) -> Shapes:
        gates = 4 * self.units
        return {
            "weight_ih_l0": (gates, self.inputs),
            "weight_hh_l0": (gates, self.units),
            "bias_ih_l0": (gates,),
            "bias_hh_l0": (gates,),
        }


Layer = Dense | Conv | Lstm


def encode(convs: Sequence[Callable[[Any], Any]], residual: bool, x: Any, relu: Any, pool: Any) -> Any:
    """An image's way through its convolutions, for numpy and torch alike.

    residual: threes of convolution, pooling and two blocks around a shortcut (Espeholt et al. 2018, figure 3 right).
    """
    if not residual:
        for conv in convs:
            x = relu(conv(x))
        return x
    for start in range(0, len(convs), 5):
        entry, *blocks = convs[start : start + 5]
        x = pool(entry(x))
        for first, second in (blocks[:2], blocks[2:]):
            x = x + second(relu(first(relu(x))))
    return relu(x)


def dense(layer: Dense, arrays: dict[str, FloatArray], noise: Sequence[FloatArray]) -> Forward:
    """`noise`: e_in and e_out, where the layer is noisy; looked at anew in each call, as are the arrays."""
    weight, bias, activation = arrays["weight"].T, arrays["bias"], layer.activation

    def forward(x: FloatArray) -> FloatArray:
        y: FloatArray = x @ weight
        y += bias
        if noise:
            y += ((x * noise[0]) @ arrays["weight_sigma"].T + arrays["bias_sigma"]) * noise[1]
        if layer.norm:
            y -= y.mean(axis=1, keepdims=True)
            y /= np.sqrt(np.square(y).mean(axis=1, keepdims=True) + np.float32(LAYER_NORM_EPSILON))
            y *= arrays["norm_weight"]
            y += arrays["norm_bias"]
        if activation == "relu":
            np.maximum(y, 0, out=y)
        elif activation == "tanh":
            np.tanh(y, out=y)
        return y

    return forward


def conv(layer: Conv, arrays: dict[str, FloatArray]) -> Forward:
    weight, bias = arrays["weight"].reshape(layer.outputs, -1), arrays["bias"][:, None]
    kernel, stride = layer.kernel, layer.stride

    def forward(x: FloatArray) -> FloatArray:
        x = _padded(x, layer.padding, 0)
        n, channels, height, width = x.shape
        rows, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        a, b, c, d = x.strides
        windows = as_strided(  # one row for each weight of a filter, one column for each place that it looks at
            x, (n, channels, kernel, kernel, rows, columns), (a, b, c, d, c * stride, d * stride), writeable=False
        )
        y: FloatArray = weight @ windows.reshape(n, channels * kernel * kernel, rows * columns)
        y += bias
        return y.reshape(n, layer.outputs, rows, columns)

    return forward


def pool(x: FloatArray) -> FloatArray:
    """The largest of each 3 x 3, every second one, beyond the border nothing."""
    x = _padded(x, 1, -np.inf)
    x = np.maximum(np.maximum(x[:, :, :-2:2], x[:, :, 1:-1:2]), x[:, :, 2::2])
    return np.maximum(np.maximum(x[..., :-2:2], x[..., 1:-1:2]), x[..., 2::2])


def relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0)


def _padded(x: FloatArray, by: int, filling: float) -> FloatArray:
    if not by:
        return x
    n, channels, height, width = x.shape
    result = np.full((n, channels, height + 2 * by, width + 2 * by), filling, np.float32)
    result[:, :, by:-by, by:-by] = x
    return result


def lstm(layer: Lstm, arrays: dict[str, FloatArray]) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """One step; `state` (n, 2 * units), h then c, goes one step on in place."""
    units = layer.units

    def forward(x: FloatArray, state: FloatArray) -> FloatArray:
        h, c = state[:, :units], state[:, units:]
        gates = x @ arrays["weight_ih_l0"].T + arrays["bias_ih_l0"]
        gates += h @ arrays["weight_hh_l0"].T + arrays["bias_hh_l0"]
        entering, kept, cell, shown = (gates[:, i * units : (i + 1) * units] for i in range(4))
        c *= _sigmoid(kept)
        c += _sigmoid(entering) * np.tanh(cell)
        h[:] = _sigmoid(shown) * np.tanh(c)
        return h

    return forward


def _sigmoid(x: FloatArray) -> FloatArray:
    y: FloatArray = np.tanh(x * np.float32(0.5))  # unlike 1 / (1 + e^-x), never overflows
    return y * np.float32(0.5) + np.float32(0.5)
