"""Updates that are recorded once and repeated, against the same updates done as ever.

The recorder here does on the CPU what a CUDA graph does: it repeats each operation with the tensors and the Python
numbers of the moment when it was recorded, and refuses whatever would wait for the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from algos import ALGORITHMS
from algos.dense import own_spare_arrays
from core.gather import as_batch
from core.types import Batch, Rows
from tests.algos import continuous_rows, discrete_rows, recurrent_rows

T = TypeVar("T")
_WAITS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero)


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What was asked of torch while it was entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._asked: list[tuple[bool, Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert func.overloadpacket not in _WAITS, f"{func} waits for the device"
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        self._asked.append((torch.is_inference_mode_enabled(), func, args, kwargs, results))
        return results

    def again(self) -> None:
        for mode, func, args, kwargs, results in self._asked:
            with torch.inference_mode(mode), torch._C._AutoDispatchBelowAutograd():
                for then, now in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(then, Tensor) and then.data_ptr() != now.data_ptr():
                        then.copy_(now)


class Recorder:
    """In place of a CUDA stream."""

    def __init__(self) -> None:
        self.num_recorded = 0

    def warm_up(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], object], T]:
        tape, done = Tape(), [True]  # here, to record is to do
        with own_spare_arrays(), tape:
            results = work()
        self.num_recorded += 1

        def again() -> None:
            if done:
                done.clear()
            else:
                tape.again()

        return again, results


class Place:
    """A batch whose memory is filled again and again, as a sampler's on a device."""

    def __init__(self, rows: Rows, device: str = "cpu") -> None:
        self._memory = torch.zeros(len(rows), rows.itemsize, dtype=torch.uint8, device=device)
        self._weight = torch.zeros(len(rows), device=device)
        self.batch = as_batch(self._memory, rows.dtype, self._weight, {})

    def fill(self, rows: Rows, weight: Tensor, agent_steps: int) -> Batch:
        self._memory.copy_(torch.from_numpy(rows.view("u1").reshape(len(rows), -1)))
        self._weight.copy_(weight)
        self.batch.agent_steps = agent_steps
        return self.batch


CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in sorted(set(ALGORITHMS) - {"ppo", "vtrace", "r2d2"})),
    ("ddpg", {"max_grad_norm": 0.5, "layer_norm": True}),
    ("td3", {"policy_delay": 3}),
    ("sac", {"temperature": 0.2}),
    ("dqn", {"munchausen": True, "target_every": 4, "normalize": True}),
    ("iqn", {"noisy": True, "max_grad_norm": 0.5}),
    ("r2d2", dataclasses.asdict(recurrent_rows.SMALL) | {"normalize": True}),
    ("r2d2", dataclasses.asdict(recurrent_rows.SMALL) | {"normalize": False, "burn_in": 0}),
]


def make(name: str, options: dict[str, Any], device: str = "cpu") -> Any:
    """As on another device, but for where its numbers are."""
    torch.manual_seed(0)
    specs = {"ddpg": continuous_rows.SPEC, "td3": continuous_rows.SPEC, "sac": continuous_rows.SPEC}
    spec = recurrent_rows.SPEC if name == "r2d2" else specs.get(name, discrete_rows.SPEC)
    algorithm: Any = ALGORITHMS[name].build(spec, ALGORITHMS[name].config(**options), device)
    for each in algorithm.optimizers:
        each._is_cpu = False
    return algorithm


def rows_for(algorithm: Any, seed: int) -> Rows:
    if algorithm.recording.length:
        return recurrent_rows.rows(algorithm.config, seed)
    if algorithm.policy_spec.head in ("tanh", "squashed"):
        return continuous_rows.rows(32, seed)
    return discrete_rows.rows(32, seed, algorithm.recording)


def update(algorithm: Any, number: int, place: Place | None) -> list[Tensor]:
    """The update of this number, and all that came of it."""
    rows = rows_for(algorithm, number)
    if number == 9:
        rows["reward"] = np.nan
    weight = continuous_rows.weights(len(rows), number)
    torch.manual_seed(number)
    place = place or Place(rows, str(algorithm.policy_parameters().device))
    learned = algorithm.update(place.fill(rows, weight, 10 * number))
    assert learned.td_error is not None
    skipped = [torch.tensor(each.skipped()) for each in algorithm.optimizers]
    return [
        each.clone() for each in (algorithm.policy_parameters(), learned.td_error, *learned.metrics.values())
    ] + skipped


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_what_is_recorded_does_what_it_does_as_ever_also_with_another_config_and_what_is_not_finite(
    name: str, options: dict[str, Any]
) -> None:
    one, other = make(name, options), make(name, options)
    one.graphs.recorder = recorder = Recorder()
    place, parts = Place(rows_for(one, 0)), 2 if name == "td3" else 1
    for number in range(36):
        if number == 18:
            for each in (one, other):
                each.config = dataclasses.replace(each.config, tau=0.3, max_grad_norm=0.1)
        for its, expected in zip(update(one, number, place), update(other, number, None), strict=True):
            torch.testing.assert_close(its, expected, rtol=0, atol=0, equal_nan=True)
        if number == 17:
            assert recorder.num_recorded == parts
    assert sum(each.skipped().total for each in one.optimizers) > 0
    assert recorder.num_recorded == 2 * parts


def test_what_lies_elsewhere_at_each_update_is_never_recorded() -> None:
    one, other = make("td3", {}), make("td3", {})
    one.graphs.recorder = recorder = Recorder()
    for number in range(8):
        for its, expected in zip(update(one, number, None), update(other, number, None), strict=True):
            torch.testing.assert_close(its, expected, rtol=0, atol=0, equal_nan=True)
    assert recorder.num_recorded == 0


def test_while_learning_rates_fall_nothing_is_recorded() -> None:
    algorithm = make("ddpg", {"lr_steps": 1000})
    algorithm.graphs.recorder = recorder = Recorder()
    place = Place(rows_for(algorithm, 0))
    for number in range(8):
        update(algorithm, number, place)
    assert recorder.num_recorded == 0
