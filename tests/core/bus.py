"""The way to a GPU, where there is none: torch's "meta" device, and events that tell of memory filled too early."""

from __future__ import annotations

import pytest
import torch

from core.gather import Outbox

META = torch.device("meta")


class Bus:
    """In place of torch.cuda.Event: what is on its way from one outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox, self._holds = outbox, b""
        self.num_sent = 0

    def record(self, stream: object) -> None:
        assert not self._holds, "sent again before it was asked whether it had left"
        self._holds = self._outbox.memory.numpy().tobytes()
        self.num_sent += 1

    def synchronize(self) -> None:
        assert self._holds in (b"", self._outbox.memory.numpy().tobytes()), "filled before it had left"
        self._holds = b""


def take_the_bus(*outboxes: Outbox, monkeypatch: pytest.MonkeyPatch) -> list[Bus]:
    """From now on they send as if to a GPU."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    buses = [Bus(each) for each in outboxes]
    for outbox, bus in zip(outboxes, buses, strict=True):
        outbox._left = bus  # type: ignore[assignment]
    return buses
