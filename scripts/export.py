"""Export: `python -m scripts.export RUN --onnx FILE` writes a run's saved policy as ONNX, plain or for Unity."""

from __future__ import annotations

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import onnx
import tyro

from core.checkpoint import SavedPolicy
from core.onnx_graph import build
from core.onnx_nodes import OPSETS
from core.types import FloatArray, require
from scripts.command_line import UsageError, check_output, read_command_line
from scripts.runs import find_run, kept_policy

_FURTHEST = 1e-3
"""by which an action may be off, as a part of what lies between its bounds: rounding is a thousand times less"""


@dataclass(frozen=True)
class Options:
    """Write a run's saved policy as an ONNX model."""

    run: Annotated[str, tyro.conf.Positional]
    """name of the run, or its directory"""
    onnx: Path
    """the file to write"""
    unity: bool = False
    """with the names, shapes and constants that Unity's ML-Agents looks for"""
    opset: int = OPSETS[0]
    """version of ONNX's operators, from 9 to 21: the older, the more programs can read it"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage."""
    try:
        options = read_command_line(Options, arguments, "python -m scripts.export")
        require("--opset", options.opset, options.opset in OPSETS, f"from {OPSETS[0]} to {OPSETS[-1]}")
        check_output("--onnx", options.onnx)
        saved, parameters = kept_policy(find_run(options.run, options.runs_dir))
        model = build(saved, parameters, unity=options.unity, opset=options.opset)
        checked = _check(model, saved, parameters)
    except (UsageError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        options.onnx.write_bytes(model.SerializeToString())
    except OSError as error:
        print(f"error: --onnx {options.onnx} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{options.onnx}: opset {options.opset}, {options.onnx.stat().st_size / 1000:,.0f} KB")
    for side, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        print(f"{side:9}{', '.join(_told(each) for each in values)}")
    print(f"checked  {checked}")
    return 0


def _check(model: onnx.ModelProto, saved: SavedPolicy, parameters: FloatArray) -> str:
    """What came out. Raises ValueError if the model is not the policy."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "that it is a valid model; to have it compared with the policy: pip install onnxruntime"
    from core.onnx_check import compare  # only here: exporting needs no onnxruntime

    action = saved.env_spec.action
    difference = compare(model, saved, parameters)
    span = max((high - low for low, high in zip(action.low, action.high, strict=True)), default=1.0)
    parts = []
    if action.num_continuous:
        parts.append(f"the largest difference of an action is {difference.action:.1e}")
    if action.branches:
        parts.append(f"{difference.choices} choices differ")
    told = f"{' and '.join(parts)}, over {difference.decisions} random observations"
    # a choice may differ where two are worth the same
    if not difference.action <= _FURTHEST * span or difference.choices > difference.decisions // 50:
        raise ValueError(f"the model is not the policy, and nothing was written: {told}; please report it")
    return f"against the policy: {told}"


def _told(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return f"{value.name} {dtype} ({', '.join(each.dim_param or str(each.dim_value) for each in kind.shape.dim)})"


if __name__ == "__main__":
    run_main(main)
