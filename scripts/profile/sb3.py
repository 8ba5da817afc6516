"""Stable-Baselines3's updates per second: the side of scripts/profile/learner.py that runs in an interpreter which has
it, where there is no sharl.

One case a line on stdin, as JSON, one line of JSON on stdout in answer; nothing runs in between, so whoever asks can
measure something else in turns with this:

    {"algorithm": "ddpg", "obs": 17, "continuous": 6, "discrete": 0, "hidden": [256, 256], "batch": 256,
     "capacity": 1000000, "quantiles": 200, "device": "cpu", "seconds": 3.0}

The same case again goes on with the same model. The library does its own `train()`, with its own sampling, on a full
buffer of random rows. What train() costs once a call is spread over a slice of many updates, which is better for it
than its default of one update a call.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.logger import Logger

SLICE_S = 0.1
WARM_UP = 10  # updates
OFF_POLICY = {"ddpg": DDPG, "td3": TD3, "sac": SAC, "dqn": DQN, "qrdqn": QRDQN}


class Spaces(gymnasium.Env[Any, Any]):
    """An environment for its spaces only; it is never stepped."""

    def __init__(self, obs: int, continuous: int, discrete: int) -> None:
        images = spaces.Box(0, 255, (4, 84, 84), np.uint8)
        self.observation_space = spaces.Box(-np.inf, np.inf, (obs,), np.float32) if obs else images
        self.action_space = spaces.Discrete(discrete) if discrete else spaces.Box(-1, 1, (continuous,), np.float32)


def off_policy(case: dict[str, Any]) -> Callable[[int], int]:
    """Build the model with a full replay buffer; returns what does so many updates and says how many it did."""
    policy: dict[str, Any] = {"net_arch": list(case["hidden"])}
    if not case["obs"]:
        policy = {"net_arch": [], "features_extractor_kwargs": {"features_dim": case["hidden"][0]}}
    if case["algorithm"] == "qrdqn":
        policy["n_quantiles"] = case["quantiles"]
    model = OFF_POLICY[case["algorithm"]](
        "MlpPolicy" if case["obs"] else "CnnPolicy",
        Spaces(case["obs"], case["continuous"], case["discrete"]),
        buffer_size=case["capacity"],
        batch_size=case["batch"],
        policy_kwargs=policy,
        device=case["device"],
        seed=0,
    )
    random, buffer = np.random.default_rng(0), model.replay_buffer
    if case["obs"]:
        for each in (buffer.observations, buffer.next_observations):
            each[:] = random.standard_normal(each.shape, np.float32)
    else:
        buffer.observations[:] = random.integers(0, 256, buffer.observations.shape, np.uint8)
        buffer.next_observations[:] = buffer.observations
    buffer.rewards[:] = random.standard_normal(buffer.rewards.shape, np.float32)
    if case["discrete"]:
        buffer.actions[:] = random.integers(0, case["discrete"], buffer.actions.shape)
    else:
        buffer.actions[:] = random.uniform(-1, 1, buffer.actions.shape)
    buffer.dones[:] = random.random(buffer.dones.shape) < 0.01
    buffer.full = True
    model.set_logger(Logger(None, []))

    def updates(count: int) -> int:
        model.train(gradient_steps=count, batch_size=case["batch"])
        return count

    return updates


def on_policy(case: dict[str, Any]) -> Callable[[int], int]:
    """Build PPO with a full rollout buffer; one call is always the whole of its epochs."""
    model = PPO(
        "MlpPolicy",
        Spaces(case["obs"], case["continuous"], case["discrete"]),
        learning_rate=1e-9,  # as much work as any other, and the same rows can be learned from for seconds
        batch_size=case["batch"],
        policy_kwargs={"net_arch": {"pi": case["hidden"], "vf": case["hidden"]}},
        device=case["device"],
        seed=0,
    )
    random, buffer = np.random.default_rng(0), model.rollout_buffer
    for each in (buffer.observations, buffer.rewards, buffer.advantages, buffer.returns):
        each[:] = random.standard_normal(each.shape, np.float32)
    obs = torch.from_numpy(buffer.observations[:, 0])
    with torch.no_grad():
        action, value, log_prob = (each.cpu() for each in model.policy(obs.to(case["device"])))
    buffer.actions[:, 0] = action.reshape(len(obs), -1).numpy()
    buffer.values[:, 0], buffer.log_probs[:, 0] = value[:, 0].numpy(), log_prob.numpy()
    buffer.full, buffer.pos = True, buffer.buffer_size
    model.set_logger(Logger(None, []))

    def updates(count: int) -> int:
        model.train()
        return int(model.n_epochs * np.ceil(model.n_steps * model.n_envs / model.batch_size))

    return updates


def measure(updates: Callable[[int], int], seconds: float) -> list[float]:
    """Updates per second, of each slice."""
    begun = time.perf_counter()
    done = updates(WARM_UP)
    count = max(1, round(SLICE_S * done / (time.perf_counter() - begun)))
    rates, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        done = updates(count)
        rates.append(done / (time.perf_counter() - begun))
    return rates


def main() -> None:
    torch.set_num_threads(1)
    built: dict[str, Callable[[int], int]] = {}
    for line in sys.stdin:
        if line not in built:
            case = json.loads(line)
            built.clear()  # one replay buffer at a time
            built[line] = (on_policy if case["algorithm"] == "ppo" else off_policy)(case)
        rates = measure(built[line], json.loads(line)["seconds"])
        versions = f"stable-baselines3 {stable_baselines3.__version__}, torch {torch.__version__}"
        print(json.dumps({"updates_per_s": median(rates), "slices": rates, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
