"""The part of ML-Agents that runs inside a Unity player: the Academy, and what it keeps of each agent.

One Academy step, as Unity runs it once per physics step:

    1. who is due asks for a decision: every `decision_period` steps of the Academy's own count
    2. the count and every agent's count of steps grow
    3. what was asked for is collected behind the ends that are queued; if there is anything, and somebody alive to send
       it, one exchange with the trainer follows: side channels, then the command, then the actions, by position
    4. everybody acts: by its new action, its last one again, or zero if it has begun anew since; MaxStep is looked at
    5. 0.02 s pass

An end is queued at once, with what the agent saw before it began anew, and leaves with the next step's exchange: so an
exchange may hold ends and no decisions, and an agent's end and its next decision may stand in one. A second end before
the next decision is not told. An id is an agent's from when it is enabled until it is disabled, through all episodes.

A scene is a list of Behaviours. To write one, give the attributes and three methods; renew.py is the shortest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.types import BoolArray, FloatArray, IntArray

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sensor:
    """One observation, as it is described on the wire. A behaviour's sensors stand in the order of their names."""

    name: str
    shape: tuple[int, ...]
    properties: tuple[int, ...] = (1,)
    """one a dimension: 1 nothing special, 2 translational, 4 variable size, or their sum"""
    goal: bool = False
    png: bool = False
    """observe() gives (m, height, width, channels) as uint8, sent as one PNG for every 3 channels"""


class Infos(NamedTuple):
    """m agents' AgentInfoProtos: decisions, or ends of one kind."""

    id: IntArray
    obs: list[Array]
    """one (m, ...) a sensor"""
    reward: FloatArray
    group: IntArray
    group_reward: FloatArray
    mask: BoolArray | None = None
    """(m, sum of the branches) True: forbidden"""
    done: bool = False
    interrupted: bool = False


class Reply(NamedTuple):
    """The trainer's answer to an exchange."""

    reset: bool
    actions: Mapping[str, tuple[FloatArray, IntArray]]
    """behaviour key -> continuous (m, n) and discrete (m, branches), a row for each who asked"""


Exchange = Callable[[Mapping[str, Sequence[Infos]]], Reply]


def streams(seed: int, slots: int) -> list[np.random.Generator]:
    """A random stream for each agent, so that nobody notices what the others draw."""
    return [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(slot,))) for slot in range(slots)]


class Behaviour:
    """One kind of agent. There are `slots` places for such agents; an argument `slots` names some of the places."""

    name: str
    team = 0
    slots: int
    sensors: tuple[Sensor, ...]
    continuous = 0
    branches: tuple[int, ...] = ()
    decision_period = 5
    max_step = 0
    """Academy steps after which an episode is interrupted; 0: never"""

    def start(self, agents: Agents) -> None:
        """The scene was loaded: enable who is there from the start."""
        for slot in range(self.slots):
            agents.enable(slot)

    def begin(self, agents: Agents, slots: IntArray) -> None:
        """OnEpisodeBegin of these."""
        raise NotImplementedError

    def observe(self, agents: Agents, slots: IntArray) -> list[Array]:
        """One array a sensor, in it a row for each of these."""
        raise NotImplementedError

    def mask(self, agents: Agents, slots: IntArray) -> BoolArray | None:
        """Which choices are forbidden now; see Infos."""
        return None

    def act(self, agents: Agents) -> None:
        """OnActionReceived of agents.acting, by agents.continuous and agents.discrete: rewards and ends."""
        raise NotImplementedError

    def simulate(self, agents: Agents) -> None:
        """0.02 s pass."""

    def parameter(self, name: str, value: float) -> None:
        """An environment parameter was set."""


