"""Rollouts for tests: of an algorithm's own policy in numpy, as a worker writes them, in an environment of noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.nets import prepare
from core.acting import Policy
from core.ring import Ring, Writer
from core.rollout import InOrder, Rollout
from core.types import ACTION_MASK, ActionSpec, EnvSpec, FieldSpec, Learned, Obs
from envproc.accumulator import Accumulator
from envproc.env import Ended, Step

AGENTS = 3
FIELDS = {"a": FieldSpec((3,)), "b": FieldSpec((2, 2))}
CONTINUOUS = EnvSpec(FIELDS, ActionSpec((-1.0, 0.0), (1.0, 3.0)), AGENTS)
DISCRETE = EnvSpec(FIELDS, ActionSpec(branches=(3, 2)), AGENTS)
HYBRID = EnvSpec(FIELDS, ActionSpec((-2.0,), (2.0,), (3, 2)), AGENTS)
MASKED = EnvSpec({**FIELDS, ACTION_MASK: FieldSpec((5,), "bool")}, ActionSpec(branches=(3, 2)), AGENTS)
SPECS = [CONTINUOUS, DISCRETE, HYBRID, MASKED]


class Noise:
    """Any observations and rewards; each agent's episode ends when it likes, or is reset; not everybody decides."""

    def __init__(self, algorithm: Any, spec: EnvSpec, ring: Ring, seed: int, lane: int = 0) -> None:
        self._algorithm, self._spec, self._writer = algorithm, spec, ring.writer(lane, 0)
        self._random = np.random.default_rng(seed)
        self._accumulator = Accumulator(spec, algorithm.recording)
        self._agents, self._obs = np.arange(spec.num_agents), self._see(spec.num_agents)

    @property
    def writer(self) -> Writer:
        return self._writer

    def run(self, steps: int) -> None:
        """With the policy as it is now."""
        random, accumulator = self._random, self._accumulator
        parameters = self._algorithm.policy_parameters().numpy()
        spec = self._spec
        policy = Policy(self._algorithm.policy_spec, spec.action, spec.num_agents, parameters, int(random.integers(99)))
        for _ in range(steps):
            decision = policy.explore(self._obs, self._agents)
            accumulator.decide(self._agents, self._obs, decision)
            if random.random() < 0.05:
                accumulator.drop([int(random.integers(spec.num_agents))])
            ending = np.flatnonzero(random.random(spec.num_agents) < 0.1)
            self._agents = np.flatnonzero(random.random(spec.num_agents) < 0.8)
            self._obs, m = self._see(len(self._agents)), len(ending)
            reward = random.normal(size=spec.num_agents).astype(np.float32)
            ended = Ended(ending, self._see(m), reward[ending], random.random(m) < 0.5)
            rows = accumulator.observe(Step(self._agents, self._obs, reward[self._agents], ended))
            if len(rows):
                self._writer.append(rows)

    def _see(self, n: int) -> Obs:
        random = self._random
        obs: dict[str, Any] = {name: random.normal(1, 2, (n, *each.shape)) for name, each in self._spec.obs.items()}
        for name in FIELDS:
            obs[name] = obs[name].astype(np.float32)
        if ACTION_MASK in obs:
            obs[ACTION_MASK] = obs[ACTION_MASK] > 0
            obs[ACTION_MASK][:, [0, 4]] = True  # each branch has something to choose
        return obs


class Feed:
    """Rollouts, one after the other, of the policy that the algorithm has when each is made."""

    def __init__(self, algorithm: Any, spec: EnvSpec, ring: Ring, seed: int) -> None:
        self._noise = Noise(algorithm, spec, ring, seed)
        self._in_order = InOrder(ring, 1, 0, torch.device("cpu"))

    def next(self, steps: int = 60) -> Rollout:
        """Valid until the next call."""
        self._in_order.learned(Learned({}))
        self._noise.run(steps)
        rollout = self._in_order.next(0)
        assert rollout is not None
        return rollout


@contextmanager
def feeding(algorithm: Any, spec: EnvSpec, seed: int = 0) -> Iterator[Feed]:
    with Ring.create(spec, algorithm.recording, 1, 2000) as ring:
        yield Feed(algorithm, spec, ring, seed)


def shaken(algorithm: Any, by: float = 0.3) -> Any:
    """The same, with networks that say something: fresh ones say nearly nothing."""
    with torch.no_grad():
        for parameter in algorithm.nets.parameters():
            parameter.add_(torch.randn(parameter.shape) * by)
    return algorithm


def assert_equal(one: Any, other: Any) -> None:
    """Two nests of dicts and lists, tensors and numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def stretches(follows: Any) -> list[list[int]]:
    """Rows that follow each other, as lists of places."""
    result: list[list[int]] = [[]]
    for i, goes_on in enumerate(follows):
        result[-1].append(i)
        if not goes_on:
            result.append([])
    return [each for each in result if each]


class InDoubles:
    """What an algorithm's networks say of a rollout's rows: row by row, in double precision, by the definitions."""

    def __init__(self, algorithm: Any, rollout: Rollout) -> None:
        self.nets, self._net = copy.deepcopy(algorithm.nets).double(), algorithm.policy_spec.net
        self.batch = copy.deepcopy(rollout.take(np.arange(len(rollout))))
        self.outputs, self.values = self._say(self.batch.obs)
        self.next_values = self._say(self.batch.next_obs)[1].detach()

    def _say(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        nets = self.nets
        prepared = prepare(obs, self._net, nets.normalizer.float())
        outputs: Tensor = nets.actor({name: each.double() for name, each in prepared.items()})
        if nets.critic is None:
            return outputs[:, :-1], outputs[:, -1]
        return outputs, nets.critic({name: each.double() for name, each in prepared.items()})[:, 0]

    def judge(self, i: int) -> tuple[Tensor, Tensor]:
        """Densities and probabilities as they are defined, in logarithms only at the end."""
        log_prob = entropy = torch.zeros((), dtype=torch.float64)
        num = self.batch.action.shape[1]
        for k in range(num):
            std = torch.exp(self.nets.log_std[k])
            z = (float(self.batch.action[i, k]) - self.outputs[i, k]) / std
            log_prob = log_prob + torch.log(torch.exp(-(z**2) / 2) / (std * math.sqrt(2 * math.pi)))
            entropy = entropy + torch.log(std * math.sqrt(2 * math.pi * math.e))
        start = num
        for branch, size in enumerate((3, 2)[: self.batch.choice.shape[1]]):
            likely = torch.exp(self.outputs[i, start : start + size])
            if ACTION_MASK in self.batch.obs:
                likely = likely * self.batch.obs[ACTION_MASK][i, start - num : start - num + size]
            likely = likely / likely.sum()
            log_prob = log_prob + torch.log(likely[self.batch.choice[i, branch]])
            entropy = entropy - sum(p * torch.log(p) for p in likely if p > 0)
            start += size
        return log_prob, entropy
