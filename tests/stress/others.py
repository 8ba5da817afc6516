"""Other libraries' worker processes and shared buffers, for test_other_libraries.py to hurt.

`python tests/stress/others.py CASE ...` says what happens to it on stdout, one JSON object a line. It needs nothing of
sharl, so that it also runs where another library lives alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from typing import Any

import numpy as np

NUM_WORKERS = 3
GOES_ON_S = 7.0
"""and is whole then: it was not harmed"""
WIDTH, CAPACITY, K, BATCH = 120, 127, 31, 64
"""of a row, the buffer, a writer's step and a sample"""


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def make_env(hangs: bool) -> Any:
    import gymnasium

    class Hangs(gymnasium.Wrapper):
        """After some steps, as a simulator does that does not answer any more."""

        steps = 0

        def step(self, action: Any) -> Any:
            self.steps += 1
            if hangs and self.steps > 50:
                time.sleep(600)
            return super().step(action)

    return Hangs(gymnasium.make("CartPole-v1"))


def vector(library: str, hangs: bool) -> None:
    """Steps environments in processes for a while, or until that fails; then closes them."""
    from functools import partial

    makers = [partial(make_env, hangs and lane == 0) for lane in range(NUM_WORKERS)]
    envs: Any
    if library == "gymnasium":
        from gymnasium.vector import AsyncVectorEnv

        envs = AsyncVectorEnv(makers)
    else:
        from stable_baselines3.common.vec_env import SubprocVecEnv

        envs = SubprocVecEnv(makers)
    envs.reset()
    actions = np.zeros(NUM_WORKERS, np.int64)
    for _ in range(20):
        envs.step(actions)
    say(workers=[process.pid for process in envs.processes])
    until = time.monotonic() + GOES_ON_S
    try:
        while time.monotonic() < until:
            envs.step(actions)
        say(step="goes on")
    except Exception as error:  # noqa: BLE001 whatever it is, that is what is told
        say(step=type(error).__name__)
    try:
        envs.close()
        say(close="returns")
    except Exception as error:  # noqa: BLE001
        say(close=type(error).__name__)


def write(buffer: Any) -> None:
    """As fast as it can, rows whose every number is that of the row."""
    number = 0
    while True:
        value = np.arange(number, number + K, dtype=np.float32)[:, None] % 9973
        buffer.add(row=np.broadcast_to(value, (K, WIDTH)), again=value[:, 0])
        number += K


def torn(batch: dict[str, Any]) -> int:
    """Rows that do not carry one value everywhere."""
    return int((batch["row"] != batch["again"]).any(axis=1).sum())


def start_writer(buffer: Any) -> multiprocessing.Process:
    writer = multiprocessing.Process(target=write, args=(buffer,), daemon=True)
    writer.start()
    return writer


def open_buffer() -> Any:
    """A full one, and the process that goes on to write into it."""
    import cpprb

    buffer = cpprb.MPReplayBuffer(CAPACITY, {"row": {"shape": WIDTH}, "again": {}})
    writer = start_writer(buffer)
    while buffer.get_stored_size() < CAPACITY:
        time.sleep(0.001)
    return buffer, writer


def sample_many(rows: int) -> None:
    """Beside a writer at full speed."""
    buffer, writer = open_buffer()
    bad = sum(torn(buffer.sample(BATCH)) for _ in range(rows // BATCH))
    writer.kill()
    say(rows=rows, torn=bad)


def kill_a_writer(seed: int) -> None:
    """At a random moment; another one takes over, and what is there is sampled."""
    buffer, writer = open_buffer()
    time.sleep(random.Random(seed).uniform(0, 0.01))
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(5)
    say(killed=True)
    successor = start_writer(buffer)
    bad = sum(torn(buffer.sample(BATCH)) for _ in range(200))
    successor.kill()
    say(torn=bad)


if __name__ == "__main__":
    case, *words = sys.argv[1:]
    match case:
        case "torn":
            sample_many(int(words[0]))
        case "killed":
            kill_a_writer(int(words[0]))
        case _:
            vector(case, hangs=words == ["hangs"])
