"""What a worker does besides acting and appending, and its birth; each beside the plainest thing that does its work,
where there is one. Medians, in microseconds; what stands on one line was measured in turns."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np

from algos.ddpg import DDPG, Config
from core import atomic, atomic_numba
from core.acting import Decision
from core.control import Begin, Ready, Server
from core.net import num_parameters
from core.ring import FOREVER, Ring, Word
from core.supervisor import Supervisor
from core.types import Action, FloatArray, Recording
from core.weights import Follower, Weights
from envproc import EnvConfig
from envproc.accumulator import Accumulator
from envproc.ball3d import Ball3D
from envproc.worker import WorkerConfig
from scripts.profile.measure import in_rounds, times
from scripts.profile.report import Report, option_parser, read_options

_BIRTH_S = 30
"""most that a worker may take to its first row"""


class Line(NamedTuple):
    what: str
    work: Callable[[], object]
    beside: str = ""
    plain: Callable[[], object] | None = None


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    options = read_options(option_parser("worker", __doc__), arguments)
    rounds, seconds = (1, 0.02) if options.quick else (5, 1.2)
    report = Report("worker", options.json)
    table = report.table("What a worker does, us", 64, "it takes", "beside", "times")

    def show(what: str, us: float, beside: str, beside_us: float | None) -> None:
        what += f" (beside: {beside})" if beside else ""
        table.row(what, us, beside_us, us / beside_us if beside_us else None)

    algorithm = DDPG(Ball3D().spec, Config())
    parameters = algorithm.policy_parameters().numpy()
    with Weights.create(len(parameters)) as weights:
        for line in (*_words(), _publish(weights, parameters), *_world()):
            us = times({"": line.work} | ({"beside": line.plain} if line.plain else {}), seconds)
            show(line.what, us[""], line.beside, us.get("beside"))
    sides = {"": lambda: _birth(algorithm), "beside": _python}
    born = {side: median(each) * 1e6 for side, each in in_rounds(sides, rounds).items()}
    show("from its start to its first row", born[""], "python -c 'import numpy'", born["beside"])
    report.write()
    return 0


def _words() -> list[Line]:
    words, place = np.zeros(Word.WORDS, np.int64), int(Word.PUBLISHED)

    def plain() -> None:
        words[place] = words.item(place)

    def work(load: Callable[..., int], store: Callable[..., None]) -> None:
        store(words, place, load(words, place))

    return [
        Line(
            f"load and store a word, {name}", partial(work, each.load_acquire, each.store_release), "numpy's own", plain
        )
        for name, each in (("as here", atomic), ("by numba", atomic_numba))
    ]


def _publish(weights: Weights, parameters: FloatArray) -> Line:
    follower = Follower(weights)

    def publish_and_fetch() -> None:
        weights.publish(parameters, 1)
        follower.fetch()

    return Line(f"publish and fetch {len(parameters)} parameters", publish_and_fetch, "a copy of them", parameters.copy)


def _world() -> list[Line]:
    accumulator, first = Accumulator(Ball3D().spec, Recording()), Ball3D().reset(0)
    nothing = first.reward
    decision = Decision(first.obs["vector"][:, :2], first.agent[:, None], nothing, nothing, nothing[:, None])

    def decide_and_observe() -> None:
        accumulator.decide(first.agent, first.obs, decision)
        accumulator.observe(first)

    lines = [Line("rows of 12 agents out of a step", decide_and_observe)]
    for areas in (1, 8):
        env, idle = Ball3D(areas), np.zeros((12 * areas, 2), np.float32)
        env.reset(0)
        lines.append(Line(f"step 3DBall, {12 * areas} agents", partial(env.step, Action(idle, first.agent[:0]))))
    return lines


def _birth(algorithm: DDPG) -> float:
    """Seconds from the start of a worker's process to its first row."""
    policy = algorithm.policy_spec
    with (
        Ring.create(Ball3D().spec, Recording(), 1, 200_000) as ring,
        Weights.create(num_parameters(policy.net)) as weights,
        Server() as server,
        Supervisor() as supervisor,
    ):
        ring.allow(FOREVER)
        config = WorkerConfig("worker-0", EnvConfig("3dball"), seed=1, control=server.address, lane=0)
        begun = time.perf_counter()
        supervisor.start(config.name, "envproc.worker", config)
        _wait(lambda: any(isinstance(report, Ready) for report in server.receive()), begun)
        server.send(config.name, Begin(ring.address, weights.address, policy))
        _wait(lambda: bool(ring.load(Word.PUBLISHED)[0]), begun)
        taken = time.perf_counter() - begun
        ring.stop()
    return taken


def _wait(until: Callable[[], bool], begun: float) -> None:
    while not until():
        if time.perf_counter() > begun + _BIRTH_S:
            raise RuntimeError(f"the worker has written no row within {_BIRTH_S} s")
        time.sleep(0.0005)


def _python() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True, timeout=_BIRTH_S)
    return time.perf_counter() - begun
