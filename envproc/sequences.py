"""From steps to rows that are sequences of one agent's decisions, for recurrent learners.

An agent's sequences overlap: each begins `stride` decisions after the one before, with the recurrent state that the
agent had there (Kapturowski et al. 2019, section 2.3). None spans the end of an episode: the last one of an episode is
as long as it is, and `valid` tells how far.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from core.acting import Decision
from core.control import Episode
from core.types import EnvSpec, FloatArray, IntArray, Obs, Recording, Rows, row_layout
from envproc.accumulator import End, Worth, said
from envproc.env import Step


class Sequences:
    """The open sequences of all agents of one worker; the same calls as Accumulator."""

    def __init__(self, spec: EnvSpec, recording: Recording) -> None:
        agents, length = spec.num_agents, recording.length
        layout = row_layout(spec, recording)
        self._length, self._stride, self._gamma = length, recording.stride, recording.gamma
        self._said, self._fields = said(spec, recording), list(spec.obs)
        self._open: Rows = np.zeros(agents, layout)
        self._states: FloatArray = np.zeros((agents, length, recording.state_dim), np.float32)
        self._filled = np.zeros(agents, np.int64)  # decisions in the open sequence
        self._decisions = np.zeros(agents, np.int64)  # of the running episode
        self._return = np.zeros(agents)
        self._rows: Rows = np.zeros(agents, layout)
        self.episodes: list[Episode] = []
        """episodes that ended; whoever reports them clears the list"""

    def decide(self, agents: IntArray, obs: Obs, decision: Decision) -> None:
        """These agents, seeing `obs`, decide."""
        place = self._filled[agents]
        for name, values in obs.items():
            self._open["obs"][name][agents, place] = values
        for name in self._said:
            self._open[name][agents, place] = getattr(decision, name)
        self._states[agents, place] = decision.state
        self._filled[agents] += 1
        self._decisions[agents] += 1

    def observe(self, step: Step, worth: Worth | None = None) -> Rows:
        """(k,) the sequences that `step` completes; valid until the next call."""
        ended = step.ended
        count = 0
        known = self._decisions[ended.agent] > 0  # an episode that ended before its first decision is nobody's
        agents, terminated = ended.agent[known], ended.terminated[known]
        self._earn(agents, ended.reward[known], self._gamma * ~terminated)
        self._see(agents, {name: values[known] for name, values in ended.obs.items()})
        for agent, end in zip(agents.tolist(), terminated.tolist(), strict=True):
            count = self._emit(agent, count)
            self._close(agent, "terminated" if end else "truncated")
        going_on = self._decisions[step.agent] > 0  # the reward of an episode's first decision belongs to no action
        agents = step.agent[going_on]
        self._earn(agents, step.reward[going_on], self._gamma)
        full = self._filled[step.agent] == self._length  # the others see the step when they decide
        agents = step.agent[full]
        self._see(agents, {name: values[full] for name, values in step.obs.items()})
        for agent in agents.tolist():
            count = self._emit(agent, count)
            self._slide(agent)
        return self._rows[:count]

    def drop(self, agents: Iterable[int]) -> list[int]:
        """Forget what these agents have open: they are being reset. Returns who of them had an open episode."""
        dropped = []
        for agent in agents:
            if self._decisions[agent]:
                self._close(agent, "reset")
                dropped.append(agent)
        return dropped

    def _earn(self, agents: IntArray, reward: FloatArray, discount: FloatArray | float) -> None:
        """What became of these agents' last decisions."""
        last = self._filled[agents] - 1
        self._open["reward"][agents, last] = reward
        self._open["discount"][agents, last] = discount
        self._return[agents] += reward

    def _see(self, agents: IntArray, obs: Obs) -> None:
        """What these agents observe after their last decisions."""
        for name, values in obs.items():
            self._open["obs"][name][agents, self._filled[agents]] = values

    def _emit(self, agent: int, count: int) -> int:
        """Make a row of what is open of this agent, as number `count`; returns the new count."""
        row, filled = self._rows[count : count + 1], int(self._filled[agent])
        row[:] = self._open[agent]
        row["agent"] = agent
        row["valid"] = np.arange(self._length) < filled
        row["state"] = self._states[agent, 0]
        for name in ("reward", "discount", *self._said):
            row[name][:, filled:] = 0  # of an earlier sequence
        for name in self._fields:
            row["obs"][name][:, filled + 1 :] = row["obs"][name][:, filled : filled + 1]
        return count + 1

    def _slide(self, agent: int) -> None:
        """The next sequence begins `stride` decisions later."""
        kept = self._length - self._stride
        observed = [self._open["obs"][name] for name in self._fields]
        for values in (self._states, *observed, *[self._open[name] for name in (*self._said, "reward", "discount")]):
            values[agent, :kept] = values[agent, self._stride : self._length].copy()
        self._filled[agent] = kept

    def _close(self, agent: int, end: End) -> None:
        self.episodes.append(Episode(agent, float(self._return[agent]), int(self._decisions[agent]), end))
        self._return[agent] = 0.0
        self._decisions[agent] = self._filled[agent] = 0
