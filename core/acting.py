"""From a network's output to actions, with exploration: what a worker does with a policy. numpy, per agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import numpy as np

from core.net import Net, NetSpec
from core.types import ACTION_MASK, Action, ActionSpec, BoolArray, FloatArray, IntArray, Obs, require

_LOWEST, _HIGHEST = np.array(-1, np.float32), np.array(1, np.float32)  # arrays: a quarter of the time of np.clip
_HALF_LOG_2PI = np.float32(0.5 * np.log(2 * np.pi))
LOG_STD = (-5.0, 2.0)
"""limits of the squashed head's log standard deviation"""


@dataclass(frozen=True)
class Noise:
    """What is added to an action in [-1, 1] while training; each agent has its own."""

    kind: Literal["gaussian", "ornstein-uhlenbeck"] = "gaussian"
    theta: float = 0.15
    """Ornstein-Uhlenbeck only: how fast it returns to zero, per decision"""

    def __post_init__(self) -> None:
        require("--algo.theta", self.theta, 0 <= self.theta <= 1, "from 0 to 1")


@dataclass(frozen=True)
class PolicySpec:
    """How workers act: a network, what its output means, and how they explore."""

    net: NetSpec
    head: Literal["tanh", "squashed", "stochastic", "greedy"]
    """tanh: the action is the tanh of the output, plus noise with the standard deviation in the extra "sigma".
    squashed: mean and log standard deviation of each action; the tanh of a normal sample.
    stochastic: means of the continuous actions (their log standard deviations are the extra "log_std"), then logits
    of each branch's choices; whatever stands behind them is the learner's.
    greedy: a value, or `atoms` numbers that make one, of each branch's choices; the best one, or, with the probability
    in the extra "epsilon", any"""
    noise: Noise = field(default_factory=Noise)
    support: tuple[float, ...] = ()
    """greedy: what the atoms of a categorical distribution stand for; empty: a value is the mean of its atoms"""
    ladder: float = 0.0
    """greedy: agent i of N explores with epsilon^(1 + ladder i / (N - 1)) (Horgan et al. 2018, section 4.1)"""


class Decision(NamedTuple):
    """What n agents decide."""

    action: FloatArray
    """(n, num_continuous) what the policy says, in units of [-1, 1]; a stochastic head may say more than that"""
    choice: IntArray
    """(n, branches)"""
    log_prob: FloatArray
    """(n,) of the stochastic head; else zeros"""
    value: FloatArray
    """(n,) of the greedy head: what it thinks the choice is worth, the mean over the branches; else zeros"""
    state: FloatArray
    """(n, 2 * lstm) the recurrent state before"""


