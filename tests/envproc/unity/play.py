"""Two trainers for the stand-in player, a process of its own: the stock one, and one that works message by message."""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import mlagents_envs
import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.environment import UnityEnvironment

from envproc.unity.messages import EXCHANGE, UnityMessage
from tests.process.runs import free_port

PLAYERS = Path(__file__).parents[3] / "unity" / "players"
PATIENCE = 20  # seconds
STEP, RESET, QUIT = 0, 1, 2
Queue = queue.Queue[Any]
CHANNELS_LAST = mlagents_envs.__version__.startswith("0.")
"""how this version of mlagents-envs wants images: as package 2 sends them. Later ones want them as package 3 does"""
PACKAGE = () if CHANNELS_LAST else ("--package-version", "3.0.0")


@contextmanager
def stock(scene: str, *flags: str, **options: Any) -> Iterator[Any]:
    """UnityEnvironment with the player of that scene; `options` are its own."""
    options = {"base_port": free_port(), "no_graphics": True, "timeout_wait": PATIENCE, **options}
    env = UnityEnvironment(str(PLAYERS / scene), additional_args=[*PACKAGE, *flags], **options)
    try:
        yield env
    finally:
        env.close()


class Row(NamedTuple):
    """What the trainer heard of one agent in one exchange."""

    key: str
    id: int
    obs: list[npt.NDArray[np.float32]]
    reward: float
    done: bool = False
    interrupted: bool = False
    mask: npt.NDArray[np.bool_] | None = None
    """of a decision: True, forbidden; flattened over the branches"""
    group: tuple[int, float] = (0, 0.0)
    """group id and reward"""


def rows(env: Any) -> list[Row]:
    """Of the last exchange: the ends, then the decisions."""
    heard = []
    for key in env.behavior_specs:
        decisions, ends = env.get_steps(key)
        for end in (ends[agent] for agent in ends.agent_id):
            group = (int(end.group_id), float(end.group_reward))
            heard.append(
                Row(key, int(end.agent_id), end.obs, float(end.reward), True, bool(end.interrupted), None, group)
            )
        for each in (decisions[agent] for agent in decisions.agent_id):
            mask = None if each.action_mask is None else np.concatenate(each.action_mask)
            group = (int(each.group_id), float(each.group_reward))
            heard.append(Row(key, int(each.agent_id), each.obs, float(each.reward), mask=mask, group=group))
    return heard


def act_at_random(env: Any, random: np.random.Generator) -> None:
    for key, spec in env.behavior_specs.items():
        num, actions = len(env.get_steps(key)[0]), spec.action_spec
        continuous = random.uniform(-1, 1, (num, actions.continuous_size)).astype(np.float32)
        discrete = random.integers(0, actions.discrete_branches or 1, (num, actions.discrete_size), dtype=np.int32)
        if num:
            env.set_actions(key, ActionTuple(continuous, discrete))


def heard_at_random(env: Any, exchanges: int) -> list[list[Row]]:
    """Reset, then as many exchanges under random actions; the rows of each."""
    random = np.random.default_rng(0)
    env.reset()
    heard = [rows(env)]
    while len(heard) < exchanges:
        act_at_random(env, random)
        env.step()
        heard.append(rows(env))
    return heard


class Bare:
    """The other end of the wire and nothing else: every message is seen as it came, and answered as one likes."""

    def __init__(self, process: subprocess.Popen[bytes], server: Any, calls: Queue, answers: Queue) -> None:
        self.process = process
        self.server = server
        self._calls, self._answers = calls, answers

    def call(self, patience: float = PATIENCE) -> Any:
        """The player's next call, as it came."""
        try:
            return self._calls.get(timeout=patience)
        except queue.Empty:
            raise TimeoutError(f"no call within {patience} s") from None

    def answer(self, **rl_input: Any) -> None:
        """Fields of the UnityRLInputProto."""
        message = UnityMessage()
        message.header.status = 200
        message.unity_input.rl_input.SetInParent()
        for field, value in rl_input.items():
            setattr(message.unity_input.rl_input, field, value)
        self._answers.put(message)

    def welcome(self, seed: int = 0, areas: int = 1) -> None:
        message = UnityMessage()
        message.header.status = 200
        message.unity_input.rl_initialization_input.seed = seed
        message.unity_input.rl_initialization_input.num_areas = areas
        self._answers.put(message)

    def stop(self) -> None:
        message = UnityMessage()
        message.header.status = 400
        self._answers.put(message)

    def begin(self) -> Any:
        """Calls 1 and 2; returns the first state."""
        self.call()
        self.welcome()
        self.call()
        self.answer(command=RESET)
        return self.call()


@contextmanager
def bare(scene: str, *flags: str) -> Iterator[Bare]:
    calls: Queue = queue.Queue()
    answers: Queue = queue.Queue()

    def exchange(message: Any, context: Any) -> Any:
        calls.put(message)
        return answers.get(timeout=PATIENCE)

    handler = grpc.unary_unary_rpc_method_handler(
        exchange, request_deserializer=UnityMessage.FromString, response_serializer=UnityMessage.SerializeToString
    )
    service, _, method = EXCHANGE.strip("/").partition("/")
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("localhost:0")
    server.start()
    process = subprocess.Popen([f"{PLAYERS / scene}.x86_64", "--mlagents-port", str(port), *flags])
    trainer = Bare(process, server, calls, answers)
    try:
        yield trainer
    finally:
        trainer.stop()  # whichever call still waits, or else the end of the server, ends the player
        server.stop(0.1).wait()
        process.kill()
        process.wait()


def side_channel(blob: bytes) -> Sequence[tuple[bytes, bytes]]:
    """(channel, payload) of each message, read as the stock trainer does."""
    messages, at = [], 0
    while at < len(blob):
        length = int.from_bytes(blob[at + 16 : at + 20], "little")
        messages.append((blob[at : at + 16], blob[at + 20 : at + 20 + length]))
        at += 20 + length
    return messages
