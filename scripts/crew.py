"""Who collects the rows and plays the evaluations: processes, or objects in this one (`--mode single`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from core.control import Client, Server, Stop
from core.supervisor import Supervisor
from envproc.evaluator import Evaluator, EvaluatorConfig
from envproc.worker import Worker, WorkerConfig

_NAP_S = 0.00005


class Crew(Protocol):
    def start_workers(self, workers: Sequence[WorkerConfig]) -> None:
        """Start them; each says Ready when its environment is up. What it raises is raised here or told later."""

    def start_evaluator(self, evaluator: EvaluatorConfig) -> None: ...

    def turn(self) -> None:
        """Called while the learner waits for rows or for an evaluation."""

    def stop(self) -> None:
        """End all of them."""


class Processes:
    """Each worker, and the evaluator, a process of its own. They work by themselves."""

    def __init__(self, supervisor: Supervisor, server: Server) -> None:
        self._supervisor, self._server = supervisor, server

    def start_workers(self, workers: Sequence[WorkerConfig]) -> None:
        for worker in workers:
            self._supervisor.start(worker.name, "envproc.worker", worker)

    def start_evaluator(self, evaluator: EvaluatorConfig) -> None:
        self._supervisor.start(evaluator.name, "envproc.evaluator", evaluator)

    def turn(self) -> None:
        time.sleep(_NAP_S)

    def stop(self) -> None:
        self._supervisor.stop(ask=lambda name: self._server.send(name, Stop()))


class InThisProcess:
    """The same objects that the processes run, turned by hand: one thread, one process, for a debugger."""

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        """`interrupted` tells whether the run is to end: an evaluation stops then."""
        self._interrupted = interrupted
        self._turned: list[Worker | Evaluator] = []
        self._opened = contextlib.ExitStack()

    def start_workers(self, workers: Sequence[WorkerConfig]) -> None:
        for config in workers:
            self._turned.append(Worker(config, self._client(config)))
            self._opened.callback(self._turned[-1].close)

    def start_evaluator(self, evaluator: EvaluatorConfig) -> None:
        self._turned.append(Evaluator(evaluator, self._client(evaluator), self._interrupted))
        self._opened.callback(self._turned[-1].close)

    def _client(self, config: WorkerConfig | EvaluatorConfig) -> Client:
        client = Client(config.control, config.name)
        self._opened.callback(client.close)
        return client

    def turn(self) -> None:
        for each in self._turned:
            each.turn()

    def stop(self) -> None:
        self._opened.close()
