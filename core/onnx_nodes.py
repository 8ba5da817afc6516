"""ONNX nodes, written so that a graph reads like the arithmetic that it stands for.

What a node looks like depends on the opset. Most of those used here are the same in all of OPSETS; what differs is told
apart here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSETS = range(9, 22)
"""from the one that ML-Agents exports"""
BATCH = "batch"
"""the first axis of inputs and outputs, as long as it happens to be"""


class Nodes:
    """A graph that grows; `model` takes of it what the outputs need."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: list[onnx.TensorProto] = []

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Value:
        """(batch, *shape) numbers from outside."""
        self._inputs.append(_info(name, (BATCH, *shape), dtype))
        return Value(self, name)

    def constant(self, numbers: npt.ArrayLike, dtype: str = "float32") -> Value:
        name = f"constant/{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(numbers, dtype), name))
        return Value(self, name)

    def output(self, name: str, value: Value, shape: Sequence[int | str], dtype: str = "float32") -> None:
        """Show `value`, of this shape and dtype, outside."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(_info(name, shape, dtype))

    def call(self, op: str, *values: Value, **attributes: Any) -> Value:
        """What one node says."""
        name = f"{op}/{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, [each.name for each in values], [name], **attributes))
        return Value(self, name)

    def side_by_side(self, values: Sequence[Value]) -> Value:
        """(n, a), (n, b), ... -> (n, a + b + ...)"""
        return values[0] if len(values) == 1 else self.call("Concat", *values, axis=1)

    def model(self) -> onnx.ModelProto:
        """Checked, without what no output needs."""
        needed = {info.name for info in self._outputs}
        nodes = []
        for node in reversed(self._nodes):  # whoever needs a node stands behind it
            if node.output[0] in needed:
                needed.update(node.input)
                nodes.append(node)
        graph = helper.make_graph(
            nodes[::-1],
            "policy",
            [info for info in self._inputs if info.name in needed],
            self._outputs,
            [numbers for numbers in self._constants if numbers.name in needed],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        version = helper.find_min_ir_version_for(opsets)  # Unity's importers are older than today's onnx
        model = helper.make_model(graph, producer_name="sharl", opset_imports=opsets, ir_version=version)
        onnx.checker.check_model(model, full_check=True)
        return model


class Value:
    """What is computed in a graph. Operators and methods add a node each and return what it says."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self.nodes, self.name = nodes, name

    def __add__(self, other: Operand) -> Value:
        return self.nodes.call("Add", self, self._operand(other))

    def __sub__(self, other: Operand) -> Value:
        return self.nodes.call("Sub", self, self._operand(other))

    def __rsub__(self, other: float) -> Value:
        return self.nodes.call("Sub", self._operand(other), self)

    def __mul__(self, other: Operand) -> Value:
        return self.nodes.call("Mul", self, self._operand(other))

    def __truediv__(self, other: Operand) -> Value:
        return self.nodes.call("Div", self, self._operand(other))

    def __matmul__(self, other: Operand) -> Value:
        return self.nodes.call("MatMul", self, self._operand(other))

    def at_least(self, other: Operand) -> Value:
        return self.nodes.call("Max", self, self._operand(other))

    def clip(self, low: float, high: float) -> Value:
        return self.nodes.call("Min", self.at_least(low), self._operand(high))  # unlike Clip the same in all opsets

    def apply(self, op: str) -> Value:
        """A function of each number: "Tanh", "Relu", "Exp", ..."""
        return self.nodes.call(op, self)

    def cast(self, dtype: str) -> Value:
        return self.nodes.call("Cast", self, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def flat(self) -> Value:
        """(n, ...) -> (n, all of them)"""
        return self.nodes.call("Flatten", self, axis=1)

    def reshape(self, *shape: int) -> Value:
        return self.nodes.call("Reshape", self, self.nodes.constant(shape, "int64"))

    def columns(self, start: int, stop: int) -> Value:
        """Of axis 1."""
        if self.nodes.opset < 10:
            return self.nodes.call("Slice", self, axes=[1], starts=[start], ends=[stop])
        return self.nodes.call("Slice", self, *(self.nodes.constant([each], "int64") for each in (start, stop, 1)))

    def mean(self) -> Value:
        """Over axis 1, which stays as one."""
        return self._reduced("ReduceMean")

    def max(self) -> Value:
        """Over axis 1, which stays as one."""
        return self._reduced("ReduceMax")

    def softmax(self) -> Value:
        """(n, k) -> (n, k)"""
        return self.nodes.call("Softmax", self, axis=1)

    def argmax(self) -> Value:
        """(n, k) -> (n, 1) int64, the first one of several largest"""
        return self.nodes.call("ArgMax", self, axis=1, keepdims=1)

    def drawn(self) -> Value:
        """(n, k) logits -> (n, 1) int64, one of the k by its probability"""
        return self.nodes.call("Multinomial", self, dtype=onnx.TensorProto.INT64, sample_size=1)

    def noise(self) -> Value:
        """Standard normal numbers, as many as there are here."""
        return self.nodes.call("RandomNormalLike", self)

    def _reduced(self, op: str) -> Value:
        if self.nodes.opset < 18:
            return self.nodes.call(op, self, axes=[1], keepdims=1)
        return self.nodes.call(op, self, self.nodes.constant([1], "int64"), keepdims=1)

    def _operand(self, other: Operand) -> Value:
        return other if isinstance(other, Value) else self.nodes.constant(other)


Operand = Value | npt.NDArray[Any] | float


def _info(name: str, shape: Sequence[int | str], dtype: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
