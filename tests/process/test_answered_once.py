"""Each reset gets exactly one answer: twice the same, late, to an epoch, an agent or a worker that is not there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core import steering
from core.control import Answer, Command, Order, Renew, Reply, Reset, Set, Stop
from core.steering import Change, Steering
from core.watch import Interrupted
from tests.process.callers import Operator
from tests.process.counting import AGENTS
from tests.process.lane import Lane
from tests.process.runs import TOYS, Start, wait_until


class Desk:
    """Steering between an operator and two workers that hear all and say nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Command]] = []
        self.late: list[Order] = []
        self.there = {"worker-0", "worker-1"}
        workers: Any = SimpleNamespace(at_work=["worker-0", "worker-1"], has=self.there.__contains__)
        self.workers = workers
        server: Any = SimpleNamespace(send=self._send, receive=self._receive)
        self.configured: list[Any] = []
        self.change: Any = None
        anything: Any = SimpleNamespace(
            agent_steps=0, updates=0, write=lambda *_, **__: None, configure=self.configured.append
        )
        self.steering = Steering(server, anything, anything, workers, lambda *_: self.change, anything, False, anything)

    def _send(self, name: str, command: Command) -> bool:
        self.sent.append((name, command))
        return True

    def _receive(self) -> list[Order]:
        late, self.late = self.late, []
        return late

    def order(self, request: int, *words: str) -> int:
        """The number under which the worker was asked."""
        self.steering.obey(Order(request, list(words), "operator-1"))
        asked = self.sent[-1][1]
        assert isinstance(asked, Reset)
        return asked.request

    @property
    def replies(self) -> list[tuple[int, bool, str]]:
        return [(reply.request, reply.done, reply.what) for _, reply in self.sent if isinstance(reply, Reply)]


def test_of_two_answers_to_one_reset_the_first_counts_and_only_from_who_was_asked() -> None:
    desk = Desk()
    number = desk.order(5, "reset", "0", "3")
    assert not desk.steering.heard(Answer("worker-1", number, True, "not asked"))
    assert not desk.steering.heard(Answer("worker-0", number + 1, True, "another question"))
    assert desk.steering.heard(Answer("worker-0", number, True, "first"))
    assert not desk.steering.heard(Answer("worker-0", number, False, "second"))
    desk.steering.attend()
    desk.steering.close()
    assert desk.replies == [(5, True, "first")]


def test_an_answer_that_comes_too_late_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "_ANSWER_S", -1.0)
    desk = Desk()
    number = desk.order(5, "reset", "0", "3")
    desk.steering.attend()
    assert not desk.steering.heard(Answer("worker-0", number, True, "late"))
    desk.steering.attend()
    desk.steering.close()
    assert [(request, done) for request, done, _ in desk.replies] == [(5, False)]
    assert desk.replies[0][2].startswith("worker-0 has not answered")


def test_who_has_left_is_answered_for_as_soon_as_its_last_words_would_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.order(5, "reset", "0", "3")
    desk.order(6, "reset", "1", "3")
    desk.there.remove("worker-1")
    desk.steering.attend()
    assert desk.replies == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    desk.steering.attend()
    assert desk.replies == [(6, False, "worker-1 has left")]


def test_what_two_were_asked_is_done_when_one_did_it_and_one_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, kept = Desk(), list[float]()
    order = Order(5, ["set", "env.gravity", "4"], "operator-1")
    both = ["worker-0", "worker-1"]
    desk.steering._have_done(order, both, lambda number: Set(number, "gravity", 4.0), lambda: kept.append(4.0))
    asked = desk.sent[-1][1]
    assert isinstance(asked, Set)
    desk.there.remove("worker-1")
    now = time.monotonic()
    desk.steering.attend()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    desk.steering.attend()
    assert not desk.replies and not kept  # worker-0 has its time
    desk.steering.heard(Answer("worker-0", asked.request, True, "gravity = 4"))
    assert desk.replies == [(5, True, "gravity = 4")] and kept == [4.0]


def test_what_was_done_and_could_not_be_kept_is_answered_once_with_both() -> None:
    desk = Desk()

    def keep() -> None:
        raise OSError("no space")

    order = Order(5, ["set", "env.gravity", "4"], "operator-1")
    desk.steering._have_done(order, ["worker-0"], lambda number: Set(number, "gravity", 4.0), keep)
    asked = desk.sent[-1][1]
    assert isinstance(asked, Set)
    desk.steering.heard(Answer("worker-0", asked.request, True, "gravity = 4"))
    ((request, done, what),) = desk.replies
    assert (request, done) == (5, False) and "gravity = 4" in what and "no space" in what


