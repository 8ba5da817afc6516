"""Evaluations: the evaluator plays the policy as it is now, every so many agent steps, and the best one is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch

from core.control import Evaluate, Evaluated, Server
from core.learner import Learner
from core.types import FloatArray
from core.weights import Weights

EVALUATOR = "evaluator"
"""its name"""
LONGEST_S = 600.0
"""that an evaluation may take"""


@dataclass(frozen=True)
class Evaluation:
    """Exactly these parameters had these returns."""

    parameters: FloatArray
    """(P,)"""
    update: int
    """the learner's update count when they were published"""
    returns: list[float]
    lengths: list[int]

    @cached_property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    def figures(self) -> dict[str, Any]:
        """For its record."""
        return {
            "updates": self.update,
            "episodes": len(self.returns),
            "return_mean": self.mean,
            "return_std": float(np.std(self.returns)),
            "return_min": min(self.returns),
            "length_mean": float(np.mean(self.lengths)),
        }


class Evaluations:
    """All of one run."""

    def __init__(
        self, learner: Learner, server: Server, weights: Weights, every: int | None, episodes: int, seed: int
    ) -> None:
        """`weights`: where the evaluator finds what to play; `every`: agent steps between two, None: there is no
        evaluator; `episodes`: at least so many make one."""
        self.newest: Evaluation | None = None
        self.best: Evaluation | None = None
        """the one with the highest mean return; the newer of equals"""
        self._learner, self._server, self._weights = learner, server, weights
        self._every, self._episodes, self._seed = every, episodes, seed
        self._request = 0
        self.count = 0
        """of those that were finished"""
        self._asked: FloatArray | None = None  # the parameters whose evaluation is under way
        self._asked_at = 0.0
        self._unsent: Evaluate | None = None  # the request for it, if the evaluator could not hear it yet
        self._next = every or 0

    @property
    def wanted(self) -> bool:
        """Whether there are any at all."""
        return bool(self._every)

    @property
    def under_way(self) -> bool:
        return self._asked is not None

    def due(self, agent_steps: int) -> bool:
        """Whether it is time for another after so many, and none is under way."""
        return bool(self._every and not self.under_way and self._learner.updates and agent_steps >= self._next)

    def ask(self) -> None:
        """Have the evaluator play the policy as it is now. A policy that is not finite is not played."""
        self._next = self._learner.agent_steps + (self._every or 0)
        parameters = self._learner.policy().copy()
        if not self._weights.publish(parameters, self._learner.updates):
            return
        self._request += 1
        self._asked = parameters
        self.ask_again()

    def ask_again(self) -> None:
        """For what is under way; whoever was asked may have been lost."""
        if self.under_way:
            self._unsent = Evaluate(self._request, self._episodes, self._seed + self._request)
            self._asked_at = time.monotonic()
            self.send()

    @property
    def hangs(self) -> bool:
        """Whether an answer has been waited for too long."""
        return self.under_way and self._unsent is None and time.monotonic() > self._asked_at + LONGEST_S

    def send(self) -> None:
        """Send what could not be sent yet: an evaluator that is still starting cannot hear."""
        if self._unsent is not None and self._server.send(EVALUATOR, self._unsent):
            self._unsent = None

    def note(self, answer: Evaluated) -> Evaluation | None:
        """What became of the last request; None if this answers another one."""
        if self._asked is None or answer.request != self._request or not answer.returns:
            return None
        self.newest = Evaluation(self._asked, answer.update, answer.returns, answer.lengths)
        if self.best is None or self.newest.mean >= self.best.mean:
            self.best = self.newest
        self._asked = None
        self.count += 1
        return self.newest

    def policy_to_keep(self) -> FloatArray:
        """(P,) the policy with the best evaluation; before there is any, the policy as it is."""
        return self._learner.policy().copy() if self.best is None else self.best.parameters

    def state_dict(self) -> dict[str, Any]:
        """What was found so far. An evaluation that is under way is forgotten, and due again."""
        found = {"newest": self.newest, "best": self.best}
        return {
            "request": self._request - self.under_way,
            "next": self._learner.agent_steps if self.under_way else self._next,
            **{name: None if each is None else _as_state(each) for name, each in found.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._request, self._next = state["request"], state["next"]
        self.newest, self.best = (
            None if each is None else Evaluation(**{**each, "parameters": each["parameters"].numpy()})
            for each in (state["newest"], state["best"])
        )


def _as_state(evaluation: Evaluation) -> dict[str, Any]:
    state = {each.name: getattr(evaluation, each.name) for each in fields(evaluation)}
    return {**state, "parameters": torch.from_numpy(evaluation.parameters)}
