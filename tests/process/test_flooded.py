"""Who sends more than can be obeyed waits; everybody else is heard, the run goes on, and Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any

import msgspec
import pytest
import zmq

from core.control import AT_ONCE, Client, Order, Report, Reset, Server, Stats
from core.door import Door
from scripts.running import find_running
from tests.process.callers import Caller, Operator
from tests.process.runs import Start, wait_until

MANY = 5 * AT_ONCE
RESET = msgspec.msgpack.encode(Order(1, ["reset", "0", "1"]))


def test_a_worker_is_heard_while_an_operator_sends_more_than_is_read_at_a_time() -> None:
    with Server() as server, Operator(server.address) as operator, Caller(server.address, "worker-0") as worker:
        for _ in range(MANY):
            operator.say(RESET)
        operator.socket.poll(100)  # they are there
        worker.say(msgspec.msgpack.encode(Stats("worker-0", {})))
        reads: list[list[Report]] = []

        def is_heard() -> bool:
            reads.append(server.receive())
            return Stats("worker-0", {}) in reads[-1]

        wait_until(is_heard, "the worker to be heard")
        assert all(len(each) <= AT_ONCE for each in reads)
        assert sum(map(len, reads)) < MANY, "before all that the other had said"


def test_at_the_door_no_more_is_read_at_a_time_than_can_be_obeyed() -> None:
    with Door("tcp://127.0.0.1:*") as door, Operator(door.address, door.token) as operator:
        for _ in range(MANY):
            operator.say(RESET)
        num = [0]

        def all_came() -> bool:
            orders = door.receive()
            assert len(orders) <= AT_ONCE
            num[0] += len(orders)
            return num[0] == MANY

        wait_until(all_came, "all orders")


def test_a_worker_reads_no_more_at_a_time_than_it_can_obey_between_two_steps() -> None:
    with Server() as server, contextlib.closing(Client(server.address, "worker-0")) as client:
        client.send(Stats("worker-0", {}))
        wait_until(lambda: bool(server.receive()), "the worker")
        for number in range(MANY):
            assert server.send("worker-0", Reset(number, [1]))
        read: list[Any] = []

        def all_came() -> bool:
            commands = client.receive()
            assert len(commands) <= AT_ONCE
            read.extend(commands)
            return len(read) == MANY

        wait_until(all_came, "all commands")
        assert read == [Reset(number, [1]) for number in range(MANY)]


@pytest.mark.thorough
def test_many_orders_of_which_each_takes_long_do_not_delay_ctrl_c(start: Start) -> None:
    run = start("--workers", 1, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0)
    run.wait_for_record(lambda record: record.get("updates", 0) > 0)
    (job,) = find_running(str(run.directory), run.directory.parent)
    with Operator(job.address) as operator:
        asked = [operator.order("snapshot") for _ in range(AT_ONCE)]
        run.wait_for("checkpoint")
        run.process.send_signal(signal.SIGINT)
        replies = [operator.reply(request) for request in asked]
        assert replies[0].done and replies[-1].what == "the run has ended"
    assert run.wait(10) == 130, run.stderr
    assert len(run.records("checkpoint")) < AT_ONCE
    run.assert_nothing_left()


@pytest.mark.thorough
def test_a_run_at_which_orders_come_faster_than_it_obeys_goes_on_and_is_ended_by_ctrl_c(start: Start) -> None:
    run = start("--workers", 1, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0)
    run.wait_for_record(lambda record: record.get("updates", 0) > 0)
    (job,) = find_running(str(run.directory), run.directory.parent)
    over = threading.Event()

    def flood() -> None:
        with Operator(job.address) as operator:
            while not over.wait(0):
                try:
                    operator.socket.send(RESET, zmq.NOBLOCK)
                except zmq.Again:
                    time.sleep(0.001)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        wait_until(lambda: len(run.records("command")) > 1000, "orders to be obeyed")
        before = run.records("progress")[-1]
        run.wait_for_record(lambda record: record.get("updates", 0) > before["updates"] + 500)
        run.process.send_signal(signal.SIGINT)
        assert run.wait(10) == 130, run.stderr
    finally:
        over.set()
        flooding.join()
    run.assert_nothing_left()
