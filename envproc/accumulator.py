"""From steps to rows, per agent: n-step returns, termination, truncation and forced resets live here.

Each agent has a window of up to n decisions whose rows are not complete yet. A reward counts for all of them; a
decision that is n steps old becomes a row; at the end of an episode all that is left becomes rows. No row ever
spans the end of an episode or a forced reset, and one agent's end never touches another's window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from core.acting import Decision
from core.control import Episode
from core.types import BoolArray, EnvSpec, FloatArray, IntArray, Obs, Recording, Rows, row_layout
from envproc.env import Step

End = Literal["terminated", "truncated", "reset"]


class Worth(NamedTuple):
    """What a worker's policy thinks a step's observations are worth."""

    going_on: FloatArray
    """(n,) of the agents that decide"""
    ended: FloatArray
    """(m,) of those whose episode ended"""


def said(spec: EnvSpec, recording: Recording) -> list[str]:
    """The fields of a row that are a decision's, by the same name."""
    names = {"action": spec.action.num_continuous, "choice": spec.action.branches, "log_prob": recording.ordered}
    return [name for name, is_there in names.items() if is_there]


class Accumulator:
    """The open windows of all agents of one worker."""

    def __init__(self, spec: EnvSpec, recording: Recording) -> None:
        n_step = recording.n_step
        if n_step < 1:
            raise ValueError(f"n_step {n_step}; it must be at least 1")
        agents = spec.num_agents
        layout = row_layout(spec, recording)
        self._recording, self._n_step = recording, n_step
        self._said = said(spec, recording)
        self._powers = recording.gamma ** np.arange(n_step + 1)
        # the window's decisions in rows that lack their end; an agent's k-th decision lies at k % n_step
        self._window: Rows = np.zeros((agents, n_step), layout)
        self._age = np.full((agents, n_step), -1)  # decisions since this one; -1: empty
        self._decisions = np.zeros(agents, np.int64)  # of the running episode; 0: no episode is open
        self._return = np.zeros(agents)
        self._rows: Rows = np.zeros(agents * (n_step + 1), layout)
        self.episodes: list[Episode] = []
        """episodes that ended; whoever reports them clears the list"""

    def decide(self, agents: IntArray, obs: Obs, decision: Decision) -> None:
        """These agents, seeing `obs`, decide: each opens a row."""
        place = self._decisions[agents] % self._n_step
        window = self._window
        for name, values in obs.items():
            window["obs"][name][agents, place] = values
        for name in self._said:
            window[name][agents, place] = getattr(decision, name)
        if self._recording.ordered:
            window["decision"][agents, place] = self._decisions[agents]
        if self._recording.priority:  # until the row is complete: what the policy thought this was worth
            window["priority"][agents, place] = decision.value
        window["reward"][agents, place] = 0
        self._age[agents, place] = 0
        self._decisions[agents] += 1

    def observe(self, step: Step, worth: Worth | None = None) -> Rows:
        """(k,) the rows that `step` completes, in time order for each agent; valid until the next call.

        `worth`: what the policy thinks of the step's observations, where rows carry a priority.
        """
        ended = step.ended
        count = 0
        if len(ended.agent):
            known = self._decisions[ended.agent] > 0  # an episode that ended before its first decision is nobody's
            agents = ended.agent[known]
            reward, obs = ended.reward[known], {name: values[known] for name, values in ended.obs.items()}
            terminated = ended.terminated[known]
            self._age_by_one(agents, reward)
            value = worth.ended[known] if worth else None
            count = self._complete(0, agents, obs, self._age[agents] > 0, terminated, value)
            for agent, end in zip(agents.tolist(), terminated.tolist(), strict=True):
                self._close(agent, "terminated" if end else "truncated")
        going_on = self._decisions[step.agent] > 0  # the reward of an episode's first decision belongs to no action
        agents = step.agent[going_on]
        if len(agents):
            self._age_by_one(agents, step.reward[going_on])
            obs = {name: values[going_on] for name, values in step.obs.items()}
            full = self._age[agents] == self._n_step
            value = worth.going_on[going_on] if worth else None
            count = self._complete(count, agents, obs, full, np.zeros(len(agents), np.bool_), value)
        return self._rows[:count]

    def drop(self, agents: Iterable[int]) -> list[int]:
        """Forget what these agents' episodes have open: they are being reset. Their last actions get no row.

        Returns who of them had an open episode.
        """
        dropped = []
        for agent in agents:
            if self._decisions[agent]:
                self._close(agent, "reset")
                dropped.append(agent)
        return dropped

    def _age_by_one(self, agents: IntArray, reward: FloatArray) -> None:
        """A reward arrived: it counts for every open decision, discounted by how old that is."""
        age = self._age[agents]
        is_open = age >= 0
        self._window["reward"][agents] += np.where(is_open, self._powers[age] * reward[:, None], 0)
        self._age[agents] = age + is_open
        self._return[agents] += reward

    def _complete(
        self,
        count: int,
        agents: IntArray,
        next_obs: Obs,
        complete: BoolArray,
        terminated: BoolArray,
        value: FloatArray | None,
    ) -> int:
        """Turn the (m, n_step) places marked in `complete` into rows after the first `count`; returns the new count."""
        which, place = np.nonzero(complete)
        if self._n_step > 1:  # oldest first
            order = np.lexsort((-self._age[agents[which], place], which))
            which, place = which[order], place[order]
        agent = agents[which]
        rows: npt.NDArray[Any] = self._rows[count : count + len(agent)]
        rows[:] = self._window[agent, place]
        rows["agent"] = agent
        rows["discount"] = self._powers[self._age[agent, place]] * ~terminated[which]
        for name, values in next_obs.items():
            rows["next_obs"][name] = values[which]
        if value is not None:
            rows["priority"] = np.abs(rows["reward"] + rows["discount"] * value[which] - rows["priority"])
        return count + len(agent)

    def _close(self, agent: int, end: End) -> None:
        self.episodes.append(Episode(agent, float(self._return[agent]), int(self._decisions[agent]), end))
        self._return[agent] = 0.0
        self._decisions[agent] = 0
        self._age[agent] = -1
