"""CUDA graphs: what an update asks of the device is recorded once, and then asked for in one call.

An update of small networks is some hundred kernels of a few microseconds each, and starting one from Python takes as
long as running it. A graph repeats what was recorded, with the addresses and the Python numbers of that moment. So the
part of an update that `run` is given must

- take what it needs from its arguments and from tensors that stay where they are, and change those in place;
- look at no number of the device, and count nothing in Python;
- do the same each time: what is done only now and then is a part of its own.

It is recorded anew whenever an argument is another object than before: a batch in another place, a changed config.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from algos.config import Networks
from algos.dense import own_spare_arrays
from core.group import joined

T = TypeVar("T")
_WARM_UP = 3
"""calls before it is recorded: libraries set themselves up in the first ones"""


class Recorder(Protocol):
    """What records on a device."""

    def warm_up(self) -> contextlib.AbstractContextManager[None]:
        """In it, what will be recorded is done as ever."""

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], object], T]:
        """What does it again, and where its results are then. It was not done yet."""


class Graphs:
    """Those of one algorithm; on a device without them the parts of an update are simply called."""

    def __init__(self, device: str) -> None:
        self.recorder: Recorder | None = _Cuda(device) if torch.device(device).type == "cuda" else None
        """None: nothing is recorded"""
        self._known: dict[str, _Part] = {}

    def run(self, part: Callable[..., T], config: Networks, *arguments: Any) -> T:
        """`part(config, *arguments)`. Its results are valid until the next call."""
        # rates that fall are Python's numbers; what other learners send is not recorded
        if self.recorder is None or config.lr_steps or joined() is not None:
            return part(config, *arguments)
        known = self._known.get(part.__name__)
        if known is None or any(one is not other for one, other in zip(known.arguments, arguments, strict=True)):
            known = self._known[part.__name__] = _Part(arguments)
        if known.config is not config:
            known.config, known.again = config, None
        if known.again is None:
            if known.calls < _WARM_UP:
                known.calls += 1
                with self.recorder.warm_up():
                    return part(config, *arguments)
            known.again, known.results = self.recorder.record(lambda: part(config, *arguments))
        known.again()
        results: T = known.results
        return results


@dataclass
class _Part:
    """One part of the updates."""

    arguments: tuple[Any, ...]
    config: Networks | None = None
    calls: int = 0
    """as ever"""
    again: Callable[[], object] | None = None
    results: Any = None


class _Cuda:
    """On a stream of its own, as recording demands; whatever comes before or after is on the current one."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def warm_up(self) -> Iterator[None]:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], object], T]:
        graph = torch.cuda.CUDAGraph()
        # other threads may use the device meanwhile
        recording = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
        with own_spare_arrays(), recording:
            results = work()
        return graph.replay, results