def test_an_algorithm_goes_on_as_before_where_its_options_cannot_be_kept() -> None:
    desk = Desk()

    def keep() -> None:
        raise OSError("no space")

    desk.change = Change(3e-5, object(), keep)
    desk.steering.obey(Order(5, ["set", "algo.actor_lr", "3e-5"], "operator-1"))
    assert desk.replies == [(5, False, "no space")] and not desk.configured


def test_an_order_that_is_interrupted_is_answered_once_too() -> None:
    desk = Desk()

    def add(count: int) -> str:
        raise Interrupted

    desk.workers.add = add
    with pytest.raises(Interrupted):
        desk.steering.obey(Order(5, ["workers", "+20"], "operator-1"))
    desk.steering.close()
    assert desk.replies == [(5, False, "the run has ended")]


def test_when_the_run_ends_orders_that_wait_and_those_that_just_came_are_answered() -> None:
    desk = Desk()
    number = desk.order(5, "reset", "0", "3")
    desk.late.append(Order(6, ["status"], "operator-1"))
    desk.steering.close()
    assert not desk.steering.heard(Answer("worker-0", number, True, "late"))
    assert desk.replies == [(5, False, "the run has ended"), (6, False, "the run has ended")]


def test_a_reset_that_a_new_epoch_overtakes_is_answered_once_and_touches_nobody_in_it(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.step(3)
        lane.deliver(Reset(1, [2]))
        lane.send(Renew(2, epoch=1))
        wait_until(lambda: len(lane.answers) == 3, "both answers")
        lane.step(3)
        assert lane.ask(Reset(3, [AGENTS])).request == 3
        assert [(each.request, each.done) for each in lane.answers] == [(0, False), (1, True), (2, True), (3, False)]
        assert lane.answers[1].what == "agents [2]: everybody began anew"
        seen = lane.rows()["obs"]["vector"][3 * AGENTS :]
        assert (seen[:, 2].reshape(3, AGENTS) == [[0], [1], [2]]).all(), "none of the new epoch's episodes was cut"


def test_a_reset_that_waits_when_its_worker_is_told_to_stop_is_answered_once(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.step(3)
        lane.deliver(Reset(1, [2]))
        lane.send(Stop())
        assert lane.wait_for_end() == "exit code 0"
        last = lane.answers[-1]
        assert [each.request for each in lane.answers] == [0, 1]
        assert not last.done and last.what == "the worker stopped before the next step"


@pytest.mark.thorough
def test_in_a_real_job_every_reset_is_answered_once_whoever_is_there_and_whoever_has_left(start: Start) -> None:
    job = start("--workers", 2, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0, run="job")
    job.wait_for_record(lambda record: record.get("updates", 0) > 0)
    with Operator(json.loads((job.directory / "control.json").read_text())["address"]) as operator:

        def workers() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(operator.ask("status").what)["workers"]
            return found

        assert operator.ask("pause").done
        waiting = [operator.order("reset", 1, 7) for _ in range(2)]
        assert operator.ask("set", "env.gravity", 9.81).done  # they have read what came before it, too
        assert operator.ask("workers", -1).done
        for request in waiting:
            assert operator.reply(request) == Reply(request, False, "the worker stopped before the next step")
        gone = operator.ask("reset", 1, 7)
        assert not gone.done and "no worker 1 at work" in gone.what
        for words, says in WRONG.items():
            wrong = operator.ask("reset", *words)
            assert not wrong.done and says in wrong.what

        assert operator.ask("resume").done
        assert operator.ask("workers", "+1").done
        wait_until(lambda: workers()[1]["at_work"] and workers()[1]["epoch"] == 1, "the next life of worker 1")
        again = [operator.order("reset", 1, 7) for _ in range(2)]
        assert all(operator.reply(request) == Reply(request, True, "agents [7]: reset") for request in again)
        operator.ask("status")  # a second answer to any of them would have come before this one
    assert job.process.poll() is None


WRONG = {
    (0, 99): "no agent [99]; there are agents 0 to 11",
    (0, 7, 99): "no agent [99]",
    (0, -1): "none has a number below 0",
    (0, 2**63): "none has a number below 0 or above 2**63",
    (0, 10**4000): "none has a number",
    (0, *range(1001)): "1,000 agents at most",
    (0, *[99] * 1000): "no agent [99, 99",
    (-1, 7): "no worker -1 at work",
    (10**4000, 7): "no worker 1000",
    (7, 7): "no worker 7 at work",
}
"""and what is said of it"""
