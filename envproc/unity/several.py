"""Several Unity players as one environment: while one of them computes, another one's answer is decided and recorded.

A step sends the actions that it is given to the player whose agents asked for them, which goes on by itself, and
returns what the player says that was sent to longest ago. So the players take turns, and what they say alone decides
their order: where nobody asks for an action, a player goes on at once, and is heard after the others.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from core.stopwatch import Stopwatch
from core.types import Action, IntArray
from envproc.env import Ended, Place, Step
from envproc.unity.env import UnityEnv, aggregate, refuse_strangers, refuse_unknown
from envproc.unity.launch import Launched, PlayerRefused
from envproc.unity.options import UnityOptions


class Several:
    """The agents of one behaviour in `options.players_per_worker` players; player k has columns k n to k n + n - 1."""

    def __init__(
        self,
        where: str,
        areas: int,
        behavior: str,
        options: UnityOptions,
        place: Place,
        parameters: Mapping[str, float],
    ) -> None:
        """Start them all at once. Raises as UnityEnv does, and PlayerRefused if their scenes differ."""
        num = options.players_per_worker
        places = [replace(place, index=place.index * num + k, seed=place.seed + k) for k in range(num)]
        with contextlib.ExitStack() as opened:
            launched = []
            for each in places:
                launched.append(Launched(where, options, each))
                opened.callback(launched[-1].close)
            self._players: list[UnityEnv] = []
            opened.callback(self._quit)
            for own, player in zip(places, launched, strict=True):
                self._players.append(UnityEnv(where, areas, behavior, options, own, parameters, player))
            specs = [player.spec for player in self._players]
            if different := [spec for spec in specs if spec != specs[0]]:
                raise PlayerRefused(
                    f"the players of one worker differ: {specs[0]} and {different[0]}; if it is the number of agents, "
                    f"say how many there may be, as in --unity.max-agents {max(spec.num_agents for spec in specs)}"
                )
            self._opened = opened.pop_all()
        self._num = specs[0].num_agents  # of one player
        self.spec = replace(specs[0], num_agents=num * self._num)
        self._asking: list[tuple[int, int]] = []  # the players that the last Step told of, and how many rows of each
        self._at_work: deque[int] = deque()  # the others, in the order in which they were sent to
        self._resets: dict[int, set[int]] = {}  # of each player, columns of its own to be reset when it is sent to

    def reset(self, seed: int) -> Step:
        """Everybody from scratch, and everybody is told of."""
        self._at_work.clear()
        self._resets.clear()
        return self._told([(k, player.reset(seed)) for k, player in enumerate(self._players)])

    def step(self, action: Action) -> Step:
        """Send these on, and hear the next; or those of whom agents are being reset: the ends are in this Step."""
        awaited = []
        start = 0
        for k, count in self._asking:
            own = slice(start, start := start + count)
            if k in self._resets:
                ids, _ = self._players[k].ids_of(np.array(sorted(self._resets.pop(k)), np.int64))
                self._players[k].end(ids)
                awaited.append(k)
            else:
                self._at_work.append(k)
            self._players[k].send(Action(action.continuous[own], action.discrete[own]))
        if awaited:
            return self._told([(k, self._hear(k)) for k in awaited])
        while True:
            k = self._at_work.popleft()
            step = self._players[k].receive()
            if step is not None:
                return self._told([(k, step)])
            self._at_work.append(k)

    def on_turn(self, agent: int) -> bool:
        return agent // self._num not in self._at_work

    def reset_agents(self, agents: IntArray) -> None:
        """When their player is sent to; it is asked at once whether it can."""
        refuse_unknown(agents, self.spec)
        own = {k: agents[agents // self._num == k] % self._num for k in set((agents // self._num).tolist())}
        strangers = []
        for k, columns in own.items():
            strangers += [k * self._num + each for each in self._players[k].ids_of(columns)[1]]
        refuse_strangers(strangers)
        for k, columns in own.items():
            self._resets.setdefault(k, set()).update(columns.tolist())

    def set_parameter(self, name: str, value: float) -> None:
        """Each player is told at its next exchange."""
        for player in self._players:
            player.set_parameter(name, value)

    def set_time_scale(self, value: float) -> None:
        for player in self._players:
            player.set_time_scale(value)

    def time_by(self, stopwatch: Stopwatch) -> None:
        """Waiting for whose turn it is; that the others compute meanwhile does not count."""
        for player in self._players:
            player.time_by(stopwatch)

    def stats(self) -> dict[str, float]:
        """What all of them recorded, together."""
        return aggregate([player.recorded() for player in self._players])

    def close(self) -> None:
        self._opened.close()

    def _quit(self) -> None:
        """Tell all, then see each out."""
        for player in self._players:
            player.quit()
        for player in self._players:
            player.close()

    def _hear(self, k: int) -> Step:
        while (step := self._players[k].receive()) is None:
            pass
        return step

    def _told(self, steps: Sequence[tuple[int, Step]]) -> Step:
        """The steps of these players as one."""
        self._asking = [(k, len(step.agent)) for k, step in steps]
        shifted = [
            step._replace(
                agent=step.agent + k * self._num, ended=step.ended._replace(agent=step.ended.agent + k * self._num)
            )
            for k, step in steps
        ]
        if len(shifted) == 1:
            return shifted[0]
        ended = [step.ended for step in shifted]
        return Step(
            np.concatenate([step.agent for step in shifted]),
            {name: np.concatenate([step.obs[name] for step in shifted]) for name in self.spec.obs},
            np.concatenate([step.reward for step in shifted]),
            Ended(
                np.concatenate([each.agent for each in ended]),
                {name: np.concatenate([each.obs[name] for each in ended]) for name in self.spec.obs},
                np.concatenate([each.reward for each in ended]),
                np.concatenate([each.terminated for each in ended]),
            ),
        )
