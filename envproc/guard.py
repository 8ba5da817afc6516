"""Guard: no bad number of an environment, or of a policy, reaches a policy or a row.

A number is bad if it is NaN, infinite or beyond float32, and a reward if the sum over its n-step window could be. What
such a number stands in is refused: the rows that its agent has not completed yet are dropped, the agent sees zeros for
the one decision until the environment has ended its episode, which is asked of it, and that decision makes no row
either. The others do not notice. An environment that cannot end single agents' episodes, or that gives bad numbers all
the time, is a failure.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from core.acting import Decision, Policy
from core.ring import Word, Writer
from core.types import BoolArray, FloatArray, IntArray, Obs, Recording
from envproc.accumulator import Accumulator, said
from envproc.contract import check_form
from envproc.env import LARGEST, BadNumber, CannotReset, Env, Step, refuse_bad_numbers
from envproc.sequences import Sequences

_MOST, _WITHIN = 10, 1000
"""agent steps refused among so many; beyond that it is no accident"""
_LOOK_CLOSELY = 100
"""steps at the beginning, and from then on one of so many, whose form is looked at in every respect"""
_NOBODY = np.zeros(0, np.int64)
_FLOAT32, _BOOL = np.dtype(np.float32), np.dtype(np.bool_)


class Guard:
    """Of one worker."""

    def __init__(
        self, env: Env, recording: Recording, accumulator: Accumulator | Sequences, policy: Policy, writer: Writer
    ) -> None:
        self._env, self._accumulator, self._policy, self._writer = env, accumulator, policy, writer
        self._spec = env.spec
        self._fields = [(name, each.shape, np.dtype(each.dtype)) for name, each in env.spec.obs.items()]
        self._decided = [name for name in said(env.spec, recording) if name != "choice"]
        self._decided += ["state"] * bool(recording.state_dim)
        self._largest_reward = np.float32(LARGEST / recording.n_step)
        self._steps = 0
        self._blind: IntArray = _NOBODY
        """who sees zeros now, and whose decision makes no row"""
        self._refused: deque[int] = deque(maxlen=_MOST + 1)  # the lane's decisions at the last ones

    def observe(self, step: Step) -> Step:
        """The step as policy and rows may see it, with zeros in the place of what is bad.

        Raises BadNumber, or Broken for a step that has not the form that the spec says.
        """
        self._steps += 1
        if self._steps <= _LOOK_CLOSELY or not self._steps % _LOOK_CLOSELY or not self._fits(step):
            check_form(f"the environment's step {self._steps - 1}", self._spec, step)
        self._blind = _NOBODY
        try:
            refuse_bad_numbers(step, self._largest_reward)
        except BadNumber as bad:
            return self._without_bad(step, str(bad))
        return step

    def decide(self, agents: IntArray, obs: Obs, decision: Decision) -> None:
        """Have the accumulator record what is decided; `decision` gets zeros in the place of what is bad.

        Raises BadNumber.
        """
        for name in self._decided:
            values = getattr(decision, name)
            if np.count_nonzero(np.isfinite(values)) < values.size:
                self._without_bad_decisions(agents, decision, name, values)
        if len(self._blind):
            seeing = ~np.isin(agents, self._blind)
            agents, obs = agents[seeing], {name: values[seeing] for name, values in obs.items()}
            decision = Decision._make(values[seeing] for values in decision)
        self._accumulator.decide(agents, obs, decision)

    def _fits(self, step: Step) -> bool:
        """Whether shapes and dtypes are as they were when they were looked at closely."""
        ended = step.ended
        if not self._side_fits(step.agent, step.obs, step.reward):
            return False
        if not len(ended.agent):
            return True
        return self._side_fits(ended.agent, ended.obs, ended.reward) and ended.terminated.dtype == _BOOL

    def _side_fits(self, agents: IntArray, obs: Obs, reward: FloatArray) -> bool:
        count = len(agents)
        if count > self._spec.num_agents or len(obs) != len(self._fields):
            return False
        if reward.shape != (count,) or reward.dtype != _FLOAT32:
            return False
        for name, shape, dtype in self._fields:
            values = obs.get(name)
            if values is None or values.shape != (count, *shape) or values.dtype != dtype:
                return False
        return True

    def _without_bad(self, step: Step, why: str) -> Step:
        ended = step.ended
        at_end = self._bad(ended.obs, ended.reward)
        going_on = self._bad(step.obs, step.reward)
        # whoever ended well before a bad beginning keeps the rows of that end
        lost = self._accumulator.drop(ended.agent[at_end].tolist())
        self._blind = step.agent[going_on]
        self._accumulator.drop(np.setdiff1d(self._blind, ended.agent).tolist())
        # of an end that nobody waited for, as that of an agent that saw zeros, nothing is refused
        self._refuse(np.union1d(lost, self._blind).astype(np.int64), self._blind, why)
        last = ended._replace(obs=_zeroed(ended.obs, at_end), reward=np.where(at_end, 0, ended.reward))
        return Step(step.agent, _zeroed(step.obs, going_on), np.where(going_on, 0, step.reward), last)

    def _bad(self, obs: Obs, reward: FloatArray) -> BoolArray:
        """(n,) whose numbers are."""
        bad: BoolArray = ~(np.abs(reward) <= self._largest_reward)
        for values in obs.values():
            if values.dtype.kind == "f":
                bad |= ~_all_of_each(np.abs(values) <= LARGEST)
        return bad

    def _without_bad_decisions(self, agents: IntArray, decision: Decision, name: str, values: FloatArray) -> None:
        """Zeros for the agents about whom the policy says something that is not finite."""
        bad = ~_all_of_each(np.isfinite(values))
        for each in decision:
            if each.dtype.kind == "f":
                each[bad] = 0
        newly = np.setdiff1d(agents[bad], self._blind)
        self._blind = np.union1d(self._blind, newly)
        self._accumulator.drop(newly.tolist())
        self._refuse(newly, newly, f"the policy gave agent {agents[bad][0]} a number that is not finite as its {name}")

    def _refuse(self, agents: IntArray, going_on: IntArray, why: str) -> None:
        """Count these, and have the episodes of those that go on ended. Raises BadNumber."""
        self._policy.restart(going_on)
        self._writer.count(Word.REFUSED, len(agents))
        now = self._writer.words.item(Word.DECISIONS)
        self._refused.extend([now] * len(agents))
        if len(self._refused) > _MOST and now - self._refused[0] < _WITHIN:
            raise BadNumber(f"{why}; more than {_MOST} agent steps were refused within {_WITHIN:,}")
        if len(going_on):
            try:
                self._env.reset_agents(going_on)
            except CannotReset as error:
                raise BadNumber(f"{why}, and cannot end that episode alone: {error}") from error


def _all_of_each(good: BoolArray) -> BoolArray:
    """(n, ...) -> (n,)"""
    each: BoolArray = np.asarray(good.all(axis=tuple(range(1, good.ndim))))
    return each


def _zeroed(obs: Obs, bad: BoolArray) -> dict[str, npt.NDArray[Any]]:
    """The numbers of whoever is `bad`; masks and images of bytes stay."""
    result = {}
    for name, values in obs.items():
        result[name] = values
        if values.dtype.kind == "f":
            result[name] = values.copy()
            result[name][bad] = 0
    return result