class Agents:
    """What Unity keeps of the agents of one behaviour; all arrays by slot."""

    def __init__(self, behaviour: Behaviour, first: int, ids: Iterator[int]) -> None:
        num = behaviour.slots
        self.key = f"{behaviour.name}?team={behaviour.team}"
        self.behaviour = behaviour
        self.first = first
        """stable index of slot 0: a number that outlives the ids"""
        self.alive = np.arange(0)
        """slots in the order of enabling: the order on the wire"""
        self.id = np.zeros(num, np.int64)
        self.steps = np.zeros(num, np.int64)
        self.episode = np.full(num, -1)
        self.decision = np.zeros(num, np.int64)
        """how many decisions the episode has asked for"""
        self.reward, self.group_reward = np.zeros((2, num), np.float32)
        self.group = np.zeros(num, np.int64)
        self.ended = np.zeros(num, np.bool_)
        """the latch: since its end, the agent has asked for no decision"""
        self.continuous = np.zeros((num, behaviour.continuous), np.float32)
        self.discrete = np.zeros((num, len(behaviour.branches)), np.int64)
        self.stats: list[tuple[str, float, int]] = []
        """(name, value, aggregation) for the trainer's log; aggregation 0: average, 1: last, 2: sum"""
        self.queue: list[Infos] = []
        self._acts = np.zeros(num, np.bool_)
        self._asked = self.alive
        self._begun = False
        self._ids = ids
        behaviour.start(self)

    def trace(self, slots: IntArray) -> FloatArray:
        """(m, 3) id, episode, decision: what a scene puts into its observations for tests to follow each agent by."""
        return np.stack([self.id[slots], self.episode[slots], self.decision[slots]], axis=1).astype(np.float32)

    @property
    def acting(self) -> IntArray:
        """Slots that receive an action in this step: all alive but who ended after the decisions were asked for."""
        return self.alive[self._acts[self.alive]]

    def enable(self, slot: int) -> None:
        """An agent appears there, with a new id."""
        self.id[slot] = next(self._ids)
        self.alive = np.append(self.alive, slot)
        self.ended[slot] = False
        self._forget(np.array([slot]))
        if self._begun:
            self.begin(np.array([slot]))

    def disable(self, slot: int) -> None:
        """The agent disappears, which is told as an end, unless its last end is yet to be followed by a decision."""
        if not self.ended[slot]:
            self.queue.append(self._infos(np.array([slot]), done=True))
        self.alive = self.alive[self.alive != slot]

    def end(self, slots: IntArray, interrupted: bool = False) -> None:
        """EndEpisode, or EpisodeInterrupted, of these: queue what they see and begin anew, now."""
        told = slots[~self.ended[slots]]
        if told.size:
            self.queue.append(self._infos(told, done=True, interrupted=interrupted))
            self.ended[told] = True
            self._forget(told)
        if slots.size:
            self.begin(slots)

    def begin(self, slots: IntArray) -> None:
        self.steps[slots] = 0
        self.episode[slots] += 1
        self.decision[slots] = 0
        self._begun = True
        self.behaviour.begin(self, slots)

    def collect(self, academy_count: int) -> None:
        """Steps 1 to 3: who is due asks."""
        self._acts[self.alive] = True
        self.steps[self.alive] += 1
        self._asked = self.alive if academy_count % self.behaviour.decision_period == 0 else self.alive[:0]
        if self._asked.size:
            mask = self.behaviour.mask(self, self._asked)
            self.queue.append(self._infos(self._asked)._replace(mask=mask))
            self.ended[self._asked] = False
            self._silence(self._asked)
            self.decision[self._asked] += 1

    def obey(self, continuous: FloatArray, discrete: IntArray) -> None:
        """A row of action for each who asked. Who was made to end meanwhile ignores it."""
        if len(continuous) != self._asked.size:
            raise ValueError(f"{len(continuous)} actions for {self._asked.size} agents of {self.key} that asked")
        still = ~self.ended[self._asked]
        self.continuous[self._asked[still]] = continuous[still]
        self.discrete[self._asked[still]] = discrete[still]

    def act(self) -> None:
        """Step 4. Who has just begun anew stands at step 0, so that an end of its own comes before MaxStep."""
        self.behaviour.act(self)
        if self.behaviour.max_step:
            self.end(self.alive[self.steps[self.alive] >= self.behaviour.max_step], interrupted=True)

    def _infos(self, slots: IntArray, done: bool = False, interrupted: bool = False) -> Infos:
        obs = self.behaviour.observe(self, slots)
        reward, group_reward = self.reward[slots], self.group_reward[slots]
        return Infos(self.id[slots], obs, reward, self.group[slots], group_reward, None, done, interrupted)

    def _silence(self, slots: IntArray) -> None:
        """What was earned has been told; the old action is no more, and what comes in its place is zero."""
        self.reward[slots], self.group_reward[slots] = 0.0, 0.0
        self.continuous[slots], self.discrete[slots] = 0.0, 0

    def _forget(self, slots: IntArray) -> None:
        self._silence(slots)
        self._acts[slots] = False


class Academy:
    """All agents of a scene, stepped together."""

    def __init__(self, scene: Sequence[Behaviour]) -> None:
        ids = count()  # one for all behaviours; never starts again
        first = np.cumsum([0, *(behaviour.slots for behaviour in scene)]).tolist()
        self.agents = [Agents(each, index, ids) for each, index in zip(scene, first, strict=False)]
        self._count = 0
        self._begun = False

    def step(self, exchange: Exchange) -> None:
        """One Academy step and the 0.02 s after it."""
        if not self._begun:
            self._begun = True
            self._begin()
        for each in self.agents:
            each.collect(self._count)
        self._count += 1
        if any(each.queue for each in self.agents) and any(each.alive.size for each in self.agents):
            told = {each.key: each.queue for each in self.agents}
            for each in self.agents:
                each.queue = []  # before the exchange: an end that it causes belongs to the next
            reply = exchange(told)
            if reply.reset:
                # Nobody's end is told, and this step goes on: everybody acts once before the first decision.
                self._count = 0
                self._begin()
            for each in self.agents:
                if each.key in reply.actions:
                    each.obey(*reply.actions[each.key])
        for each in self.agents:
            each.act()
        for each in self.agents:
            each.behaviour.simulate(each)

    def interrupt(self, ids: Sequence[int]) -> set[int]:
        """EpisodeInterrupted of these, wherever they are in their episodes; returns those who are there."""
        ended: set[int] = set()
        for each in self.agents:
            slots = each.alive[np.isin(each.id[each.alive], ids)]
            each.end(slots, interrupted=True)
            ended.update(each.id[slots].tolist())
        return ended

    def _begin(self) -> None:
        for each in self.agents:
            each.begin(each.alive)
