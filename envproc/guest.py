"""A guest: one collector, as the gate sees it: its workers' lanes, and the weights that it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Any

from core.link import BEAT_S, PIECE_BYTES, Beat, Go, Parameters, ToCollector, Told, pack
from core.weights import Follower
from envproc.porter import Porter

_WEIGHTS_EVERY_S = 0.05
"""at most, where rows are replayed: who acts with a policy that is a little older does no harm"""
_QUIET_S = 1.0
"""who has not been heard for so long is not told more and more"""

Post = Callable[[list[Any]], bool | None]
"""sends; False if it does not fit now, None if nobody is there"""


class Guest:
    """From its Join to its Bye."""

    def __init__(self, identity: bytes, who: str, ordered: bool) -> None:
        """`ordered`: its rows are read in order, so nobody goes on with an older policy than the run's."""
        self.identity, self.who = identity, who
        self.heard_at = time.monotonic()
        self.was_welcome = False
        self.porters: dict[int, Porter] = {}
        """by lane"""
        self.is_in_order = True
        """nobody of them was lost so far"""
        self._ordered = ordered
        self._former: set[int] = set()
        self._beat_at = self._weights_at = 0.0
        self._version = self._got = 0
        self._update = 0
        self._data, self._offset = b"", 0  # of the version that is on its way

    @property
    def waits(self) -> bool:
        """One of its workers may not go on."""
        return any(porter.waits for porter in self.porters.values())

    def let_in(self, porters: list[Porter]) -> None:
        """These lanes are its own from now on."""
        self.was_welcome = True
        self.porters = {porter.lane: porter for porter in porters}

    def porter(self, lane: int) -> Porter | None:
        """Of this lane; None if the worker's time there is over. Raises ValueError if it was never its own."""
        if lane in self._former:
            return None
        if lane not in self.porters:
            raise ValueError(f"lane {lane} is not its own")
        return None if self.porters[lane].is_over else self.porters[lane]

    def release(self) -> list[Porter]:
        """Those whose time is over."""
        over = [porter for porter in self.porters.values() if porter.is_over]
        for porter in over:
            self.is_in_order &= porter.has_left
            del self.porters[porter.lane]
            self._former.add(porter.lane)
        return over

    def got(self, version: int) -> None:
        """These weights have arrived. Raises ValueError if they were not sent."""
        if version != self._version or self._offset < len(self._data):
            raise ValueError(f"version {version} of the weights has not been sent")
        self._got = version

    def goes(self) -> list[Go]:
        """How far its workers may go, as far as that is news."""
        return [go for porter in self.porters.values() if (go := porter.go())]

    def tell(self, goes: list[Go], ready: Container[object], follower: Follower, newest: int, post: Post) -> bool:
        """Send all that is due. False if it is gone, or does not read any more.

        `ready`: sockets at which something has come in; `newest`: version of the weights.
        """

        def send(message: ToCollector, *data: bytes) -> bool | None:
            return post([self.identity, *pack(message, *data)])

        now = time.monotonic()
        for porter in self.porters.values():
            for command in porter.commands(ready):
                if not send(Told(porter.lane, command)):
                    return False
        if self.was_welcome:
            self._send_weights(follower, now, send)
        is_newest = self._version == newest and self._offset == len(self._data)
        if now - self.heard_at < _QUIET_S and (is_newest or not self._ordered):
            for go in goes:
                if send(go):
                    self.porters[go.lane].told(go)
        if now - self._beat_at >= BEAT_S:
            self._beat_at = now
            return send(Beat()) is not None
        return True

    def _send_weights(self, follower: Follower, now: float, send: Callable[..., bool | None]) -> None:
        """One version at a time, in pieces, as fast as they are taken."""
        is_due = self._ordered or now >= self._weights_at
        if follower.version != self._version == self._got and is_due:
            self._weights_at = now + _WEIGHTS_EVERY_S
            self._version, self._update = follower.version, follower.update
            self._data, self._offset = follower.parameters.tobytes(), 0
        while self._offset < len(self._data):
            piece = self._data[self._offset : self._offset + PIECE_BYTES]
            if not send(Parameters(self._version, self._update, self._offset), piece):
                return
            self._offset += len(piece)
