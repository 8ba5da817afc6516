"""Weights that arrive in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.link import Parameters
from core.types import FloatArray


class Arriving:
    """One version at a time, its pieces in order."""

    def __init__(self, size: int) -> None:
        """`size`: parameters."""
        self._parameters: FloatArray = np.zeros(size, np.float32)
        self._bytes = self._parameters.view(np.uint8)
        self._version = self._filled = 0

    def take(self, piece: Parameters, data: list[Any]) -> FloatArray | None:
        """(P,) of that version, if it is complete; valid until the next call. Raises ValueError for a piece that is not
        the next one."""
        (part,) = data
        if piece.offset == 0:
            self._version, self._filled = piece.version, 0
        end = self._filled + len(part)
        if (piece.version, piece.offset) != (self._version, self._filled) or end > len(self._bytes):
            raise ValueError(f"bytes {piece.offset} to {end} of version {piece.version} of the weights")
        self._bytes[piece.offset : end] = np.frombuffer(part, np.uint8)
        self._filled = end
        return self._parameters if end == len(self._bytes) else None
