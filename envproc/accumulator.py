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
from core.types import EnvSpec, FloatArray, IntArray, Obs, Recording, Rows, row_layout
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
        # the window's decisions in rows that lack their end; an agent's k-th decision lies at k % n_step of its own
        self._window: Rows = np.zeros(agents * n_step, layout)
        self._age = np.full(agents * n_step, -1)  # decisions since this one; -1: empty
        self._decisions = np.zeros(agents, np.int64)  # of the running episode; 0: no episode is open
        self._return = np.zeros(agents)
        self._rows: Rows = np.zeros(agents * (n_step + 1), layout)
        # the same memory otherwise: by agent; field by field, which takes longer to look up than to fill; as whole rows
        self._reward_of, self._age_of = (each.reshape(agents, n_step) for each in (self._window["reward"], self._age))
        self._obs = {name: self._window["obs"][name] for name in spec.obs}
        self._next_obs = {name: self._rows["next_obs"][name] for name in spec.obs}
        self._whole_window, self._whole_rows = (each.view(f"V{layout.itemsize}") for each in (self._window, self._rows))
        self.episodes: list[Episode] = []
        """episodes that ended; whoever reports them clears the list"""

    def decide(self, agents: IntArray, obs: Obs, decision: Decision) -> None:
        """These agents, seeing `obs`, decide: each opens a row."""
        number = self._decisions[agents]
        place = agents * self._n_step + number % self._n_step
        window = self._window
        for name, values in obs.items():
            self._obs[name][place] = values
        for name in self._said:
            window[name][place] = getattr(decision, name)
        if self._recording.ordered:
            window["decision"][place] = number
        if self._recording.priority:  # until the row is complete: what the policy thought this was worth
            window["priority"][place] = decision.value
        window["reward"][place] = 0
        self._age[place] = 0
        self._decisions[agents] = number + 1

    def observe(self, step: Step, worth: Worth | None = None) -> Rows:
        """(k,) the rows that `step` completes, in time order for each agent; valid until the next call.

        `worth`: what the policy thinks of the step's observations, where rows carry a priority.
        """
        ended = step.ended
        is_open = self._decisions > 0
        known = is_open[ended.agent]  # an episode that ended before its first decision is nobody's
        is_open[ended.agent] = False
        going_on = is_open[step.agent].nonzero()[0]  # the reward of an episode's first decision belongs to no action
        over, terminated = ended.agent[known], ended.terminated[known]
        agents = _after(over, step.agent[going_on])
        reward = _after(ended.reward[known], step.reward[going_on])
        obs = {name: _after(ended.obs[name][known], values[going_on]) for name, values in step.obs.items()}
        age = self._age_by_one(agents, reward)
        complete = age == self._n_step
        complete[: len(over)] = age[: len(over)] > 0
        which, place = complete.nonzero()
        if self._n_step > 1:  # oldest first
            order = np.lexsort((-age[which, place], which))
            which, place = which[order], place[order]
        rows = self._rows[: len(which)]
        agent = agents[which]
        self._whole_window.take(agent * self._n_step + place, 0, self._whole_rows[: len(which)], "clip")
        rows["agent"] = agent
        lives = np.ones(len(agents), np.bool_)
        lives[: len(over)] = ~terminated
        rows["discount"] = self._powers[age[which, place]] * lives[which]
        for name, values in obs.items():
            self._next_obs[name][: len(which)] = values[which]
        if worth:
            value = _after(worth.ended[known], worth.going_on[going_on])[which]
            rows["priority"] = np.abs(rows["reward"] + rows["discount"] * value - rows["priority"])
        for each, end in zip(over.tolist(), terminated.tolist(), strict=True):
            self._close(each, "terminated" if end else "truncated")
        return rows

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

    def _age_by_one(self, agents: IntArray, reward: FloatArray) -> IntArray:
        """A reward arrived: it counts for every open decision, discounted by how old that is.

        Returns (m, n_step) how old they are now.
        """
        age = self._age_of[agents]
        is_open = age >= 0
        self._reward_of[agents] += self._powers[age] * reward[:, None]  # an empty place's is 0 again when it is taken
        age += is_open
        self._age_of[agents] = age
        self._return[agents] += reward
        return age

    def _close(self, agent: int, end: End) -> None:
        self.episodes.append(Episode(agent, float(self._return[agent]), int(self._decisions[agent]), end))
        self._return[agent] = 0.0
        self._decisions[agent] = 0
        self._age_of[agent] = -1


def _after(ended: npt.NDArray[Any], going_on: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Both, one after the other; most of the time nobody ended."""
    return np.concatenate((ended, going_on)) if len(ended) else going_on
