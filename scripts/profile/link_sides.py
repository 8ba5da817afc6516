"""The two ends of the link that scripts/profile/link.py measures, each a process of its own:

    python -m scripts.profile.link_sides player PORT AGENTS FLOATS
    python -m scripts.profile.link_sides ours|stock PORT AGENTS SECONDS

The player costs nothing: it sends prepared messages and does not look at the answers. The stock side runs in an
interpreter without sharl.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from typing import Any

import numpy as np

BEHAVIOR = "Replay?team=0"
NUM_ACTIONS = 2


def trainer(side: str, port: int, agents: int, seconds: float) -> None:
    """Print the exchanges per second of a loop that does what every trainer does: read, act, step."""
    if side == "ours":
        from envproc.unity.link import Link
        from envproc.unity.rpc import PlayerServer

        env: Any = Link(PlayerServer(port))
    else:
        from mlagents_envs.environment import UnityEnvironment

        env = UnityEnvironment(base_port=port)
    from mlagents_envs.base_env import ActionTuple

    env.reset()
    action = np.zeros((agents, NUM_ACTIONS), np.float32)

    def run(seconds: float) -> float:
        count, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            decisions, ended = env.get_steps(BEHAVIOR)
            assert len(decisions) == agents and not len(ended)
            env.set_actions(BEHAVIOR, ActionTuple(action))
            env.step()
            count += 1
        return count / (time.perf_counter() - begun)

    run(seconds / 6)
    print(run(seconds))
    sys.stdout.flush()
    os._exit(0)  # neither side's end is what is measured


def player(port: int, agents: int, floats: int) -> None:
    """Speak the player's side with messages that were made before."""
    import grpc

    from envproc.unity.messages import EXCHANGE, UnityMessage

    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    exchange = grpc.insecure_channel(f"localhost:{port}", options=unlimited).unary_unary(EXCHANGE)
    hello = UnityMessage()
    hello.header.status = 200
    about = hello.unity_output.rl_initialization_output
    about.communication_version = "1.5.0"
    about.capabilities.baseRLCapabilities = about.capabilities.hybridActions = True
    empty = UnityMessage()
    empty.header.status = 200
    first = _state(agents, floats, seed=0)
    behavior = first.unity_output.rl_initialization_output.brain_parameters.add()
    behavior.brain_name = BEHAVIOR
    behavior.action_spec.num_continuous_actions = NUM_ACTIONS
    states = [_state(agents, floats, seed).SerializeToString() for seed in range(1, 9)]
    for message in (hello, empty, first):
        exchange(message.SerializeToString(), wait_for_ready=True)
    with contextlib.suppress(grpc.RpcError):  # the trainer has measured enough and is gone
        for state in itertools.cycle(states):
            exchange(state)


def _state(agents: int, floats: int, seed: int) -> Any:
    from envproc.unity.messages import UnityMessage

    random = np.random.default_rng(seed)
    message = UnityMessage()
    message.header.status = 200
    for agent in range(agents):
        info = message.unity_output.rl_output.agentInfos[BEHAVIOR].value.add()
        info.id, info.reward = agent, 0.1
        seen = info.observations.add()
        seen.name = f"VectorSensor_size{floats}"
        seen.shape.append(floats)
        seen.dimension_properties.append(1)
        seen.float_data.data.extend(random.standard_normal(floats).tolist())
    return message


if __name__ == "__main__":
    if sys.argv[1] == "player":
        player(*map(int, sys.argv[2:]))
    else:
        trainer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
