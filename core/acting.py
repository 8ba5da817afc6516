"""From a network's output to actions, with exploration: what a worker does with a policy. numpy, per agent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from core.net import Net, NetSpec
from core.types import Action, ActionSpec, FloatArray, IntArray, Obs, require


@dataclass(frozen=True)
class Noise:
    """What is added to an action in [-1, 1] while training; each agent has its own."""

    kind: Literal["gaussian", "ornstein-uhlenbeck"] = "gaussian"
    sigma: float = 0.1
    """standard deviation of what is drawn at each decision"""
    theta: float = 0.15
    """Ornstein-Uhlenbeck only: how fast it returns to zero, per decision"""

    def __post_init__(self) -> None:
        require("sigma", self.sigma, 0 <= self.sigma <= 10, "from 0 to 10: actions lie in [-1, 1]")
        require("theta", self.theta, 0 <= self.theta <= 1, "from 0 to 1")


@dataclass(frozen=True)
class PolicySpec:
    """How workers act: a network, what its output means, and how they explore."""

    net: NetSpec
    head: Literal["tanh"]
    """tanh: the action is the tanh of the output, deterministic"""
    noise: Noise = field(default_factory=Noise)


class Policy:
    """One worker's policy over all of its agents."""

    def __init__(
        self, spec: PolicySpec, action: ActionSpec, num_agents: int, parameters: FloatArray, seed: int
    ) -> None:
        self._net = Net(spec.net, parameters)
        self._noise = spec.noise
        self._random = np.random.Generator(np.random.SFC64(seed))
        self._state = np.zeros((num_agents, action.num_continuous), np.float32)  # Ornstein-Uhlenbeck's, per agent
        low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        self._middle: FloatArray = (low + high) / np.float32(2)
        self._half: FloatArray = (high - low) / np.float32(2)

    def act(self, obs: Obs) -> FloatArray:
        """(n, num_continuous) in [-1, 1]: what the policy does, without noise."""
        output = self._net(obs)
        return np.tanh(output, out=output)

    def explore(self, obs: Obs, agents: IntArray) -> FloatArray:
        """(n, num_continuous) in [-1, 1]: the same with each agent's noise."""
        noise, shape = self._noise, (len(agents), self._state.shape[1])
        drawn = self._random.standard_normal(shape, np.float32)
        drawn *= noise.sigma
        if noise.kind == "ornstein-uhlenbeck":
            drawn += (1 - noise.theta) * self._state[agents]
            self._state[agents] = drawn
        drawn += self.act(obs)
        return np.clip(drawn, -1, 1, out=drawn)

    def guess(self, agents: IntArray) -> FloatArray:
        """(n, num_continuous) uniform in [-1, 1]: before there is anything to act with."""
        drawn = self._random.random((len(agents), self._state.shape[1]), np.float32)
        drawn *= 2
        drawn -= 1
        return drawn

    def restart(self, agents: IntArray) -> None:
        """These agents' episodes ended: their noise starts anew, nobody else's."""
        self._state[agents] = 0

    def to_env(self, action: FloatArray) -> Action:
        """The same actions in the environment's own units."""
        return Action(action * self._half + self._middle, np.zeros((len(action), 0), np.int64))

    def set_sigma(self, sigma: float) -> None:
        """Change how much the agents explore, from the next decision on. Raises ValueError as Noise does."""
        self._noise = replace(self._noise, sigma=sigma)