class Policy:
    """One worker's policy over all of its agents."""

    def __init__(
        self,
        spec: PolicySpec,
        action: ActionSpec,
        num_agents: int,
        parameters: FloatArray,
        seed: int,
        lane: int = 0,
        num_lanes: int = 1,
    ) -> None:
        self._spec, self._net = spec, Net(spec.net, parameters)
        self._random = np.random.Generator(np.random.SFC64(seed))
        self._num_continuous = action.num_continuous
        self._branches = [slice(*ends) for ends in pairwise(accumulate(action.branches, initial=0))]
        self._noises = np.zeros((num_agents, action.num_continuous), np.float32)  # Ornstein-Uhlenbeck's, per agent
        self._state = np.zeros((num_agents, 2 * spec.net.lstm), np.float32)
        low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        self._middle: FloatArray = (low + high) / np.float32(2)
        self._half: FloatArray = (high - low) / np.float32(2)
        rung = (lane * num_agents + np.arange(num_agents)) / max(num_lanes * num_agents - 1, 1)
        self._rungs: FloatArray = (1 + spec.ladder * rung).astype(np.float32)
        self._support = np.array(spec.support, np.float32)

    def act(self, obs: Obs, agents: IntArray) -> Decision:
        """What the policy does at its best, without exploring."""
        return self._decide(obs, agents, explore=False)

    def explore(self, obs: Obs, agents: IntArray) -> Decision:
        """What it does while training: each agent explores by itself."""
        return self._decide(obs, agents, explore=True)

    def guess(self, obs: Obs, agents: IntArray) -> Decision:
        """Anything, uniformly: before there is anything to act with."""
        n = len(agents)
        action = self._random.random((n, self._num_continuous), np.float32)
        action *= 2
        action -= 1
        choice = np.zeros((n, len(self._branches)), np.int64)
        for place, branch in enumerate(self._branches):
            choice[:, place] = self._any(n, branch, obs)
        return Decision(action, choice, *self._nothing(n), self._state[agents])

    def values(self, obs: Obs) -> FloatArray:
        """(n,) of the greedy head: what these observations are worth."""
        assert not self._spec.net.lstm, "the value of an observation alone, where the past counts"
        return self._best(self._net(obs), obs)[1]

    def restart(self, agents: IntArray) -> None:
        """These agents' episodes ended: their noise and their memory start anew, nobody else's."""
        self._noises[agents] = 0
        self._state[agents] = 0

    def to_env(self, decision: Decision) -> Action:
        """The same actions in the environment's own units."""
        action = decision.action
        if self._spec.head == "stochastic":  # the other heads stay within
            action = action.clip(-1, 1)
        return Action(action * self._half + self._middle, decision.choice)

    def _decide(self, obs: Obs, agents: IntArray, explore: bool) -> Decision:
        if self._spec.net.noisy:
            self._net.renoise(self._random) if explore else self._net.quiet()
        before = state = self._state[agents]
        if self._spec.net.lstm:
            state = before.copy()
            output = self._net(obs, state)
            self._state[agents] = state
        else:
            output = self._net(obs)
        match self._spec.head:
            case "tanh":
                action = np.tanh(output, out=output)
                if explore:
                    action = self._add_noise(action, agents)
                return Decision(action, self._no_choice(len(agents)), *self._nothing(len(agents)), before)
            case "squashed":
                mean, log_std = np.split(output, 2, axis=1)
                if explore:
                    mean = mean + np.exp(log_std.clip(*LOG_STD)) * self._random.standard_normal(mean.shape, np.float32)
                return Decision(np.tanh(mean), self._no_choice(len(agents)), *self._nothing(len(agents)), before)
            case "stochastic":
                return self._sample(output, obs, before, explore)
            case "greedy":
                choice, value = self._best(output, obs)
                if explore:
                    choice, value = self._stray(choice, value, output, obs, agents)
                return Decision(self._no_action(len(agents)), choice, np.zeros(len(agents), np.float32), value, before)

    def _add_noise(self, action: FloatArray, agents: IntArray) -> FloatArray:
        noise = self._spec.noise
        drawn = self._random.standard_normal(action.shape, np.float32)
        drawn *= self._net.extras["sigma"]
        if noise.kind == "ornstein-uhlenbeck":
            drawn += (1 - noise.theta) * self._noises[agents]
            self._noises[agents] = drawn
        drawn += action
        np.maximum(drawn, _LOWEST, out=drawn)
        return np.minimum(drawn, _HIGHEST, out=drawn)

    def _sample(self, output: FloatArray, obs: Obs, state: FloatArray, explore: bool) -> Decision:
        """A normal sample of each continuous action, a choice by its probability in each branch."""
        n, action = len(output), output[:, : self._num_continuous]
        log_prob = np.zeros(n, np.float32)
        if explore and self._num_continuous:
            log_std = self._net.extras["log_std"]
            drawn = self._random.standard_normal(action.shape, np.float32)
            noise: FloatArray = np.exp(log_std) * drawn
            action = action + noise
            log_prob -= (0.5 * drawn * drawn + log_std + _HALF_LOG_2PI).sum(axis=1)
        choice = self._no_choice(n)
        for place, branch in enumerate(self._branches):
            logits = output[:, self._num_continuous :][:, branch]
            logits = np.where(self._allowed(branch, obs, logits.shape), logits, np.float32(-np.inf))
            logits = logits - logits.max(axis=1, keepdims=True)
            scores = logits
            if explore:  # the largest of logits plus Gumbel noise is a sample
                scores = logits - np.log(-np.log(self._random.uniform(1e-38, 1, logits.shape)))
            choice[:, place] = scores.argmax(axis=1)
            log_prob += logits[np.arange(n), choice[:, place]] - np.log(np.exp(logits).sum(axis=1))
        return Decision(action, choice, log_prob, np.zeros(n, np.float32), state)

    def _best(self, output: FloatArray, obs: Obs) -> tuple[IntArray, FloatArray]:
        """(n, branches) the best choice that is allowed in each branch, and (n,) the mean of their values."""
        n = len(output)
        choice, value = self._no_choice(n), np.zeros(n, np.float32)
        worth = self._worth(output)
        for place, branch in enumerate(self._branches):
            values = np.where(self._allowed(branch, obs, worth[:, branch].shape), worth[:, branch], -np.inf)
            choice[:, place] = values.argmax(axis=1)
            value += values.max(axis=1) / len(self._branches)
        return choice, value

    def _worth(self, output: FloatArray) -> FloatArray:
        """(n, sum of the branches) the value of each choice."""
        choices = self._branches[-1].stop
        atoms: FloatArray = output.reshape(len(output), choices, self._spec.net.outputs // choices)
        if not len(self._support):
            return atoms[:, :, 0] if atoms.shape[2] == 1 else atoms.mean(axis=2)
        likely = np.exp(atoms - atoms.max(axis=2, keepdims=True))
        likely /= likely.sum(axis=2, keepdims=True)
        worth: FloatArray = likely @ self._support
        return worth

    def _stray(
        self, choice: IntArray, value: FloatArray, output: FloatArray, obs: Obs, agents: IntArray
    ) -> tuple[IntArray, FloatArray]:
        """With probability epsilon, each agent's own, any allowed choice in every branch."""
        epsilon = self._net.extras["epsilon"][0] ** self._rungs[agents]
        strays = np.flatnonzero(self._random.random(len(agents)) < epsilon)
        if not len(strays):
            return choice, value
        worth, seen = self._worth(output)[strays], {name: each[strays] for name, each in obs.items()}
        value[strays] = 0
        for place, branch in enumerate(self._branches):
            choice[strays, place] = self._any(len(strays), branch, seen)
            value[strays] += worth[np.arange(len(strays)), branch.start + choice[strays, place]] / len(self._branches)
        return choice, value

    def _any(self, n: int, branch: slice, obs: Obs) -> IntArray:
        """(n,) one of the allowed choices of a branch, each as likely."""
        size = branch.stop - branch.start
        drawn = self._random.random((n, size))
        choice: IntArray = np.where(self._allowed(branch, obs, drawn.shape), drawn, -1).argmax(axis=1)
        return choice

    def _allowed(self, branch: slice, obs: Obs, shape: tuple[int, ...]) -> BoolArray:
        """Which choices of a branch may be made; all of them where none may, as after an end."""
        if ACTION_MASK not in obs:
            return np.ones(shape, np.bool_)
        allowed: BoolArray = obs[ACTION_MASK][:, branch]
        return allowed | ~allowed.any(axis=1, keepdims=True)

    def _no_action(self, n: int) -> FloatArray:
        return np.zeros((n, 0), np.float32)

    def _no_choice(self, n: int) -> IntArray:
        return np.zeros((n, len(self._branches)), np.int64)

    def _nothing(self, n: int) -> tuple[FloatArray, FloatArray]:
        return np.zeros(n, np.float32), np.zeros(n, np.float32)
