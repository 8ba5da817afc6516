"""A picture as PNG, as Unity compresses what its cameras see."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """(height, width, 3) -> the bytes of a file. Source: the PNG specification, sections 5 and 11."""
    height, width, _ = picture.shape
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)  # 0: not filtered
    data = zlib.compress(rows.tobytes(), level=1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
