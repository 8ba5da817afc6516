"""Sums along an agent's time, over rollouts in which agents stand one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from algos.nets import FAR, Normalizer
from core.rollout import Rollout
from core.types import FloatArray

_LARGEST = 10.0


def sum_backwards(steps: npt.NDArray[np.floating], carry: npt.NDArray[np.floating]) -> FloatArray:
    """(n,) s with s[i] = steps[i] + carry[i] s[i + 1]; carry is 0 where the next row is no continuation.

    A loop over plain numbers: the stretches are ragged, and for some thousand rows nothing is faster than 0.1 us each.
    """
    total, sums = 0.0, []
    for step, factor in zip(steps[::-1].tolist(), carry[::-1].tolist(), strict=True):
        total = step + factor * total
        sums.append(total)
    return np.array(sums[::-1], np.float32)


class RewardScale:
    """Rewards over the running standard deviation of each agent's discounted return so far, within +-10.

    The return of an episode goes on from one rollout to the next. A mean is not subtracted: that would change the task.
    """

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._returns: FloatArray = np.zeros(0, np.float32)
        """(agents,) up to the last rollout"""
        self._normalizer = Normalizer(1)

    def __call__(self, rollout: Rollout) -> FloatArray:
        """(n,) the rollout's rewards, scaled. Counts them in."""
        agent, reward = rollout.agent, rollout.reward.copy()
        missing = int(agent.max()) + 1 - len(self._returns)
        self._returns = np.pad(self._returns, (0, max(missing, 0)))
        follows = np.concatenate([[False], rollout.follows[:-1]])  # the row before
        goes_on = np.flatnonzero((np.diff(agent, prepend=-1) != 0) & (rollout.decision > 0))
        reward[goes_on] += self._gamma * self._returns[agent[goes_on]]
        returns = sum_backwards(reward[::-1], (self._gamma * follows)[::-1])[::-1].clip(-FAR, FAR)
        self._returns[agent] = returns  # an agent's last row stays
        self._normalizer.count(torch.from_numpy(returns.copy())[:, None])
        scaled: FloatArray = (rollout.reward * self._normalizer.scale.numpy()).clip(-_LARGEST, _LARGEST)
        return scaled

    def state_dict(self) -> dict[str, Any]:
        return {"returns": torch.from_numpy(self._returns), "normalizer": self._normalizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._returns = state["returns"].numpy().copy()
        self._normalizer.load_state_dict(state["normalizer"])
