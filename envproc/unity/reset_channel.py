"""The side channel that resets single agents; its other end is unity/Sharl/ResetChannel.cs.

All numbers are int32, little-endian.

    to the player    RESET 1, request, count, count ids     end these agents' episodes, as interrupted
    from it          HERE  2, count, count (index, id)      these agents can be asked; sent whenever they change
                     DONE  3, request, count, count ids that were ended, count, count ids that are unknown
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.side_channel import SideChannel

CHANNEL = uuid.UUID("1549ead9-40a4-4b38-86ca-0ac172678d0a")
RESET, HERE, DONE = 1, 2, 3


class ResetChannel(SideChannel):
    """Our end."""

    def __init__(self) -> None:
        super().__init__(CHANNEL)
        self.here: dict[int, int] = {}
        """wire id -> index of the agents that can be reset; empty where the scene has no such channel"""
        self._requests = 0

    def reset(self, ids: Sequence[int]) -> None:
        """With the next exchange, end the episodes of the agents with these wire ids."""
        self._requests += 1
        message = OutgoingMessage()
        for number in (RESET, self._requests, len(ids), *ids):
            message.write_int32(number)
        self.queue_message_to_send(message)

    def on_message_received(self, msg: IncomingMessage) -> None:
        if msg.read_int32() == HERE:
            count, given = msg.read_int32(), len(msg.get_raw_bytes()) // 8 - 1
            if not 0 <= count <= given:
                raise ValueError(f"HERE on the reset channel names {count} agents, and {given} follow")
            pairs = [(msg.read_int32(), msg.read_int32()) for _ in range(count)]
            self.here = {each: index for index, each in pairs}
        # DONE needs nothing: an agent that was ended is among the ended ones anyway, with what it saw last
