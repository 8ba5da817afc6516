"""One real worker process and the main process's side of it: ring, weights, channel, supervisor, and nothing else."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import TracebackType

import zmq

from core.acting import PolicySpec
from core.control import Answer, Begin, Command, Episode, Episodes, Failed, Ready, Report, Server, Set
from core.net import NetSpec, num_parameters
from core.ring import Ring, Word
from core.supervisor import Supervisor
from core.types import EnvSpec, Recording, Rows
from core.weights import Weights
from envproc import EnvConfig
from envproc.worker import WorkerConfig
from tests.process.runs import wait_until

WORKER = "worker-0"


class Lane:
    """The worker begins no step before `allow`. It acts at random: no weights are published."""

    def __init__(self, env: str | EnvConfig, logs: Path, capacity: int = 100_000) -> None:
        self._opened = contextlib.ExitStack()
        self.server = self._opened.enter_context(Server())
        self.supervisor = self._opened.enter_context(Supervisor(logs))
        self.reports: list[Report] = []
        config = WorkerConfig(
            name=WORKER,
            env=EnvConfig(env) if isinstance(env, str) else env,
            seed=1,
            control=self.server.address,
            lane=0,
            logs=str(logs),
        )
        self.supervisor.start(WORKER, "envproc.worker", config)
        wait_until(lambda: bool(self._ready), "the worker to be ready")
        self.spec: EnvSpec = self._ready[0].spec
        inputs = {name: field.shape for name, field in self.spec.obs.items()}
        self.policy = PolicySpec(NetSpec(inputs, (), self.spec.action.num_continuous, conv="impala"), "tanh")
        self.ring = self._opened.enter_context(Ring.create(self.spec, Recording(), 1, capacity))
        self.weights = self._opened.enter_context(Weights.create(num_parameters(self.policy.net)))
        self.send(Begin(self.ring.address, self.weights.address, self.policy))
        wait_until(lambda: self.turns > 0, "the worker to begin")

    @property
    def _ready(self) -> list[Ready]:
        return [report for report in self.hear() if isinstance(report, Ready)]

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ring.stop()
        self._opened.close()

    def step(self, count: int = 1) -> None:
        """Let the worker make so many steps, in each of which some agent decides, and wait until it has."""
        for _ in range(count):
            goal = self.decisions + 1
            self.ring.allow(goal)
            wait_until(lambda: self.decisions >= goal, "a step")  # noqa: B023 - called before goal changes

    @property
    def pid(self) -> int:
        return next(report.pid for report in self.reports if isinstance(report, Ready))

    @property
    def steps(self) -> int:
        return int(self.ring.load(Word.STEPS)[0])

    @property
    def turns(self) -> int:
        """Of the worker's loop, idle ones too."""
        return int(self.ring.load(Word.ALIVE)[0])

    @property
    def decisions(self) -> int:
        return int(self.ring.load(Word.DECISIONS)[0])

    @property
    def published(self) -> int:
        return int(self.ring.load(Word.PUBLISHED)[0])

    def send(self, command: Command) -> None:
        assert self.server.send(WORKER, command)

    def ask(self, command: Command) -> Answer:
        """Send it and wait for the answer."""
        before = len(self.answers)
        self.send(command)
        wait_until(lambda: len(self.answers) > before, f"an answer to {command}")
        return self.answers[-1]

    def deliver(self, command: Command) -> None:
        """Send it and wait until the worker has read it: what is sent after it is answered."""
        self.send(command)
        self.ask(Set(0, "env.nothing", 0.0))

    @property
    def answers(self) -> list[Answer]:
        return [report for report in self.hear() if isinstance(report, Answer)]

    @property
    def episodes(self) -> list[Episode]:
        """All that were reported so far."""
        return [episode for report in self.hear() if isinstance(report, Episodes) for episode in report.episodes]

    def hear(self) -> list[Report]:
        """All reports so far."""
        self.reports += self.server.receive()
        failures = [report for report in self.reports if isinstance(report, Failed)]
        assert not failures, failures[0].traceback
        return self.reports

    def rows(self) -> Rows:
        """(published,) all rows so far, in index order: the ring must not have wrapped."""
        published = self.published
        assert published <= self.ring.capacity, "the ring has wrapped: give the test a larger one"
        rows: Rows = self.ring.rows[0, :published]
        return rows

    def wait_for_end(self) -> str:
        """Why the process ended, once it has."""
        deadline = time.monotonic() + 10
        while not (deaths := self.supervisor.deaths()):
            assert time.monotonic() < deadline, "the worker did not end within 10 s"
            time.sleep(0.005)
        return deaths[0].reason


class Stranger:
    """Somebody who talks to the main process in a worker's place."""

    def __init__(self, server: Server, name: str = "stranger") -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, name.encode())
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(server.address)

    def say(self, message: bytes) -> None:
        self._socket.send(message)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.destroy()
