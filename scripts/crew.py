"""Who collects the rows and plays the evaluations: processes, or objects in this one (`--mode single`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from core.control import Client, Server, Stop
from core.ring import Ring
from core.supervisor import Supervisor
from envproc.evaluator import Evaluator, EvaluatorConfig
from envproc.worker import Worker, WorkerConfig

_NAP_S = 0.00005


class Crew(Protocol):
    def turn(self) -> None:
        """Called while the learner waits for rows or for an evaluation."""

    def stop(self) -> None:
        """End all of them."""


class Processes:
    """Each worker, and the evaluator, a process of its own. They work by themselves."""

    def __init__(
        self,
        workers: Sequence[WorkerConfig],
        evaluator: EvaluatorConfig,
        supervisor: Supervisor,
        server: Server,
        ring: Ring,
    ) -> None:
        self._supervisor, self._server, self._ring = supervisor, server, ring
        for worker in workers:
            supervisor.start(worker.name, "envproc.worker", worker)
        supervisor.start(evaluator.name, "envproc.evaluator", evaluator)

    def turn(self) -> None:
        time.sleep(_NAP_S)

    def stop(self) -> None:
        self._ring.stop()
        self._supervisor.stop(ask=lambda name: self._server.send(name, Stop()))


class InThisProcess:
    """The same objects that the processes run, turned by hand: one thread, one process, for a debugger."""

    def __init__(self, workers: Sequence[WorkerConfig], evaluator: EvaluatorConfig) -> None:
        self._evaluator_client = Client(evaluator.control, evaluator.name)
        self._evaluator = Evaluator(evaluator, self._evaluator_client)
        self._clients = [Client(worker.control, worker.name) for worker in workers]
        self._workers = [Worker(worker, client) for worker, client in zip(workers, self._clients, strict=True)]

    def turn(self) -> None:
        for worker in self._workers:
            worker.turn()
        self._evaluator.turn()

    def stop(self) -> None:
        for worker in self._workers:
            worker.close()
        self._evaluator.close()
        for client in (*self._clients, self._evaluator_client):
            client.close()
