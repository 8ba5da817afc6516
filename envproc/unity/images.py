"""Images on the wire: PNGs in a row, three channels each, mapped onto the channels of the observation."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.types import FloatArray

_SIGNATURE = 8
_CHUNK_FRAME = 12  # length, type and checksum around a chunk's data


def decode(data: bytes, channels: int, mapping: Sequence[int]) -> FloatArray:
    """(height, width, channels), each in [0, 1]. Raises ValueError for what is no such image.

    `mapping` says for each channel of the PNGs to which of the observation it goes: equal ones are averaged, -1 is
    dropped. Without one, the first `channels` are taken, or the average of three for a single one.
    """
    if not data:
        raise ValueError("no image")
    pixels = np.concatenate([_pixels(each) for each in _split(data)], axis=2)
    image: FloatArray
    if not mapping:
        image = pixels[..., :channels] if channels > 1 else pixels[..., :3].mean(axis=2, keepdims=True)
    elif len(mapping) != pixels.shape[2] or set(mapping) - {-1} != set(range(channels)):
        raise ValueError(f"PNGs of {pixels.shape[2]} channels and a mapping {list(mapping)} for {channels} channels")
    else:
        image = np.stack([pixels[..., np.equal(mapping, to)].mean(axis=2) for to in range(channels)], axis=2)
    return image / np.float32(255)


def _pixels(png: bytes) -> npt.NDArray[Any]:
    try:
        pixels = np.asarray(Image.open(io.BytesIO(png)), np.float32)
    except Image.DecompressionBombError as error:  # no ValueError
        raise ValueError(str(error)) from error
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _split(data: bytes) -> Iterator[bytes]:
    """Each PNG in `data`: a signature, then chunks up to the one called IEND."""
    start = at = 0
    while start < len(data):
        at += _SIGNATURE
        kind = b""
        while kind != b"IEND":
            kind = data[at + 4 : at + 8]
            if len(kind) < 4:
                raise ValueError(f"an image of {len(data)} bytes that ends within a PNG")
            at += int.from_bytes(data[at : at + 4], "big") + _CHUNK_FRAME
        yield data[start:at]
        start = at
