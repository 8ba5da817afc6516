"""The link to a Unity player: ours, and, with --stock, ML-Agents' own.

The real UnityEnvironment on both sides, each in a process of its own, beside a player that costs nothing; both are
measured in turns. `--stock PYTHON`: an interpreter that has mlagents-envs as pip installs it, with protobuf 3.20.3.
Then, with the stand-in player: how soon a single agent's reset is answered, and a player's death noticed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from statistics import median
from typing import Any

from core import control
from core.acting import PolicySpec
from core.control import Answer, Begin, Ready, Reset, Server
from core.net import NetSpec, num_parameters
from core.ring import FOREVER, Ring
from core.supervisor import Supervisor
from core.types import Recording
from core.weights import Weights
from envproc import EnvConfig
from envproc.unity.launch import Player, PlayerDied, find_player
from envproc.unity.link import Link
from envproc.unity.rpc import PlayerServer
from envproc.worker import WorkerConfig
from scripts.profile.another import command_of
from scripts.profile.measure import in_rounds, ratio
from scripts.profile.report import ROOT, Report, option_parser, read_options

SIZES = ((12, 8), (64, 200))
"""agents, floats of each"""
ROUNDS, SECONDS = 3, 3.0
PLAYER = f"{ROOT}/unity/players/3DBall"


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = option_parser("link", __doc__)
    parser.add_argument("--stock", metavar="PYTHON", help="an interpreter that has mlagents-envs and protobuf 3.20.3")
    options = read_options(parser, arguments)
    rounds, seconds, count = (1, 0.1, 2) if options.quick else (ROUNDS, SECONDS, 100)
    report = Report("link", options.json)
    table = report.table("Exchanges a second", 24, "ours", "stock", "times", "agent steps/s, ours", "stock's")
    pythons = {"ours": sys.executable} | ({"stock": options.stock} if options.stock else {})
    for agents, floats in SIZES:
        sides = {side: partial(_measure, side, python, agents, floats, seconds) for side, python in pythons.items()}
        rates = in_rounds(sides, rounds)
        ours, stock = median(rates["ours"]), median(rates["stock"]) if options.stock else None
        times = ratio(rates["ours"], rates["stock"]) if options.stock else None
        table.row(f"{agents} agents x {floats} floats", ours, stock, times, ours * agents, stock and stock * agents)
    table = report.table("The stand-in player, ms", 44, "median", "most", "times")
    answers = _resets(count)
    table.row("a reset of agent 3 of 12 is answered after", median(answers), max(answers), len(answers))
    noticed = [_death(between_calls) for between_calls in (False, True) for _ in range(max(count // 10, 1))]
    table.row("a player killed by SIGKILL is noticed after", median(noticed), max(noticed), len(noticed))
    report.write()
    return 0


def _death(between_calls: bool) -> float:
    """Milliseconds from the SIGKILL of a player to PlayerDied, in a run or between its first two calls."""
    with contextlib.closing(PlayerServer()) as server:
        player = Player(find_player(PLAYER), server.port, 0, "", no_graphics=False, args=())
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

    def await_report(kind: type[control.Report]) -> control.Report:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for report in server.receive():
                if isinstance(report, kind):
                    return report
            time.sleep(0.0002)
        raise RuntimeError(f"no {kind.__name__} from the worker within 30 s")

    with contextlib.ExitStack() as opened:
        server, supervisor = opened.enter_context(Server()), opened.enter_context(Supervisor())
        env = EnvConfig(f"unity:{PLAYER}")
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


def _measure(side: str, python: str, agents: int, floats: int, seconds: float) -> float:
    """Exchanges per second of one side."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = "scripts.profile.link_sides"
    command = command_of(python, module, side, *map(str, (port, agents, seconds)))
    player = subprocess.Popen(command_of(sys.executable, module, "player", *map(str, (port, agents, floats))), cwd=ROOT)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + 10 * seconds)
    finally:
        player.kill()
        player.wait(10)
    if done.returncode:
        raise RuntimeError(f"the {side} side failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])
