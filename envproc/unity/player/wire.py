"""The player's side of the ML-Agents protocol: a gRPC client that plays a scene for a trainer.

    1    who I am                      ->  who you are, the seed, the number of areas
    2    nothing                       ->  RESET, at the trainer's first reset; what its side channels say
    3..  what the agents see, and at   ->  STEP and the actions, or RESET
         first what they can do

One call at a time, without a deadline: while the trainer is silent, no time passes here. A header whose status is not
200, an RPC that fails, or QUIT ends the player, with exit code 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from envproc.unity.messages import EXCHANGE, OK, LeanActions, LeanMessage
from envproc.unity.player.academy import Academy, Agents, Array, Behaviour, Infos, Reply, Sensor
from envproc.unity.player.channels import Channels
from envproc.unity.player.faults import Faults, Quit
from envproc.unity.player.png import png

Scene = Callable[[int, int], Sequence[Behaviour]]
"""A scene of its own for each (seed, number of areas)"""

_CAPABILITIES = (
    "baseRLCapabilities",
    "concatenatedPngObservations",
    "compressedChannelMapping",
    "hybridActions",
    "trainingAnalytics",
    "variableLengthObservation",
    "multiAgentGroups",
)
_STEP, _RESET, _QUIT = 0, 1, 2

log = logging.getLogger("player")


@dataclass(frozen=True)
class Build:
    """What a player says about itself."""

    communication_version: str = "1.5.0"
    package_version: str = "2.2.1-exp.1"
    reset_channel: bool = True
    """whether it was built with the C# of this repository"""
    faults: Faults = field(default_factory=lambda: Faults(()))


def play(scene: Scene, port: int, build: Build) -> None:
    """Play until the trainer ends it."""
    # any size of message, as in Unity; and no proxy between two processes of one machine
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"localhost:{port}", options=[*unlimited, ("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(
            EXCHANGE, request_serializer=LeanMessage.SerializeToString, response_deserializer=LeanMessage.FromString
        )
        try:
            _Player(call, scene, build).play()
        except Quit as quit:
            log.info("quit: %s", quit)
            build.faults.at_quit()


class _Player:
    def __init__(self, call: Callable[[Any], Any], scene: Scene, build: Build) -> None:
        self._call = call
        self._scene = scene
        self._faults = build.faults
        self._build = build
        self._described: set[str] = set()
        self._exchanges = 0

    def play(self) -> None:
        """Calls 1 and 2, then the Academy for ever. Raises Quit."""
        self._faults.before_call_1()
        trainer = self._send(self._introduction()).rl_initialization_input
        log.info(
            "connected: mlagents-envs %s, seed %d, %d areas", trainer.package_version, trainer.seed, trainer.num_areas
        )
        self._faults.between_calls_1_and_2()
        # numpy's seeds have no sign; an older trainer does not know of areas
        academy = Academy(self._scene(trainer.seed & 0xFFFFFFFF, max(trainer.num_areas, 1)))
        self._agents = {each.key: each for each in academy.agents}
        self._channels = Channels(academy, self._build.reset_channel)
        # The command in this answer is RESET and means nothing more: the first Academy step resets everybody anyway.
        self._channels.receive(self._send(_ok()).rl_input.side_channel)
        while True:  # no limit: Quit ends it
            academy.step(self._exchange)

    def _introduction(self) -> Any:
        message = _ok()
        myself = message.unity_output.rl_initialization_output
        myself.name = "AcademySingleton"
        myself.communication_version = self._build.communication_version
        myself.package_version = self._build.package_version
        for capability in _CAPABILITIES:
            setattr(myself.capabilities, capability, True)
        return message

    def _exchange(self, told: Mapping[str, Sequence[Infos]]) -> Reply:
        message = _ok()
        output = message.unity_output.rl_output
        for key, batches in told.items():
            infos = output.agentInfos[key].value  # there with nothing to tell, too
            for batch in batches:
                _write(infos, batch, self._agents[key].behaviour.sensors)
            if batches and key not in self._described:
                self._described.add(key)
                _describe(message.unity_output.rl_initialization_output.brain_parameters.add(), self._agents[key])
        output.side_channel = self._channels.send()
        self._exchanges += 1
        self._faults.at_exchange(self._exchanges, message)

        answer = self._send(message).rl_input
        self._channels.receive(answer.side_channel)
        if answer.command == _QUIT:
            raise Quit("the trainer sent QUIT")
        if answer.command == _RESET:
            log.info("reset at exchange %d", self._exchanges)
            return Reply(reset=True, actions={})
        return Reply(False, {key: self._read(key, given) for key, given in answer.agent_actions.items()})

    def _read(self, key: str, actions: bytes) -> tuple[Array, Array]:
        given = LeanActions.FromString(actions).value
        behaviour, num = self._agents[key].behaviour, len(given)
        continuous = np.frombuffer(b"".join(each.continuous_actions for each in given), "<f4")
        discrete = np.array([each.discrete_actions for each in given], np.int64)
        return continuous.reshape(num, behaviour.continuous), discrete.reshape(num, len(behaviour.branches))

    def _send(self, message: Any) -> Any:
        """The UnityInputProto of the answer."""
        try:
            answer = self._call(message)
        except grpc.RpcError as error:
            raise Quit(f"the connection ended: {error.code().name}, {error.details()}") from error
        if message.header.status != OK or answer.header.status != OK:
            raise Quit(f"status {message.header.status} sent, {answer.header.status} received")
        return answer.unity_input


def _ok() -> Any:
    message = LeanMessage()
    message.header.status = OK
    return message


def _describe(parameters: Any, agents: Agents) -> None:
    """BrainParametersProto: what these can do. What they see is described by their first infos."""
    parameters.brain_name = agents.key
    parameters.is_training = True
    actions = parameters.action_spec
    actions.num_continuous_actions = agents.behaviour.continuous
    actions.num_discrete_actions = len(agents.behaviour.branches)
    actions.discrete_branch_sizes.extend(agents.behaviour.branches)


def _write(infos: Any, batch: Infos, sensors: Sequence[Sensor]) -> None:
    """Append a batch as AgentInfoProtos."""
    sights = [
        each.astype(np.uint8 if sensor.png else "<f4", copy=False)
        for sensor, each in zip(sensors, batch.obs, strict=True)
    ]
    for row, agent in enumerate(batch.id.tolist()):
        info = infos.add(id=agent, reward=batch.reward[row], done=batch.done, max_step_reached=batch.interrupted)
        info.group_id, info.group_reward = batch.group[row], batch.group_reward[row]
        if batch.mask is not None:
            info.action_mask = batch.mask[row].tobytes()
        for sensor, sight in zip(sensors, sights, strict=True):
            obs = info.observations.add(
                name=sensor.name,
                shape=sensor.shape,
                dimension_properties=sensor.properties,
                observation_type=int(sensor.goal),
            )
            if sensor.png:
                obs.compression_type = 1
                obs.compressed_channel_mapping.extend(range(sight.shape[-1]))
                obs.compressed_data = b"".join(png(sight[row, ..., at : at + 3]) for at in range(0, sight.shape[-1], 3))
            else:
                obs.float_data.data = sight[row].tobytes()
