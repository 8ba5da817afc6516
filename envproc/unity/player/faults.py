"""What can go wrong with a player, on demand: `--fault KIND@N`.

The exchanges are counted from 1, the first that carries a state; calls 1 and 2 of the protocol come before.

    crash@N       SIGABRT instead of exchange N          slow-start@S  S seconds pass before call 1
    exit@N        exit code 3 instead of exchange N      exit-between  exit code 3 between calls 1 and 2
    hang@N        never send exchange N, never end       ignore-quit   never end when told to quit
    status400@N   send "I stop" instead of exchange N    nan@N         NaN in exchange N's first observation
    slow-step@S   S seconds pass before each exchange, as if a frame took so long on a core of the player's own
    big@N         5 MiB more in exchange N, in a message for a side channel that nobody has; 4 MiB are allowed
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

import numpy as np

from envproc.unity.player.channels import pack

NOBODYS_CHANNEL = UUID("00000000-0000-0000-0000-00000000b16b")
EXIT_CODE = 3
_COUNTED = ("crash", "exit", "hang", "status400", "nan", "big")
_TIMED = ("slow-start", "slow-step")
_PLAIN = ("exit-between", "ignore-quit")

log = logging.getLogger("player")


class Quit(Exception):
    """The trainer is gone or wants the player to end; also the end of the one who says so itself."""


@dataclass(frozen=True)
class Fault:
    kind: str
    at: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """ValueError unless it is one of those above."""
        kind, _, at = text.partition("@")
        if kind in _PLAIN and not at:
            return cls(kind)
        if (kind in _COUNTED and at.isdecimal() and int(at) > 0) or (kind in _TIMED and _is_seconds(at)):
            return cls(kind, float(at))
        raise ValueError(
            f"no fault {text!r}; there are {', '.join(f'{each}@N' for each in _COUNTED)} with N from 1, "
            f"{', '.join(f'{each}@SECONDS' for each in _TIMED)}, {', '.join(_PLAIN)}"
        )

    def __str__(self) -> str:
        return self.kind if self.kind in _PLAIN else f"{self.kind}@{self.at:g}"


def _is_seconds(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


class Faults:
    """Those that were asked for; nothing happens at any other time."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults

    def before_call_1(self) -> None:
        for fault in self._faults:
            if fault.kind == "slow-start":
                time.sleep(fault.at)

    def between_calls_1_and_2(self) -> None:
        for fault in self._faults:
            if fault.kind == "exit-between":
                _exit(fault)

    def at_exchange(self, number: int, message: Any) -> None:
        """Happens before exchange `number`, a UnityMessageProto with its infos in, is sent."""
        for fault in self._faults:
            if fault.kind == "slow-step":
                time.sleep(fault.at)
                continue
            if fault.at != number:
                continue
            if fault.kind == "crash":
                log.critical("Fatal: fault %s was asked for", fault)
                os.abort()
            elif fault.kind == "exit":
                _exit(fault)
            elif fault.kind == "hang":
                log.warning("fault %s was asked for: hanging", fault)
                _hang()
            elif fault.kind == "status400":
                log.warning("fault %s was asked for: telling the trainer that the player stops", fault)
                message.Clear()
                message.header.status = 400
            elif fault.kind == "nan":
                log.warning("fault %s was asked for", fault)
                _spoil(message)
            elif fault.kind == "big":
                log.warning("fault %s was asked for", fault)
                message.unity_output.rl_output.side_channel += pack(NOBODYS_CHANNEL, bytes(5 << 20))

    def at_quit(self) -> None:
        for fault in self._faults:
            if fault.kind == "ignore-quit":
                log.warning("fault %s was asked for: staying", fault)
                _hang()


def _exit(fault: Fault) -> NoReturn:
    log.critical("Fatal: fault %s was asked for, exit code %d", fault, EXIT_CODE)
    sys.exit(EXIT_CODE)


def _hang() -> NoReturn:
    while True:  # no limit: that is the fault
        time.sleep(3600)


def _spoil(message: Any) -> None:
    """NaN in place of the first number of the first observation that has numbers."""
    for infos in message.unity_output.rl_output.agentInfos.values():
        for info in infos.value:
            for obs in info.observations:
                if obs.float_data.data:
                    obs.float_data.data = np.float32(np.nan).tobytes() + obs.float_data.data[4:]
                    return
