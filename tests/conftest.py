"""What a run changes in its process, a test gives back: many tests run one in their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

from scripts.entry import ASK_TO_END

# several test processes at a time, one to a core: with more threads than cores they spin, waiting for each other
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Signals, threads, how small a number may be."""
    handlers = {number: signal.getsignal(number) for number in ASK_TO_END}
    threads = torch.get_num_threads()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
