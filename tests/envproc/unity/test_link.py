"""The link with real players beside the stock UnityEnvironment, and with one made up here that says what it likes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel

from envproc.unity import launch
from envproc.unity.launch import Player, PlayerDied, PlayerHangs, PlayerRefused, find_player
from envproc.unity.link import Link
from envproc.unity.messages import EXCHANGE, UnityMessage
from envproc.unity.rpc import PlayerServer
from tests.envproc.unity.play import PATIENCE, PLAYERS, QUIT, RESET, STEP, Row, heard_at_random, stock

ROOT = Path(__file__).parents[3]


@contextmanager
def linked(scene: str | Path, *flags: str, logs: Path | str = "", **options: Any) -> Iterator[tuple[Any, Player]]:
    """A link and its player; `options` are the link's."""
    with closing(PlayerServer()) as server:
        program = find_player(str(PLAYERS / scene))
        with (
            closing(Player(program, server.port, 0, str(logs), True, flags)) as player,
            closing(Link(server, player, **{"launch_s": PATIENCE, "answer_s": PATIENCE, **options})) as link,
        ):
            yield link, player


def assert_same(ours: list[Row], theirs: list[Row]) -> None:
    plain = [[each._replace(obs=[], mask=None) for each in rows] for rows in (ours, theirs)]
    assert plain[0] == plain[1]
    for mine, stocks in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.mask, stocks.mask)
        for one, other in zip(mine.obs, stocks.obs, strict=True):
            assert one.dtype == other.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("scene", "exchanges", "flags"),
    [
        ("3DBall", 300, ()),
        ("Grid", 120, ()),
        ("Two", 150, ()),
        ("Spawn", 100, ()),
        ("Renew", 100, ()),
        ("Visual", 40, ("--stack-images",)),
        ("Visual", 40, ("--raw-images",)),
    ],
)
def test_it_hears_what_the_stock_environment_hears(scene: str, exchanges: int, flags: tuple[str, ...]) -> None:
    areas = 3 if scene == "3DBall" else 1
    with stock(scene, *flags, seed=-5, num_areas=areas) as env:
        theirs = heard_at_random(env, exchanges)
    with linked(scene, *flags, seed=-5, areas=areas) as (link, _):
        ours = heard_at_random(link, exchanges)
    assert sum(map(len, ours)) > exchanges
    for mine, stocks in zip(ours, theirs, strict=True):
        assert_same(mine, stocks)


# --- players that fail


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With players that will not quit anyway."""
    monkeypatch.setattr(launch, "_GRACE_S", 0.2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("exit-between", PlayerDied, "ended with exit code 3"),
        ("exit@1", PlayerDied, "ended with exit code 3"),
        ("exit@3", PlayerDied, "ended with exit code 3"),
        ("crash@2", PlayerDied, "was killed by SIGABRT"),
        ("status400@2", PlayerDied, "(told us to stop .status 400.|ended with exit code 0)"),
        ("hang@2", PlayerHangs, r"no answer within 0\.6 s \(--unity\.answer-s allows more\) from the player 3DBall"),
    ],
)
def test_a_player_that_fails_is_named_with_its_end_and_its_last_line(
    fault: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    # slower than this the player may be, where it is not to hang
    seconds = 0.6 if fault.startswith("hang") else PATIENCE
    player = linked("3DBall", "--fault", fault, logs=tmp_path, answer_s=seconds)
    with pytest.raises(error) as raised, player as (link, _):
        for _ in range(4):
            link.step()
    assert re.search(said, str(raised.value)), raised.value
    assert "3DBall.x86_64" in str(raised.value)
    assert re.search(rf"its last lines:(.|\n)*fault {fault} was asked for", str(raised.value))


def test_a_player_that_is_killed_between_two_calls_is_named_with_the_signal() -> None:
    with linked("3DBall") as (link, player):
        link.reset()
        os.kill(player.pid, signal.SIGKILL)
        with pytest.raises(PlayerDied, match="was killed by SIGKILL"):
            for _ in range(2):  # one answer may still be taken by the system
                link.step()


@pytest.mark.usefixtures("impatient")
def test_a_player_that_does_not_call_hangs() -> None:
    with (
        pytest.raises(PlayerHangs, match=r"no connection within 0\.3 s .*--unity\.launch-s.* from the player 3DBall"),
        linked("3DBall", "--fault", "slow-start@60", launch_s=0.3),
    ):
        pass


def test_a_program_that_is_no_player_has_died(tmp_path: Path) -> None:
    (tmp_path / "Ball").write_text("#!/bin/sh\necho I am no player\nexit 4\n")
    (tmp_path / "Ball").chmod(0o755)
    with (
        pytest.raises(PlayerDied, match=r"the player Ball ended with exit code 4; its last lines:\nI am no player"),
        linked(tmp_path / "Ball"),
    ):
        pass


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("version", "named"), [("2.0.0", "2.0.0"), ("0.9.0", "0.9.0"), ("", "(none)")])
def test_a_player_of_another_version_is_refused(version: str, named: str) -> None:
    said = f"speaks version {named} of ML-Agents' protocol (package 2.2.1-exp.1)"
    with (
        pytest.raises(PlayerRefused, match=re.escape(said)) as raised,
        linked("3DBall", f"--communication-version={version}"),
    ):
        pass
    assert "\n" not in str(raised.value)


IN_VAIN = """
import envproc.unity.messages
from tests.envproc.unity.test_link import PlayerRefused, linked
try:
    with linked("3DBall", "--communication-version", "2.0.0"):
        pass
except PlayerRefused:
    print("refused")
"""


def test_after_an_attempt_in_vain_the_interpreter_ends_in_silence() -> None:
    """mlagents-envs closes each environment once more at exit."""
    done = subprocess.run(
        [sys.executable, "-c", IN_VAIN], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


def test_messages_above_the_limit_of_grpc_and_numbers_that_are_not_finite_pass(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with linked("3DBall", "--fault", "big@2", "--fault", "nan@3") as (link, _):
        link.reset()
        link.step()
        assert len(link._talk.received) > 5 << 20
        link.step()
        assert np.isnan(link.get_steps("3DBall?team=0")[0].obs[0]).sum() == 1
    told = capfd.readouterr()
    assert "Unknown side channel" not in told.out + told.err


def test_close_lets_the_player_quit_before_the_first_reset_and_after() -> None:
    for resets in (0, 1):
        with linked("3DBall") as (link, player):
            for _ in range(resets):
                link.reset()
        assert player.how_it_ended == "ended with exit code 0"


# --- a player that says what it likes


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
                    self.answers.append(call(message, timeout=PATIENCE))
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
