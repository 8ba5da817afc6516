"""Packaged replay buffers, in an interpreter that has them: the other side of scripts/profile/ring.py, without sharl.

    python -m scripts.profile.buffers LIBRARY

One question a line on stdin, one answer on stdout:

    {"work": "append", "obs": [8], "dtype": "float32", "stack": 1, "continuous": 2, "choices": 0, "agents": 12,
     "capacity": 1000000, "batch": 256, "seconds": 0.3}
    {"us": 18.5, "version": "11.0.0", "refused": ""}

Work is "append" (the rows of one step of all agents), "sample" (a batch) or "prioritized" (the same, and new priorities
for it). Each library is used as its documentation has it, stores stacked frames once where it can, and its batch is
what it gives: numpy or torch. The same question again goes on with the same buffer.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from typing import Any

import numpy as np

from scripts.profile.measure import times

PACKAGES = {"cpprb": "cpprb", "sb3": "stable-baselines3", "tianshou": "tianshou", "torchrl": "torchrl"}
ALPHA, BETA = 0.6, 0.4
Work = Callable[[], object]
Case = dict[str, Any]


class Step:
    """What all agents did in one step, random."""

    def __init__(self, case: Case, count: int) -> None:
        random = np.random.default_rng(0)
        shape, dtype = (count, *case["obs"]), case["dtype"]
        if dtype == "uint8":
            self.obs, self.next_obs = (random.integers(0, 256, shape).astype(dtype) for _ in range(2))
        else:
            self.obs, self.next_obs = (random.standard_normal(shape, np.float32) for _ in range(2))
        self.action: Any = random.uniform(-1, 1, (count, case["continuous"])).astype(np.float32)
        if case["choices"]:
            self.action = random.integers(0, case["choices"], (count, 1))
        self.reward = random.standard_normal(count, np.float32)
        self.done = np.zeros(count, np.bool_)


def errors(case: Case) -> Any:
    """TD errors of one batch after another."""
    return cycle(np.random.default_rng(1).exponential(size=(100, case["batch"])).astype(np.float32))


def cpprb(case: Case) -> Work:
    import cpprb as library

    capacity, stacked = case["capacity"], case["stack"] > 1
    step = Step(case, case["agents"])
    obs, following = {"obs": step.obs}, {"next_obs": step.next_obs}
    if stacked:  # the stack has to be the last axis
        obs, following = ({name: np.moveaxis(each, 1, -1)} for ((name, each),) in (obs.items(), following.items()))
    parts = {**obs, "act": step.action, "rew": step.reward[:, None], "done": step.done[:, None]}
    parts |= {} if stacked else following
    fields = {name: {"shape": each.shape[1:], "dtype": each.dtype} for name, each in parts.items()}
    how = {"next_of": "obs", "stack_compress": "obs"} if stacked else {}
    prioritized = case["work"] == "prioritized"
    make = library.PrioritizedReplayBuffer if prioritized else library.ReplayBuffer
    buffer = make(capacity, fields, **({"alpha": ALPHA} if prioritized else {}), **how)

    def append() -> None:
        buffer.add(**parts, **(following if stacked else {}))

    if case["work"] == "append":
        return append
    if stacked:
        for _ in range(capacity):
            append()
    else:
        buffer.add(**{name: np.resize(each, (capacity, *each.shape[1:])) for name, each in parts.items()})
    if not prioritized:
        return lambda: buffer.sample(case["batch"])
    td_errors = errors(case)
    stored = buffer.get_stored_size()
    buffer.update_priorities(np.arange(stored), np.random.default_rng(2).exponential(size=stored).astype(np.float32))

    def sample_and_update() -> None:
        drawn = buffer.sample(case["batch"], beta=BETA)
        buffer.update_priorities(drawn["indexes"], next(td_errors))

    return sample_and_update


def sb3(case: Case) -> Work | None:
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    if case["work"] == "prioritized":
        return None  # there is none
    low, high = (0, 255) if case["dtype"] == "uint8" else (-np.inf, np.inf)
    action = spaces.Discrete(case["choices"]) if case["choices"] else spaces.Box(-1, 1, (case["continuous"],))
    once = case["stack"] > 1  # next_obs is the next row's obs
    buffer = ReplayBuffer(
        case["capacity"],
        spaces.Box(low, high, case["obs"], case["dtype"]),
        action,
        device="cpu",
        n_envs=case["agents"],
        optimize_memory_usage=once,
        handle_timeout_termination=not once,
    )
    step = Step(case, case["agents"])
    infos: list[dict[str, Any]] = [{} for _ in range(case["agents"])]
    if case["work"] == "append":
        return lambda: buffer.add(step.obs, step.next_obs, step.action, step.reward, step.done, infos)
    buffer.observations[:], buffer.actions[:], buffer.rewards[:] = step.obs, step.action, step.reward
    if not once:
        buffer.next_observations[:] = step.next_obs
    buffer.full = True
    return lambda: buffer.sample(case["batch"])


def tianshou(case: Case) -> Work:
    from tianshou.data import Batch, PrioritizedVectorReplayBuffer, VectorReplayBuffer

    prioritized = case["work"] == "prioritized"
    how: dict[str, Any] = {"alpha": ALPHA, "beta": BETA} if prioritized else {}
    if case["stack"] > 1:
        how |= {"stack_num": case["stack"], "ignore_obs_next": True, "save_only_last_obs": True}
    kind = PrioritizedVectorReplayBuffer if prioritized else VectorReplayBuffer
    buffer = kind(case["capacity"], case["agents"], **how)
    step = Step(case, case["agents"])

    def append() -> None:
        buffer.add(
            Batch(
                obs=step.obs,
                act=step.action,
                rew=step.reward,
                terminated=step.done,
                truncated=step.done,
                obs_next=step.next_obs,
                info={},
            )
        )

    append()  # it takes its memory
    if case["work"] == "append":
        return append
    for each in buffer.buffers:  # as full as after so many calls of append
        each._size = each.maxsize
        buffer._lengths[:] = each.maxsize
    if not prioritized:
        return lambda: buffer.sample(case["batch"])
    td_errors = errors(case)
    priorities = np.random.default_rng(2).exponential(1, buffer.maxsize)
    buffer.update_weight(np.arange(buffer.maxsize), priorities)

    def sample_and_update() -> None:
        _, indices = buffer.sample(case["batch"])
        buffer.update_weight(indices, next(td_errors))

    return sample_and_update


def torchrl(case: Case) -> Work:
    import torch
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer, TensorDictReplayBuffer

    logging.getLogger("torchrl").setLevel(logging.WARNING)
    prioritized, capacity, batch = case["work"] == "prioritized", case["capacity"], case["batch"]
    storage = LazyTensorStorage(capacity)
    if prioritized:
        buffer = TensorDictPrioritizedReplayBuffer(alpha=ALPHA, beta=BETA, storage=storage, batch_size=batch)
    else:
        buffer = TensorDictReplayBuffer(storage=storage, batch_size=batch)
    step = Step(case, case["agents"])
    parts = {"observation": step.obs, "action": step.action, "reward": step.reward[:, None]}
    parts |= {"done": step.done[:, None], "next_observation": step.next_obs}

    def rows() -> Any:
        return TensorDict({name: torch.from_numpy(each) for name, each in parts.items()}, [case["agents"]])

    if case["work"] == "append":
        return lambda: buffer.extend(rows())
    some = torch.cat([rows()] * (-(-1000 // case["agents"])))
    for _ in range(-(-capacity // len(some))):
        buffer.extend(some)
    if not prioritized:
        return buffer.sample  # type: ignore[no-any-return]
    td_errors = errors(case)
    priorities = np.random.default_rng(2).exponential(1, (capacity,)).astype(np.float32)
    buffer.update_priority(torch.arange(capacity), torch.from_numpy(priorities))

    def sample_and_update() -> None:
        drawn = buffer.sample()
        drawn["td_error"] = torch.from_numpy(next(td_errors))
        buffer.update_tensordict_priority(drawn)

    return sample_and_update


def main() -> None:
    library = sys.argv[1]
    make = {"cpprb": cpprb, "sb3": sb3, "tianshou": tianshou, "torchrl": torchrl}[library]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    try:
        installed = version(PACKAGES[library])
        if library != "cpprb":
            importlib.import_module("torch").set_num_threads(1)
    except (ImportError, PackageNotFoundError):
        installed = ""
    built: dict[str, Work | None] = {}
    for line in sys.stdin:
        refused = "" if installed else "is not installed"
        if installed and line not in built:
            built.clear()  # one buffer at a time
            try:
                built[line] = make(json.loads(line))
            except Exception as error:  # noqa: BLE001 - told to whoever asked; other questions may be answered
                built[line], refused = None, f"{type(error).__name__}: {error}"
        work = built.get(line)
        us = times({"": work}, json.loads(line)["seconds"])[""] if work else None
        print(json.dumps({"us": us, "version": installed, "refused": refused}), file=answers, flush=True)


if __name__ == "__main__":
    main()
