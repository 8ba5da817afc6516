"""The real UnityEnvironment of mlagents-envs over a link of our own.

What it means to talk to a player is mlagents-envs': the order of the calls, the specs of behaviours, side channels.
Replaced are its three slow or unsafe parts: the server (loopback only, no thread, no pickle, no limit of 4 MiB, a dead
player is noticed at once), the way from a message to arrays, and the way from actions to a message. And a step has two
halves, so that somebody who has several links waits for none while another one's answer is there.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from envproc.unity.messages import OK, QUIT, LeanMessage, UnityMessage  # first: mlagents_envs imports what it builds

# isort: split
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.communicator import Communicator
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.side_channel import SideChannel

from core.ring import Word
from core.stopwatch import Stopwatch
from envproc.env import EnvFailed
from envproc.unity.arrays import read_steps, step_message
from envproc.unity.launch import Player, PlayerDied, PlayerHangs, PlayerRefused
from envproc.unity.rpc import Disconnected, PlayerServer

_AT_LAUNCH = "does it need --unity.no-graphics or more --unity.launch-s, or is its Behavior Type not Default?"
_LAST_BREATH_S = 2.0
"""within which a process whose connection is gone has ended, if it is going to, on a machine with much else to do"""


class BadMessage(EnvFailed, ValueError):
    """A message that does not fit the behaviour's spec, a side channel, or ML-Agents' protocol."""


class Link(UnityEnvironment):
    """A UnityEnvironment; all that BaseEnv of mlagents-envs promises holds. Observations are read-only arrays.

    Its calls raise PlayerDied, PlayerHangs or BadMessage, each with the player's last words. Numbers that are not
    finite pass: who uses them looks at them.
    """

    def __init__(
        self,
        server: PlayerServer,
        player: Player | None = None,
        *,
        seed: int = 0,
        areas: int = 1,
        channels: Sequence[SideChannel] = (),
        launch_s: float = 60.0,
        answer_s: float = 60.0,
    ) -> None:
        """Wait up to `launch_s` for the player to call `server`; without `player`, for one that somebody else starts.

        From then on it has `answer_s` for each answer. Raises PlayerRefused if it speaks another protocol.
        """
        self._talk = Talk(server, player, launch_s, answer_s)
        self._channels = {each.channel_id.bytes_le: each for each in channels}
        try:
            super().__init__(base_port=server.port, seed=seed, num_areas=areas, side_channels=list(channels))
        finally:
            atexit.unregister(self._close)  # it would keep every link until the interpreter exits

    def _get_communicator(self, *_: object) -> Talk:
        return self._talk

    def _update_behavior_specs(self, output: Any) -> None:
        if output.rl_initialization_output.brain_parameters:  # rare; made for full messages
            super()._update_behavior_specs(UnityMessage.FromString(self._talk.received).unity_output)

    def _update_state(self, output: Any) -> None:
        try:
            self._read(output)
        except (ValueError, struct.error) as error:  # the latter from the side channels of mlagents-envs
            raise self._talk.bad_message(error) from error

    def time_by(self, stopwatch: Stopwatch) -> None:
        """From now on it laps Word.DECODE_NS when something was sent, and Word.EXCHANGE_NS when an answer is there."""
        self._talk.stopwatch = stopwatch

    def step(self) -> None:
        """Let the player go on, and wait for what comes of it."""
        if self._is_first_message:
            self.reset()
        else:
            self.send()
            self.receive()

    def send(self) -> None:
        """The first half of step(): the player goes on, with the actions that were set."""
        for name, spec in self._env_specs.items():
            if name not in self._env_actions:
                self._env_actions[name] = spec.action_spec.empty_action(len(self._env_state[name][0]))
        self._talk.send(self._generate_step_input(self._env_actions))
        self._env_actions.clear()

    def receive(self) -> None:
        """The second half: what came of it."""
        output = self._talk.receive()
        self._update_behavior_specs(output)
        self._update_state(output.rl_output)

    def close(self) -> None:
        """Tell the player to quit. A second time it does nothing."""
        if self._loaded:
            super().close()

    def _read(self, output: Any) -> None:
        for name, spec in self._env_specs.items():
            self._env_state[name] = read_steps(output.agentInfos[name].value, spec)
        for channel_id, message in _split(output.side_channel):
            if channel_id in self._channels:  # the others are for somebody else; mlagents-envs would log each
                self._channels[channel_id].on_message_received(IncomingMessage(message))

    def _generate_step_input(self, vector_action: dict[str, ActionTuple]) -> bytes:
        return step_message(vector_action, bytes(self._side_channel_manager.generate_side_channel_messages()))


class Talk(Communicator):
    """One player's calls, in the words of UnityEnvironment's communicator. It keeps the time itself."""

    def __init__(self, server: PlayerServer, player: Player | None, launch_s: float, answer_s: float) -> None:
        super().__init__()
        self.received = b""
        """the last message, as it came"""
        self.stopwatch = Stopwatch(np.zeros(Word.WORDS, np.int64))  # until somebody wants to know
        self._server, self._player = server, player
        self._launch_s, self._answer_s = launch_s, answer_s

    def initialize(self, inputs: Any, poll_callback: object = None) -> Any:
        """Answer the first call; return what it said, when the second has come."""
        output = self._receive(self._launch_s, "connection", _AT_LAUNCH)
        theirs = output.rl_initialization_output
        ours = UnityEnvironment.API_VERSION
        is_known = re.fullmatch(rf"{ours.partition('.')[0]}(\.\d+){{1,2}}", theirs.communication_version)
        if not (is_known and theirs.capabilities.hybridActions):  # older packages read actions from another field
            raise PlayerRefused(
                f"the player speaks version {theirs.communication_version or '(none)'} of ML-Agents' protocol "
                f"(package {theirs.package_version or 'unknown'}), mlagents-envs "
                f"{importlib.metadata.version('mlagents-envs')} speaks {ours}; rebuild it with com.unity.ml-agents 2.0 "
                f"or later"
            )
        self._reply(_wrap(inputs))
        self._receive(self._launch_s, "second call", _AT_LAUNCH)
        return output

    def exchange(self, inputs: Any, poll_callback: object = None) -> Any:
        """Answer the call that waits with `inputs`; return what the next one says."""
        self.send(_wrap(inputs))
        return self.receive()

    def send(self, message: bytes) -> None:
        """Answer the call that waits."""
        self._reply(message)
        self.stopwatch.lap(Word.DECODE_NS)

    def receive(self) -> Any:
        """What the next call says."""
        return self._receive(self._answer_s, "answer", "--unity.answer-s allows more")

    def close(self) -> None:
        """Tell the player to quit, if it listens."""
        message = UnityMessage()
        message.header.status = QUIT
        if self._server.called:
            with contextlib.suppress(Disconnected, TimeoutError):  # it has gone by itself
                self._server.reply(message.SerializeToString(), 1.0, lambda: None)
        self._server.close()

    def _receive(self, within_s: float, what: str, hint: str) -> Any:
        try:
            self.received = self._server.receive(within_s, self._watch)
        except TimeoutError:
            who = f"the player {self._player.name}; {self._player.last_words()}" if self._player else "the Editor"
            raise PlayerHangs(f"no {what} within {within_s:g} s ({hint}) from {who}") from None
        except Disconnected:
            raise PlayerDied(self._end("closed the connection")) from None
        self.stopwatch.lap(Word.EXCHANGE_NS)
        try:
            message = LeanMessage.FromString(self.received)
        except DecodeError as error:
            raise self.bad_message(error) from error
        if message.header.status != OK:
            raise PlayerDied(self._end(f"told us to stop (status {message.header.status})"))
        return message.unity_output

    def bad_message(self, error: Exception) -> BadMessage:
        words = f"; {self._player.last_words()}" if self._player else ""
        return BadMessage(f"a message of the player cannot be read: {error}{words}")

    def _reply(self, message: bytes) -> None:
        try:
            self._server.reply(message, self._answer_s, self._watch)
        except TimeoutError:
            raise PlayerHangs(self._end(f"took no message within {self._answer_s:g} s")) from None
        except Disconnected:
            raise PlayerDied(self._end("closed the connection")) from None

    def _watch(self) -> None:
        """Raises PlayerDied if the player's process has ended."""
        if self._player is not None and self._player.ended:
            raise PlayerDied(self._end(""))

    def _end(self, seen: str) -> str:
        """How it ended: what was `seen` on the connection, or better, what became of the process."""
        if self._player is None:
            return f"the Editor {seen}; has its play mode ended?"
        self._player.wait(_LAST_BREATH_S)
        return f"the player {self._player.name} {self._player.how_it_ended or seen}; {self._player.last_words()}"


def _split(blob: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(channel's id, message) of each side channel message; ValueError for a blob that ends within one."""
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at + 16 : at + 20], "little")
        message = blob[at + 20 : at + 20 + size]
        if len(message) < size or at + 20 > len(blob):
            raise ValueError(f"side channels' {len(blob)} bytes end within a message of {size}")
        yield blob[at : at + 16], message
        at += 20 + size


def _wrap(inputs: Any) -> bytes:
    message = UnityMessage()
    message.header.status = OK
    message.unity_input.CopyFrom(inputs)
    return message.SerializeToString()  # type: ignore[no-any-return]
