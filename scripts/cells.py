"""A picture in a terminal: half blocks, so that each character cell shows two pixels, one above the other."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style

from core.types import FloatArray
from envproc.env import Picture

_UPPER_HALF = "▀"


def in_cells(picture: Picture, columns: int, rows: int) -> npt.NDArray[np.uint8]:
    """(r, c, 2, 3) the colours of each cell's upper and lower half, as large as fits into so many columns and rows.

    A cell counts as twice as high as it is wide. A pixel is the mean of the area that it covers.
    """
    height, width = picture.shape[:2]
    scale = min(columns / width, 2 * rows / height)
    c, r = max(round(width * scale), 1), max(round(height * scale / 2), 1)
    lines = _means(height, 2 * r) @ picture.reshape(height, width * 3)  # uint8 becomes float32
    pixels = _means(width, c) @ lines.reshape(2 * r, width, 3)
    return np.rint(pixels).astype(np.uint8).reshape(r, 2, c, 3).swapaxes(1, 2)


def draw(cells: npt.NDArray[np.uint8]) -> Segments:
    """For rich to print."""
    segments = []
    for row in cells:
        starts = np.flatnonzero((row[1:] != row[:-1]).any(axis=(1, 2))) + 1
        edges = [0, *starts.tolist(), len(row)]
        for start, end in pairwise(edges):  # cells of one colour are one piece
            segments.append(Segment(_UPPER_HALF * (end - start), _style(row[start].tobytes())))
        segments.append(Segment.line())
    return Segments(segments)


@lru_cache
def _means(size: int, fewer: int) -> FloatArray:
    """(fewer, size) what takes `size` numbers to the means of `fewer` equal parts, which may share a number."""
    edges = np.linspace(0, size, fewer + 1)[:, None]
    numbers = np.arange(size)
    shared = np.minimum(edges[1:], numbers + 1) - np.maximum(edges[:-1], numbers)
    return (shared.clip(0) * (fewer / size)).astype(np.float32)


@lru_cache(2**16)
def _style(halves: bytes) -> Style:
    upper, lower = Color.from_rgb(*halves[:3]), Color.from_rgb(*halves[3:])
    return Style(color=upper, bgcolor=lower)
