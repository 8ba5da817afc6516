"""Who collects the rows and plays the evaluations: processes, or objects in this one (`--mode single`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from core import roster
from core.control import Client, Server, Stop
from core.supervisor import Supervisor
from core.watch import Interrupted
from envproc.evaluator import Evaluator, EvaluatorConfig
from envproc.worker import Worker, WorkerConfig

_NAP_S = 0.00005


class Crew(roster.Crew, Protocol):
    """And the evaluator. What an environment raises at its start is raised by who starts it, or told later."""

    def start_evaluator(self, evaluator: EvaluatorConfig) -> None: ...

    def turn(self) -> None:
        """Called while the learner waits for rows or for an evaluation."""

    def stop(self) -> None:
        """End all of them."""


class Processes:
    """Each worker, and the evaluator, a process of its own. They work by themselves."""

    def __init__(
        self,
        supervisor: Supervisor,
        server: Server,
        config_of: Callable[[int, int], WorkerConfig],
        interrupted: Callable[[], bool],
    ) -> None:
        """`config_of`: what a worker is told at birth, by its lane and epoch; `interrupted`: whether the run is to
        end."""
        self._supervisor, self._server, self._config_of = supervisor, server, config_of
        self._interrupted = interrupted

    def hire(self, lane: int, epoch: int) -> None:
        """Raises Interrupted: to start many, one after the other, takes long."""
        if self._interrupted():
            raise Interrupted
        config = self._config_of(lane, epoch)
        self._supervisor.start(config.name, "envproc.worker", config)

    def dismiss(self, name: str) -> None:
        self._supervisor.dismiss(name)

    def kill(self, name: str) -> None:
        self._supervisor.kill(name)

    def has(self, name: str) -> bool:
        return self._supervisor.has(name)

    def start_evaluator(self, evaluator: EvaluatorConfig) -> None:
        self._supervisor.start(evaluator.name, "envproc.evaluator", evaluator)

    def turn(self) -> None:
        time.sleep(_NAP_S)

    def stop(self) -> None:
        self._supervisor.stop(ask=lambda name: self._server.send(name, Stop()))


class InThisProcess:
    """The same objects that the processes run, turned by hand: one thread, one process, for a debugger."""

    def __init__(self, config_of: Callable[[int, int], WorkerConfig], interrupted: Callable[[], bool]) -> None:
        """As of Processes; an evaluation stops, too, when the run is to end."""
        self._interrupted, self._config_of = interrupted, config_of
        self._turned: dict[str, Worker | Evaluator] = {}
        self._opened: dict[str, contextlib.ExitStack] = {}

    def hire(self, lane: int, epoch: int) -> None:
        config = self._config_of(lane, epoch)
        self._start(config, lambda client: Worker(config, client))

    def dismiss(self, name: str) -> None:
        self._turned.pop(name)
        self._opened.pop(name).close()

    def kill(self, name: str) -> None:
        raise AssertionError(f"{name} runs in this very thread")

    def has(self, name: str) -> bool:
        return name in self._turned

    def start_evaluator(self, evaluator: EvaluatorConfig) -> None:
        self._start(evaluator, lambda client: Evaluator(evaluator, client, self._interrupted))

    def _start(self, config: WorkerConfig | EvaluatorConfig, make: Callable[[Client], Worker | Evaluator]) -> None:
        opened = self._opened[config.name] = contextlib.ExitStack()
        client = Client(config.control, config.name)
        opened.callback(client.close)
        work = self._turned[config.name] = make(client)
        opened.callback(work.close)

    def turn(self) -> None:
        for each in list(self._turned.values()):
            each.turn()

    def stop(self) -> None:
        while self._opened:
            self._opened.popitem()[1].close()
