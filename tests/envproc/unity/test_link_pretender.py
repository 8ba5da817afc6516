"""The link with a player that is made up here and says what it likes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel

from envproc.unity.launch import PlayerDied, PlayerHangs
from envproc.unity.link import Link
from envproc.unity.messages import EXCHANGE, UnityMessage
from envproc.unity.rpc import PlayerServer
from tests.envproc.unity.play import PATIENCE, QUIT, RESET, STEP


class Pretender:
    """It calls with these messages one after the other and keeps the answers; without a process, as the Editor."""

    def __init__(self, port: int, messages: Sequence[bytes], then_leaves: bool) -> None:
        self.answers: list[Any] = []
        self._port, self._messages, self._then_leaves = port, messages, then_leaves

    def play(self) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(f"localhost:{self._port}", options=options) as channel:
            call = channel.unary_unary(EXCHANGE, response_deserializer=UnityMessage.FromString)
            for message in self._messages[: -1 if self._then_leaves else None]:
                try:
                    # who plays the Editor may be there before anybody listens
                    is_first = message is self._messages[0]
                    self.answers.append(call(message, timeout=PATIENCE, wait_for_ready=is_first))
                except grpc.RpcError:
                    return  # the link is closed
            if self._then_leaves:
                call.future(self._messages[-1])  # which the end of the channel cancels


@contextmanager
def pretended(*states: bytes, then_leaves: bool = False, **options: Any) -> Iterator[tuple[Any, Pretender]]:
    """A link after the first two calls, to a player that goes on with `states`."""
    with ExitStack() as opened:
        server = opened.enter_context(closing(PlayerServer()))
        player = Pretender(server.port, [hello(), said(), *states], then_leaves)
        playing: Future[None] = opened.enter_context(ThreadPoolExecutor(1)).submit(player.play)
        opened.callback(server.close)  # which ends a call that waits
        link = Link(server, **{"launch_s": PATIENCE, "answer_s": PATIENCE, **options})
        try:
            yield link, player
        finally:
            link.close()
        playing.result(PATIENCE)


def said(**fields: Any) -> bytes:
    """A message of status 200 with these fields of the UnityRLOutputProto."""
    message = UnityMessage()
    message.header.status = 200
    for name, value in fields.items():
        setattr(message.unity_output.rl_output, name, value)
    data: bytes = message.SerializeToString()
    return data


def hello(version: str = "1.5.0", status: int = 200) -> bytes:
    message = UnityMessage()
    message.header.status = status
    message.unity_output.rl_initialization_output.communication_version = version
    message.unity_output.rl_initialization_output.package_version = "2.3.0"
    capabilities = message.unity_output.rl_initialization_output.capabilities
    for field in capabilities.DESCRIPTOR.fields:
        setattr(capabilities, field.name, True)
    data: bytes = message.SerializeToString()
    return data


def state(described: Sequence[str] = (), **agents: Sequence[tuple[int, bool]]) -> bytes:
    """Agents (id, ended) by behaviour, who see one number; `described` says which behaviours are new."""
    message = UnityMessage()
    message.header.status = 200
    output = message.unity_output
    for name, each in agents.items():
        listed = output.rl_output.agentInfos[name].value
        for number, ended in each:
            info = listed.add(id=number, done=ended, reward=0.5)
            obs = info.observations.add(name="sight", shape=[1], dimension_properties=[1])
            obs.float_data.data.append(number)
    for name in described:
        parameters = output.rl_initialization_output.brain_parameters.add(brain_name=name)
        parameters.action_spec.num_continuous_actions = 2
    data: bytes = message.SerializeToString()
    return data


def pack(channel: uuid.UUID, message: bytes) -> bytes:
    return channel.bytes_le + len(message).to_bytes(4, "little") + message


ONE, OTHER = uuid.UUID(int=1), uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")


def test_the_player_is_told_who_asks_what_to_do_and_when_to_stop() -> None:
    first = state(["Ball", "Idle"], Ball=[(4, False), (2, False)], Idle=[(9, True)])
    channel = RawBytesChannel(ONE)
    with pretended(first, state(Ball=[(2, True)]), seed=-7, areas=3, channels=[channel]) as (link, player):
        channel.send_raw_data(b"ready?")
        link.reset()
        link.set_actions("Ball", ActionTuple(np.array([[0.5, -1], [2, -0.0]], np.float32)))
        link.step()
    welcome, reset, step, stop = player.answers
    assert (welcome.header.status, reset.header.status, step.header.status, stop.header.status) == (200, 200, 200, 400)
    started = welcome.unity_input.rl_initialization_input
    assert (started.seed, started.num_areas, started.communication_version) == (-7, 3, "1.5.0")
    assert started.capabilities.compressedChannelMapping and started.capabilities.variableLengthObservation
    assert reset.unity_input.rl_input.command == RESET and not reset.unity_input.rl_input.agent_actions
    assert pack(ONE, b"ready?") in reset.unity_input.rl_input.side_channel
    assert step.unity_input.rl_input.command == STEP and step.unity_input.rl_input.side_channel == b""
    acts = step.unity_input.rl_input.agent_actions
    assert list(acts) == ["Ball"], "of behaviours in which nobody asks nothing is said"
    assert [list(each.continuous_actions) for each in acts["Ball"].value] == [[0.5, -1], [2, 0]]
    assert QUIT not in (reset.unity_input.rl_input.command, step.unity_input.rl_input.command)


def test_a_behaviour_may_turn_up_later_and_one_may_be_silent() -> None:
    states = [state(["Ball"], Ball=[(1, False)]), state(["Late"], Late=[(5, False)]), state(Ball=[(1, True)])]
    with pretended(*states) as (link, _):
        link.reset()
        assert list(link.behavior_specs) == ["Ball"]
        link.step()
        assert list(link.behavior_specs) == ["Ball", "Late"]
        assert [len(each) for each in link.get_steps("Ball")] == [0, 0]
        assert link.get_steps("Late")[0].agent_id.tolist() == [5]
        link.step()
        assert [each.agent_id.tolist() for each in link.get_steps("Ball")] == [[], [1]]


def test_side_channels_that_are_known_are_delivered_in_order_and_others_are_nobodys(
    capfd: pytest.CaptureFixture[str],
) -> None:
    channel = RawBytesChannel(ONE)
    blob = pack(ONE, b"first") + pack(OTHER, b"to nobody") + pack(ONE, b"") + pack(OTHER, b"") + pack(ONE, b"last")
    with pretended(said(side_channel=blob), said(), channels=[channel]) as (link, _):
        link.reset()
        assert channel.get_and_clear_received_messages() == [b"first", b"", b"last"]
        link.step()
        assert channel.get_and_clear_received_messages() == []
    told = capfd.readouterr()
    assert "nknown" not in told.out + told.err


@pytest.mark.parametrize("cut", [1, 16, 19, 20, 24])
def test_side_channels_that_end_within_a_message_are_a_value_error(cut: int) -> None:
    blob = pack(ONE, b"first") + pack(OTHER, b"second")[:cut]
    with (
        pretended(said(side_channel=blob)) as (link, _),
        pytest.raises(ValueError, match=r"side channels.* end within"),
    ):
        link.reset()


def test_what_is_no_message_of_ml_agents_is_a_value_error() -> None:
    with pretended(b"\xff\xff this is no protocol buffer") as (link, _), pytest.raises(ValueError):
        link.reset()


def test_an_observation_of_another_size_is_a_value_error_that_names_it() -> None:
    bad = UnityMessage.FromString(state(Ball=[(1, False), (7, False)]))
    bad.unity_output.rl_output.agentInfos["Ball"].value[1].observations[0].float_data.data.append(3)
    with pretended(state(["Ball"], Ball=[(1, False)]), bad.SerializeToString()) as (link, _):
        link.reset()
        with pytest.raises(ValueError, match="'sight' of agent 7 gave 2 numbers"):
            link.step()


def test_the_editor_that_leaves_or_stops_or_is_silent_is_told_from_a_player() -> None:
    left = pytest.raises(PlayerDied, match="the Editor closed the connection; has its play mode ended")
    with pretended(said(), then_leaves=True) as (link, _), left:
        for _ in range(2):
            link.reset()
    stopped = UnityMessage()
    stopped.header.status = 400
    with pretended(said(), stopped.SerializeToString()) as (link, _):
        link.reset()
        with pytest.raises(PlayerDied, match=r"the Editor told us to stop \(status 400\)"):
            link.step()
    with (
        closing(PlayerServer()) as server,
        pytest.raises(PlayerHangs, match=r"no connection within 0\.1 s .* the Editor"),
    ):
        Link(server, launch_s=0.1)
