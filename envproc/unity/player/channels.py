"""The side channels of the stand-in player, both ways.

They travel as one blob, little-endian: for each message 16 bytes of the channel's UUID (.NET order), the length of the
payload, the payload. A channel that is not known here is ignored, as Unity does; one of them is ML-Agents' analytics.

Our own channel, RESET, is what a Unity project gains with the C# of this repository (unity/); int32 throughout:

    trainer -> player   1, request, count, ids          end these agents' episodes, as interrupted
    player -> trainer   2, count, (index, id) each      who is there; at first and whenever that changes
    player -> trainer   3, request, count, ids, count, ids    done: who ended, and who is not there
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from uuid import UUID

from envproc.unity.player.academy import Academy

ENGINE = UUID("e951342c-4f7e-11ea-b238-784f4387d1f7")
PARAMETERS = UUID("534c891e-810f-11ea-a9d0-822485860400")
STATS = UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520")
RESET = UUID("1549ead9-40a4-4b38-86ca-0ac172678d0a")

log = logging.getLogger("player")


def pack(channel: UUID, payload: bytes) -> bytes:
    return channel.bytes_le + struct.pack("<i", len(payload)) + payload


def unpack(blob: bytes) -> Iterator[tuple[UUID, bytes]]:
    """The messages of a blob."""
    at = 0
    while at < len(blob):
        (length,) = struct.unpack_from("<i", blob, at + 16)
        yield UUID(bytes_le=blob[at : at + 16]), blob[at + 20 : at + 20 + length]
        at += 20 + length


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def string(text: str) -> bytes:
    return struct.pack("<i", len(text)) + text.encode("ascii")


class Channels:
    """What arrives is applied to the academy; what the academy has to say is packed."""

    def __init__(self, academy: Academy, with_reset: bool) -> None:
        self._academy = academy
        self._with_reset = with_reset
        self._here: list[tuple[int, int]] = []  # (index, wire id), as last told
        self._done = b""

    def receive(self, blob: bytes) -> None:
        """Apply a blob, message by message."""
        for channel, payload in unpack(blob):
            if channel == ENGINE:
                # Time scale, resolution and such: there is no picture here, and time passes as fast as it can.
                log.info("engine configuration %d", *struct.unpack_from("<i", payload))
            elif channel == PARAMETERS:
                self._set(payload)
            elif channel == RESET and self._with_reset:
                self._reset(payload)

    def send(self) -> bytes:
        """All that is to go with the next exchange."""
        blob = b""
        if self._with_reset:
            here = sorted(
                pair
                for each in self._academy.agents
                for pair in zip((each.first + each.alive).tolist(), each.id[each.alive].tolist(), strict=True)
            )
            if here != self._here:
                blob += pack(RESET, ints(2, len(here), *(number for pair in here for number in pair)))
                self._here = here
            blob += self._done
            self._done = b""
        for each in self._academy.agents:
            for name, value, aggregation in each.stats:
                blob += pack(STATS, string(name) + struct.pack("<fi", value, aggregation))
            each.stats.clear()
        return blob

    def _set(self, payload: bytes) -> None:
        (length,) = struct.unpack_from("<i", payload)
        name = payload[4 : 4 + length].decode("ascii")
        kind, value = struct.unpack_from("<if", payload, 4 + length)
        if kind != 0:
            log.warning("environment parameter %s is a sampler, which the stand-in does not know; ignored", name)
            return
        log.info("environment parameter %s = %g", name, value)
        for each in self._academy.agents:
            each.behaviour.parameter(name, value)

    def _reset(self, payload: bytes) -> None:
        words = struct.unpack(f"<{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
        if len(words) < 3 or words[0] != 1 or words[2] != len(words) - 3:
            log.warning("reset channel: ignored %s, which is not 1, request, count and as many ids", words)
            return
        _, request, _, *ids = words
        # who has not been told of is not known, nor is who has gone since
        ended = self._academy.interrupt([each for _, each in self._here if each in ids])
        told, unknown = [each for each in ids if each in ended], [each for each in ids if each not in ended]
        self._done += pack(RESET, ints(3, request, len(told), *told, len(unknown), *unknown))
