"""A digest of what has been learned: equal if, and only if, every bit is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import torch


def digest(state: Any, leave_out: Collection[str] = ()) -> str:
    """SHA-256 over every tensor of an algorithm's state, in order, but for entries of these names."""
    sha = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            sha.update(value.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                if key not in leave_out:
                    add(value[key])

    add(state)
    return sha.hexdigest()
