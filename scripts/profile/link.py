"""The Unity link beside the stock one: `python -m scripts.bench_link STOCK_PYTHON`, where that interpreter has
mlagents-envs as pip installs it, with protobuf 3.20.3 (`make bench` sees to both).

The real UnityEnvironment on both sides, each in a process of its own, against a player that costs nothing: it sends
prepared messages and does not look at the answers. Both sides are measured in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from statistics import median
from typing import Any

import numpy as np

SIZES = ((12, 8), (64, 200))  # agents, floats of each
ROUNDS = 3
SECONDS = 3.0
BEHAVIOR = "Replay?team=0"
NUM_ACTIONS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stock_python", help="interpreter that has mlagents-envs and protobuf 3.20.3")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for agents, floats in SIZES:
        rates: dict[str, list[float]] = {"ours": [], "stock": []}
        for _, side in itertools.product(range(ROUNDS), rates):
            python = sys.executable if side == "ours" else options.stock_python
            rates[side].append(_measure(side, python, agents, floats))
        ours, stock = median(rates["ours"]), median(rates["stock"])
        if options.json:
            print(json.dumps({"agents": agents, "floats": floats, **rates}))
        print(
            f"{agents} agents x {floats} floats: {ours:,.0f} exchanges/s ({ours * agents:,.0f} agent steps/s), "
            f"stock {stock:,.0f} ({stock * agents:,.0f}): {ours / stock:.1f} times"
        )
    answers = _resets(100)
    print(
        f"Reset of agent 3 of 12 in the stand-in player, {len(answers)} times: answered after "
        f"{median(answers):.1f} ms, at most {max(answers):.1f} ms"
    )
    noticed = [_death(between_calls) for between_calls in (False, True) for _ in range(10)]
    print(f"a player killed by SIGKILL, {len(noticed)} times: noticed after at most {max(noticed):.0f} ms")


def _death(between_calls: bool) -> float:
    """Milliseconds from the SIGKILL of a player to PlayerDied, in a run or between its first two calls."""
    from envproc.unity.launch import Player, PlayerDied, find_player
    from envproc.unity.link import Link
    from envproc.unity.rpc import PlayerServer

    with contextlib.closing(PlayerServer()) as server:
        player = Player(find_player("unity/players/3DBall"), server.port, 0, "", no_graphics=False, args=())
        killed = [0.0]

        def kill() -> None:
            killed[0] = time.perf_counter()
            os.kill(player.pid, signal.SIGKILL)

        with contextlib.closing(player), contextlib.suppress(PlayerDied):
            if between_calls:
                reply = server.reply

                def reply_and_kill(*arguments: Any) -> None:
                    kill()
                    reply(*arguments)

                server.reply = reply_and_kill  # type: ignore[method-assign, assignment]
            link = Link(server, player)
            link.reset()
            kill()
            while True:  # no limit: PlayerDied ends it, and the link has one for each answer
                link.step()
        return (time.perf_counter() - killed[0]) * 1000


def _resets(count: int) -> list[float]:
    """Milliseconds from the request on the control channel to its answer, of a worker at full speed."""
    from core.acting import PolicySpec
    from core.control import Answer, Begin, Ready, Report, Reset, Server
    from core.net import NetSpec, num_parameters
    from core.ring import FOREVER, Ring
    from core.supervisor import Supervisor
    from core.types import Recording
    from core.weights import Weights
    from envproc import EnvConfig
    from envproc.worker import WorkerConfig

    def await_report(kind: type[Report]) -> Report:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for report in server.receive():
                if isinstance(report, kind):
                    return report
            time.sleep(0.0002)
        raise SystemExit(f"no {kind.__name__} from the worker within 30 s")

    with contextlib.ExitStack() as opened:
        server, supervisor = opened.enter_context(Server()), opened.enter_context(Supervisor())
        env = EnvConfig("unity:unity/players/3DBall")
        supervisor.start("worker-0", "envproc.worker", WorkerConfig("worker-0", env, 1, server.address, lane=0))
        ready = await_report(Ready)
        assert isinstance(ready, Ready)
        net = NetSpec({name: field.shape for name, field in ready.spec.obs.items()}, (64, 64), 2)
        ring = opened.enter_context(Ring.create(ready.spec, Recording(), 1, 100_000))
        weights = opened.enter_context(Weights.create(num_parameters(net)))
        ring.allow(FOREVER)
        server.send("worker-0", Begin(ring.address, weights.address, PolicySpec(net, "tanh")))
        taken = []
        for request in range(count):
            time.sleep(0.02)
            begun = time.perf_counter()
            server.send("worker-0", Reset(request, [3]))
            answer = await_report(Answer)
            assert isinstance(answer, Answer) and answer.done, answer
            taken.append((time.perf_counter() - begun) * 1000)
        ring.stop()
    return taken


def _measure(side: str, python: str, agents: int, floats: int) -> float:
    """Exchanges per second of one side."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sizes = [str(each) for each in (port, agents, floats)]
    player = subprocess.Popen([sys.executable, __file__, "player", *sizes])
    try:
        command = [python, "-W", "ignore", __file__, side, *sizes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 10 * SECONDS)
    finally:
        player.kill()
        player.wait(10)
    if done.returncode:
        raise SystemExit(f"the {side} side failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def trainer(side: str, port: int, agents: int) -> None:
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

    run(0.5)
    print(run(SECONDS))
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
    if sys.argv[1:2] == ["player"]:
        player(*map(int, sys.argv[2:]))
    elif sys.argv[1:2] in (["ours"], ["stock"]):
        trainer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
