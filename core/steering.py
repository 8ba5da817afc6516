"""Steering: what somebody asks of a running job (`python -m scripts.ctl`), and the one answer to each order.

An order is a few words. What is not understood, or cannot be done, changes nothing, and the answer says why. Each order
that was obeyed or refused is a record of the run, with the update at which it took effect.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from core.control import Answer, Order, Reply, Reset, Server, Set, worker_name
from core.evaluations import EVALUATOR
from core.learner import Learner
from core.metrics import Metrics, finite
from core.ring import Word
from core.roster import Roster
from core.watch import Interrupted
from core.weights import Published

_NOT_AWAITED = 0
"""a request number whose answer nobody waits for"""
_QUESTIONS = ("status", "policy")
"""change nothing; nobody keeps a record of them"""
_MOST_AGENTS = 1000
"""that one order resets: the answer, which names them, is one message"""
_LONGEST_REFUSAL = 2000
"""letters: a message has a limit, and what was said wrongly is repeated in it"""
_ANSWER_S = 10.0
"""how long a worker may take for what it is asked to do, ..."""
_LAST_WORDS_S = 0.5
"""... and how long after it has left an answer may be on its way"""
_LAST_ORDERS_S = 0.5
"""how long those are answered that came when the run was over"""


class Refused(ValueError):
    """An order that is not obeyed; the message says why, and what would be."""


class Change(NamedTuple):
    """What it would be to set a key."""

    value: Any
    algo: Any | None
    """the algorithm's options as they would be; None: it is for the environments"""
    keep: Callable[[], None]
    """call it when it is done, or before: whoever starts later, or goes on with the run, has it so. Raises OSError"""


@dataclass
class _Pending:
    """An order that workers obey."""

    order: Order
    waiting: set[str]
    """for their answers"""
    deadline: float
    keep: Callable[[], None] | None = None
    """to be called if all did it"""
    answers: list[Answer] = field(default_factory=list)
    last_words: dict[str, float] = field(default_factory=dict)
    """until when an answer of a worker that has left may come"""


