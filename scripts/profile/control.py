"""Orders to a running job: how long from the order to its answer, of a real run with one worker at full speed.

Beside an echo: the same message to a server that has nothing else to do and answers at once. A learner looks for orders
between two updates; what a worker has to obey, it obeys after its step.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from core.control import Order, Reply, Server
from scripts.command_line import UsageError
from scripts.profile.another import command_of
from scripts.profile.report import ROOT, Report, option_parser, read_options
from scripts.running import Running, ask, find_running

ORDERS = {
    "status": (["status"],),
    "policy": (["policy"],),
    "pause and resume, each": (["pause"], ["resume"]),
    "set algo.actor_lr": (["set", "algo.actor_lr", "1e-3"],),
    "set env.gravity": (["set", "env.gravity", "9.81"],),
    "reset 0 7": (["reset", "0", "7"],),
}
_APART_S = 0.02
_START_S = 60
RUN, NEVER = "profile", str(10**9)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    options = read_options(option_parser("control", __doc__), arguments)
    count = 4 if options.quick else 100
    report = Report("control", options.json)
    table = report.table("From an order to its answer, ms", 44, "median", "most", "times")
    with _echo() as address:
        taken = [_asked(address, ["status"]) for _ in range(count)]
        table.row("an echo", median(taken), max(taken), count)
    with _run() as running:
        for name, orders in ORDERS.items():
            taken = [_asked(running.address, words) for words in itertools.islice(itertools.cycle(orders), count)]
            table.row(name, median(taken), max(taken), count)
        command = [sys.executable, "-m", "scripts.ctl", "--run", str(running.directory), "status"]
        taken = [_run_once(command) for _ in range(max(count // 10, 1))]
        table.row("status, all of python -m scripts.ctl", median(taken), max(taken), len(taken))
    report.write()
    return 0


def _asked(address: str, words: list[str]) -> float:
    """Milliseconds. Raises RuntimeError if it was refused, or there was no answer."""
    time.sleep(_APART_S)
    begun = time.perf_counter()
    reply = ask(address, words)
    taken = time.perf_counter() - begun
    if reply is None or not reply.done:
        raise RuntimeError(f"{' '.join(words)}: {'no answer' if reply is None else reply.what}")
    return taken * 1000


def _run_once(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=_START_S)
    return (time.perf_counter() - begun) * 1000


@contextlib.contextmanager
def _echo() -> Iterator[str]:
    """The address of a server that answers every order."""
    over = threading.Event()

    def answer() -> None:
        while not over.is_set():
            if server.socket.poll(10):
                for order in server.receive():
                    assert isinstance(order, Order)
                    server.send(order.client, Reply(order.request, True, ""))

    with Server() as server:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield server.address
        finally:
            over.set()
            thread.join(10)


@contextlib.contextmanager
def _run() -> Iterator[Running]:
    """A run with the built-in scene, when it learns; without evaluations, which would take the worker's core."""
    with tempfile.TemporaryDirectory(prefix="sharl-profile-") as directory:
        runs, log = Path(directory), Path(directory) / "log"
        with open(log, "wb") as output:
            options = "--run", RUN, "--runs-dir", directory, "--workers", "1", "--eval-every", NEVER, "--steps", NEVER
            command = command_of(sys.executable, "scripts.train", "ddpg", *options)
            run = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            end = time.monotonic() + _START_S
            while not _learns(runs):
                if run.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the run does not learn within {_START_S} s: {log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield find_running(RUN, runs)[0]
        finally:
            run.terminate()  # it sees its worker out
            try:
                run.wait(30)
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait(10)


def _learns(runs: Path) -> bool:
    try:
        reply = ask(find_running(RUN, runs)[0].address, ["status"])
    except UsageError:  # not yet there
        return False
    return reply is not None and '"updates": 0' not in reply.what
