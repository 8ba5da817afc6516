"""Post: what the roster keeps of one worker, or of the evaluator or the gate, through all its lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Post:
    """One worker's, or the evaluator's."""

    hire: Callable[[], None]
    achieved: Callable[[], int]
    """grows with what it does"""
    alive: Callable[[], int] | None = None
    """grows while it does not hang; None: that cannot be seen"""
    is_up: bool = False
    restarts: int = 0
    barren: int = 0
    """lives in a row in which nothing was achieved"""
    due: float | None = None
    """when its next life may begin; None: it lives"""
    began: float = 0.0
    """its life"""
    had_achieved: int = 0
    """before that"""
    seen: int = -1
    """its last sign of life, ..."""
    seen_at: float = 0.0
    """... and when that came"""
    stalls: bool = False
    killed: tuple[str, str] | None = None
    """what the matter was, and more of it"""
    joined: str = ""
    """who brought it: such a worker came by itself, and nobody starts it again"""
    is_needed: bool = False
    """if it is given up, so is the run"""