class Steering:
    """Obeys the orders to one job."""

    def __init__(
        self,
        server: Server,
        learner: Learner,
        metrics: Metrics,
        roster: Roster,
        change: Callable[[str, str], Change],
        snapshot: Callable[[], str],
        repeatable: bool,
        published: Callable[[], Published],
    ) -> None:
        """`change` says what it would be to set a key, or raises ValueError; `snapshot` writes a checkpoint and says
        which, and in a `repeatable` run there are only the scheduled ones; `published`: the policy as it is now."""
        self.paused = False
        """nobody steps, nobody learns"""
        self.stopped = False
        """the run is to end in order, as if its steps were done"""
        self._server, self._learner, self._metrics = server, learner, metrics
        self._roster, self._change = roster, change
        self._snapshot, self._repeatable, self._published = snapshot, repeatable, published
        self._arrivals = itertools.count(1)
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._verbs: dict[str, tuple[str, Callable[[list[str], Order], str | None]]] = {
            "status": ("status", self._status),
            "pause": ("pause", self._pause),
            "resume": ("resume", self._resume),
            "snapshot": ("snapshot", self._take_snapshot),
            "stop": ("stop", self._stop),
            "policy": ("policy", self._policy),
            "reset": ("reset WORKER AGENT [AGENT ...]", self._reset),
            "set": ("set KEY VALUE", self._set),
            "workers": ("workers +N or workers -N", self._workers),
        }

    def obey(self, order: Order) -> None:
        """Do it, or have it done; the answer is sent now, or when a worker has answered. Raises Interrupted."""
        verb, *rest = order.words or [""]
        if verb not in _QUESTIONS:
            order = msgspec.structs.replace(order, number=next(self._arrivals))
            self._metrics.write("order", number=order.number, words=order.words)
        try:
            if verb not in self._verbs:
                close = difflib.get_close_matches(verb, self._verbs, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "there is: " + "; ".join(self.usage)
                raise Refused(f"there is no command {verb!r}; {hint}")
            usage, act = self._verbs[verb]
            if rest and usage == verb:
                raise Refused(f"{verb} takes nothing behind it, and there is {' '.join(rest)!r}")
            what = act(rest, order)
        except Interrupted:
            self._answer(order, False, "the run has ended")
            raise
        except (ValueError, MemoryError, OSError) as refused:
            self._answer(order, False, str(refused)[:_LONGEST_REFUSAL])
        else:
            if what is not None:
                self._answer(order, True, what)

    @property
    def usage(self) -> list[str]:
        """How each command is written."""
        return [usage for usage, _ in self._verbs.values()]

    def heard(self, answer: Answer) -> bool:
        """Whether this is a worker's answer to an order; when all have answered, it is passed on."""
        pending = self._pending.get(answer.request)
        if pending is None or answer.worker not in pending.waiting:
            return False
        pending.waiting.remove(answer.worker)
        pending.answers.append(answer)
        if not pending.waiting:
            del self._pending[answer.request]
            self._conclude(pending)
        return True

    def lost(self, worker: str) -> None:
        """It answers no more."""
        for number, pending in list(self._pending.items()):
            if worker in pending.waiting:
                self.heard(Answer(worker, number, False, f"{worker} was lost"))

    def _conclude(self, pending: _Pending) -> None:
        """All have answered, but for those who have left."""
        if not pending.answers:
            self._answer(pending.order, False, f"{', '.join(sorted(pending.last_words))} has left")
            return
        refusals = [each for each in pending.answers if not each.done]
        told = (refusals or pending.answers)[0]
        done, what = told.done, told.what
        if pending.keep is not None and done:
            try:
                pending.keep()
            except OSError as error:
                done, what = False, f"{what}, but not for who starts later: it cannot be kept ({error})"
        self._answer(pending.order, done, what)

    def attend(self) -> None:
        """Answer for workers that do not."""
        now = time.monotonic()
        for number, pending in list(self._pending.items()):
            for name in [each for each in pending.waiting if not self._roster.has(each)]:
                if now > pending.last_words.setdefault(name, now + _LAST_WORDS_S):
                    pending.waiting.remove(name)
            if not pending.waiting:
                del self._pending[number]
                self._conclude(pending)
            elif now > pending.deadline:
                del self._pending[number]
                silent = ", ".join(sorted(pending.waiting))
                self._answer(pending.order, False, f"{silent} has not answered for {_ANSWER_S:.0f} s")

    def close(self) -> None:
        """The run is over: so are the orders that nobody obeyed."""
        for pending in self._pending.values():
            self._answer(pending.order, False, "the run has ended")
        self._pending.clear()
        deadline = time.monotonic() + _LAST_ORDERS_S  # somebody may go on sending
        while time.monotonic() < deadline and (reports := self._server.receive()):
            for order in [report for report in reports if isinstance(report, Order)]:
                self._answer(order, False, "the run has ended")

    def _answer(self, order: Order, done: bool, what: str) -> None:
        if order.number:
            learner = self._learner
            figures = {"agent_steps": learner.agent_steps, "updates": learner.updates}
            self._metrics.write("command", number=order.number, words=order.words, done=done, what=what, **figures)
        self._server.send(order.client, Reply(order.request, done, what))

    def _status(self, rest: list[str], order: Order) -> str:
        learner = self._learner
        ring = learner.ring
        known = (Word.LIVES, Word.DECISIONS, Word.STEPS)
        words = zip(*(ring.load(word).tolist() for word in known), ring.at_work.tolist(), strict=True)
        lanes = [
            {"worker": lane, "epoch": lives - 1, "decisions": decisions, "steps": steps, "at_work": at_work}
            for lane, (lives, decisions, steps, at_work) in enumerate(words)
            if lane < ring.lanes_used
        ]
        totals = {"agent_steps": learner.agent_steps, "updates": learner.updates, "paused": self.paused}
        return json.dumps(finite({**totals, **learner.feed.figures(learner.updates), "workers": lanes}))

    def _policy(self, rest: list[str], order: Order) -> str:
        return msgspec.json.encode(self._published()).decode()

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
        if len(agents) > _MOST_AGENTS or not all(0 <= agent < 2**63 for agent in agents):
            raise Refused(f"reset: {_MOST_AGENTS:,} agents at most, and none has a number below 0 or above 2**63")
        name, known = worker_name(worker), self._roster.at_work
        if name not in known:
            raise Refused(f"there is no worker {worker} at work; there is {', '.join(known) or 'nobody yet'}")
        self._have_done(order, [name], lambda number: Reset(number, agents))

    def _set(self, rest: list[str], order: Order) -> str | None:
        if len(rest) != 2:
            raise Refused("set takes a key and a value, as in: set algo.actor_lr 1e-4")
        key, text = rest
        change = self._change(key, text)
        if change.algo is None:
            workers = self._roster.at_work
            if not workers:
                raise Refused(f"set {key}: no worker is up yet")
            self._server.send(EVALUATOR, Set(_NOT_AWAITED, key, change.value))  # it may be busy for long
            self._have_done(order, workers, lambda number: Set(number, key, change.value), change.keep)
            return None
        change.keep()  # first: if that cannot be, nothing is changed
        self._learner.configure(change.algo)
        return f"{key} = {change.value}"

    def _workers(self, rest: list[str], order: Order) -> str:
        text = " ".join(rest)
        if not re.fullmatch(r"[+-][1-9]\d{0,3}", text):
            raise Refused(f"workers {text}: say how many more or fewer, as in workers +2 or workers -1")
        return self._roster.add(int(text)) if text[0] == "+" else self._roster.remove(-int(text))

    def _have_done(
        self,
        order: Order,
        workers: list[str],
        command: Callable[[int], Reset | Set],
        keep: Callable[[], None] | None = None,
    ) -> None:
        """Send it to these workers; the answer to the order comes when all of them have answered."""
        number = next(self._numbers)
        deaf = [name for name in workers if not self._server.send(name, command(number))]
        if len(deaf) == len(workers):
            raise Refused(f"{', '.join(deaf)} cannot hear now")
        waiting = set(workers) - set(deaf)
        self._pending[number] = _Pending(order, waiting, time.monotonic() + _ANSWER_S, keep)
