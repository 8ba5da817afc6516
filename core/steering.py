"""Steering: what somebody asks of a running job (`python -m scripts.ctl`), and the one answer to each order.

An order is a few words. What is not understood, or cannot be done, changes nothing, and the answer says why. Each order
that was obeyed or refused is a record of the run, with the update at which it took effect.
"""

from __future__ import annotations

import difflib
import itertools
import json
import time
from collections.abc import Callable
from typing import NamedTuple

from core.control import Answer, Order, Reply, Reset, Server, worker_name
from core.learner import Learner
from core.metrics import Metrics, finite
from core.ring import Word

_ANSWER_S = 10.0
"""how long a worker may take for what it is asked to do"""


class Refused(Exception):
    """An order that is not obeyed; the message says why, and what would be."""


class _Pending(NamedTuple):
    """An order that a worker obeys."""

    order: Order
    worker: str
    deadline: float


class Steering:
    """Obeys the orders to one job."""

    def __init__(
        self, server: Server, learner: Learner, metrics: Metrics, snapshot: Callable[[], str], repeatable: bool
    ) -> None:
        """`snapshot` writes a checkpoint and says which; in a `repeatable` run there are only the scheduled ones."""
        self.paused = False
        """nobody steps, nobody learns"""
        self.stopped = False
        """the run is to end in order, as if its steps were done"""
        self._server, self._learner, self._metrics = server, learner, metrics
        self._snapshot, self._repeatable = snapshot, repeatable
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._verbs: dict[str, tuple[str, Callable[[list[str], Order], str | None]]] = {
            "status": ("status", self._status),
            "pause": ("pause", self._pause),
            "resume": ("resume", self._resume),
            "snapshot": ("snapshot", self._take_snapshot),
            "stop": ("stop", self._stop),
            "reset": ("reset WORKER AGENT [AGENT ...]", self._reset),
        }

    def obey(self, order: Order) -> None:
        """Do it, or have it done; the answer is sent now, or when a worker has answered."""
        verb, *rest = order.words or [""]
        try:
            if verb not in self._verbs:
                close = difflib.get_close_matches(verb, self._verbs, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "there is: " + "; ".join(self.usage)
                raise Refused(f"there is no command {verb!r}; {hint}")
            usage, act = self._verbs[verb]
            if rest and usage == verb:
                raise Refused(f"{verb} takes nothing behind it, and there is {' '.join(rest)!r}")
            what = act(rest, order)
        except Refused as refused:
            self._answer(order, False, str(refused))
        else:
            if what is not None:
                self._answer(order, True, what)

    @property
    def usage(self) -> list[str]:
        """How each command is written."""
        return [usage for usage, _ in self._verbs.values()]

    def heard(self, answer: Answer) -> bool:
        """Whether this is a worker's answer to an order; it is passed on."""
        pending = self._pending.pop(answer.request, None)
        if pending is not None:
            self._answer(pending.order, answer.done, answer.what)
        return pending is not None

    def attend(self) -> None:
        """Answer for workers that do not."""
        for number, pending in list(self._pending.items()):
            if time.monotonic() > pending.deadline:
                del self._pending[number]
                self._answer(pending.order, False, f"{pending.worker} has not answered for {_ANSWER_S:.0f} s")

    def close(self) -> None:
        """The run is over: so are the orders that nobody obeyed."""
        late = [report for report in self._server.receive() if isinstance(report, Order)]
        for order in [*(pending.order for pending in self._pending.values()), *late]:
            self._answer(order, False, "the run has ended")
        self._pending.clear()

    def _answer(self, order: Order, done: bool, what: str) -> None:
        if order.words[:1] != ["status"]:
            learner = self._learner
            figures = {"agent_steps": learner.agent_steps, "updates": learner.updates}
            self._metrics.write("command", words=order.words, done=done, what=what, **figures)
        self._server.send(order.client, Reply(order.request, done, what))

    def _status(self, rest: list[str], order: Order) -> str:
        learner = self._learner
        words = learner.ring.load
        lanes = [
            {"worker": lane, "epoch": lives - 1, "decisions": decisions, "steps": steps}
            for lane, (lives, decisions, steps) in enumerate(
                zip(words(Word.LIVES).tolist(), words(Word.DECISIONS).tolist(), words(Word.STEPS).tolist(), strict=True)
            )
        ]
        totals = {"agent_steps": learner.agent_steps, "updates": learner.updates, "paused": self.paused}
        return json.dumps(finite({**totals, **learner.feed.figures(learner.updates), "workers": lanes}))

    def _pause(self, rest: list[str], order: Order) -> str:
        if self.paused:
            raise Refused("it is paused already; resume goes on")
        self.paused = True
        return "paused; resume goes on"

    def _resume(self, rest: list[str], order: Order) -> str:
        if not self.paused:
            raise Refused("it is not paused")
        self.paused = False
        return "goes on"

    def _take_snapshot(self, rest: list[str], order: Order) -> str:
        if self._repeatable:
            raise Refused(
                "in lock-step a checkpoint is a break, and another one would change the run: none but scheduled"
            )
        return f"checkpoint {self._snapshot()}"

    def _stop(self, rest: list[str], order: Order) -> str:
        self.stopped, self.paused = True, False
        return "ends: the last evaluation and a checkpoint are still to come"

    def _reset(self, rest: list[str], order: Order) -> None:
        try:
            worker, *agents = map(int, rest)
        except ValueError:
            worker, agents = -1, []
        if not agents:
            raise Refused(f"reset {' '.join(rest)}: give numbers, {self._verbs['reset'][0]}")
        if not 0 <= worker < self._learner.ring.num_lanes:
            raise Refused(f"there is no worker {worker}; there are 0 to {self._learner.ring.num_lanes - 1}")
        number, name = next(self._numbers), worker_name(worker)
        self._pending[number] = _Pending(order, name, time.monotonic() + _ANSWER_S)
        if not self._server.send(name, Reset(number, agents)):
            del self._pending[number]
            raise Refused(f"{name} cannot hear now")
