"""An environment worker: obey, act, step, append, fetch; then again.

`python -m envproc.worker CONFIG` is the process; `Worker` is the same work as an object, which `--mode single` turns
without any process. A worker imports neither torch nor an algorithm: it starts in a fifth of a second and weighs
little, and its policy is data (core/acting.py).
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from core.acting import Policy
from core.control import (
    Answer,
    Begin,
    Client,
    Command,
    Episodes,
    Evaluate,
    Ready,
    Renew,
    Reset,
    Set,
    Stats,
    Stop,
)
from core.net import num_parameters
from core.ring import Ring, Word
from core.stopwatch import Stopwatch
from core.trace import Track, TrackAddress, stopwatch
from core.weights import Follower, Weights
from envproc import EnvConfig, make_env
from envproc.accumulator import Accumulator, Worth
from envproc.env import CannotReset, Env, HasLink, HasStats, Place, TakesTurns
from envproc.frames import Frames
from envproc.guard import Guard
from envproc.process import obey_set, parent_is_gone, serve
from envproc.sequences import Sequences

_SHORTEST_NAP_S, _LONGEST_NAP_S, _LONGER = 0.0002, 0.01, 1.25
"""how long a worker that may not go on sleeps before it looks again: a little longer each time, for looking takes time
from those that it waits for"""
_ALL_LOOK_EVERY_S = 0.001
"""at most: each of very many naps longer, or their looking would keep whole cores busy"""
_REPORT_EVERY_S = 0.05
_MOST_EPISODES = 500
"""in one message"""
_STATS_EVERY_S = 1.0


@dataclass(frozen=True)
class WorkerConfig:
    """All that a worker is told at birth; it travels as JSON. The rest comes with Begin."""

    name: str
    env: EnvConfig
    seed: int
    control: str
    """address of the control channel"""
    lane: int
    epoch: int = 0
    logs: str = ""
    """the directory for what its environment writes"""
    trace: TrackAddress | None = None
    """its track, if the run is traced"""


class _Seeds(NamedTuple):
    """What is random in one life of a lane's worker."""

    env: int
    policy: int
    launch: int


@dataclass
class _Pending:
    """A reset that one of the next steps does, and its end answers."""

    order: Reset
    left: set[int]
    """whose turn has not come yet"""
    failed: set[int] = field(default_factory=set)
    """who was not ended all the same"""


class Worker:
    """The environment, the policy and the lane of one worker."""

    def __init__(self, config: WorkerConfig, client: Client) -> None:
        started = time.monotonic()
        self._config, self._client = config, client
        where = Place(config.lane, self._seeds(config.epoch).launch, config.logs)
        self._env: Env = make_env(config.env, where)
        self._opened = contextlib.ExitStack()
        self._opened.callback(self._env.close)
        self._agents = range(self._env.spec.num_agents)
        self._resets: list[_Pending] = []
        self._on_turn = self._env.on_turn if isinstance(self._env, TakesTurns) else lambda _: True
        self._begun = False
        self._workers = 1
        self._stopwatch = Stopwatch(np.zeros(Word.WORDS, np.int64))  # nobody looks, before Begin
        self._stopping = False
        self._next_report = self._next_stats = 0.0
        try:
            self._step = self._env.reset(self._seeds(config.epoch).env)
        except BaseException:
            self._opened.close()
            raise
        self._client.send(Ready(config.name, os.getpid(), time.monotonic() - started, self._env.spec))

    def _seeds(self, epoch: int) -> _Seeds:
        return _Seeds(*np.random.SeedSequence([self._config.seed, self._config.lane, epoch]).generate_state(3).tolist())

    def _begin(self, begin: Begin) -> None:
        self._ring = self._opened.enter_context(Ring.attach(begin.ring, self._env.spec))
        self._weights = self._opened.enter_context(Weights.attach(begin.weights, num_parameters(begin.policy.net)))
        self._follower = Follower(self._weights)
        trace = self._config.trace
        self._track = None if trace is None else self._opened.enter_context(contextlib.closing(Track.attach(trace)))
        self._policy_spec, self._recording = begin.policy, begin.ring.recording
        self._workers = begin.workers
        self._live(self._config.epoch)
        self._begun = True

    def _renew(self, renew: Renew) -> None:
        """Forget all that a worker which is started in this epoch would not know."""
        self._step = self._env.reset(self._seeds(renew.epoch).env)
        for each in self._resets:
            self._answer(each.order.request, True, f"agents {each.order.agents}: everybody began anew")
        self._resets.clear()
        unreported = self._accumulator.episodes
        self._live(renew.epoch)
        self._accumulator.episodes = unreported
        self._answer(renew.request, True, f"epoch {renew.epoch}")

    def _live(self, epoch: int) -> None:
        """Begin with what the environment shows now."""
        spec, lane = self._env.spec, self._config.lane
        self._writer = self._ring.writer(lane, epoch)
        self._stopwatch = stopwatch(self._writer.words, self._track)
        self._stopwatch.start()  # what comes next may be a nap
        if isinstance(self._env, HasLink):
            self._env.time_by(stopwatch(self._writer.words, self._track))
        self._policy = Policy(
            self._policy_spec,
            spec.action,
            spec.num_agents,
            self._follower.parameters,
            self._seeds(epoch).policy,
            lane % self._workers,
            self._workers,
        )
        self._accumulator = (Sequences if self._recording.length else Accumulator)(spec, self._recording)
        self._guard = Guard(self._env, self._recording, self._accumulator, self._policy, self._writer)
        self._step = self._guard.observe(self._step)
        self._frames = Frames(spec, self._writer)
        self._recorded = self._frames.record(self._step)

    def run(self) -> None:
        """Work until told to stop, or until the main process is gone."""
        nap_s = _SHORTEST_NAP_S
        while not self.stopping and not parent_is_gone():
            if self.turn():
                nap_s = _SHORTEST_NAP_S
            else:
                time.sleep(nap_s)
                nap_s = min(nap_s * _LONGER, max(_LONGEST_NAP_S, _ALL_LOOK_EVERY_S * self._workers))
                if self._begun:
                    self._stopwatch.lap(Word.WAITED_NS)

    @property
    def stopping(self) -> bool:
        return self._stopping or (self._begun and bool(self._writer.words.item(Word.STOP)))

    def turn(self) -> bool:
        """One environment step. False, and no step, before Begin, or ahead of the learner."""
        self._stopwatch.start()
        for command in self._client.receive():
            self._obey(command)
        if not self._begun:
            return False
        stopwatch = self._stopwatch  # Begin and Renew bring another
        self._writer.count(Word.ALIVE)
        self._report()
        if not self._writer.may_go_on():
            return False
        if self._follower.fetch():
            self._writer.words[Word.ACTING_UPDATE] = self._follower.update
        has_policy = self._follower.version > 0
        if self._recording.ordered and not has_policy:
            return False
        stopwatch.lap(Word.FETCH_NS)
        step, recorded = self._step, self._recorded
        decision = (self._policy.explore if has_policy else self._policy.guess)(step.obs, step.agent)
        self._guard.decide(step.agent, recorded.obs, decision)
        dropped = self._drop_open_episodes()
        action = self._policy.to_env(decision)
        stopwatch.lap(Word.ACT_NS)
        reached = self._env.step(action)
        stopwatch.lap(Word.ENV_NS)
        self._step = self._guard.observe(reached)
        self._recorded = self._frames.record(self._step)
        rows = self._accumulator.observe(self._recorded, self._worth() if self._recording.priority else None)
        if len(self._step.ended.agent):
            self._policy.restart(self._step.ended.agent)
        if len(rows):
            self._writer.append(rows)
        self._writer.decided(len(recorded.agent))
        self._writer.count(Word.STEPS)
        if self._resets:
            self._answer_resets(dropped)
        stopwatch.lap(Word.RECORD_NS)
        return True

    def _worth(self) -> Worth:
        """What the policy thinks of the observations of the step."""
        step, ended = self._step, self._step.ended
        return Worth(self._policy.values(step.obs), self._policy.values(ended.obs))

    def _drop_open_episodes(self) -> list[int]:
        """Of who is reset by the next step. After decide(): the action that the environment ignores gets no row."""
        dropped: list[int] = []
        for each in self._resets:
            now = [agent for agent in each.order.agents if agent in each.left and self._on_turn(agent)]
            each.left.difference_update(now)
            self._policy.restart(np.array(now, np.int64))
            dropped += self._accumulator.drop(now)
        return dropped

    def _answer_resets(self, dropped: list[int]) -> None:
        """The step that was to end these agents' episodes is over."""
        going_on = set(dropped) - set(self._step.ended.agent.tolist())
        for each in self._resets:
            each.failed |= going_on.intersection(each.order.agents)
            if not each.left:
                failed = sorted(each.failed)
                what = f"the environment did not end the episodes of {failed}" if failed else "reset"
                self._answer(each.order.request, not failed, f"agents {each.order.agents}: {what}")
        self._resets = [each for each in self._resets if each.left]

    def _obey(self, command: Command) -> None:
        match command:
            case Begin():
                self._begin(command)
            case Reset(request, agents):
                unknown = [agent for agent in agents if agent not in self._agents]
                if unknown:
                    self._answer(request, False, f"no agent {unknown}; there are agents 0 to {len(self._agents) - 1}")
                    return
                try:
                    self._env.reset_agents(np.array(agents, np.int64))
                except CannotReset as error:
                    self._answer(request, False, str(error))
                else:
                    self._resets.append(_Pending(command, set(agents)))
            case Renew():
                self._renew(command)
            case Set():
                obey_set(command, self._env, self._client)
            case Evaluate(request):
                self._answer(request, False, "this is a worker; the evaluator evaluates")
            case Stop():
                self._stopping = True

    def _answer(self, request: int, done: bool, what: str) -> None:
        self._client.send(Answer(self._client.worker, request, done, what))

    def _report(self) -> None:
        episodes = self._accumulator.episodes
        if episodes and (time.monotonic() >= self._next_report or len(episodes) >= _MOST_EPISODES):
            self._next_report = time.monotonic() + _REPORT_EVERY_S
            for start in range(0, len(episodes), _MOST_EPISODES):
                self._client.send(Episodes(self._client.worker, episodes[start : start + _MOST_EPISODES]))
            episodes.clear()
        if time.monotonic() >= self._next_stats:
            self._next_stats = time.monotonic() + _STATS_EVERY_S
            if isinstance(self._env, HasStats) and (values := self._env.stats()):  # to ask what it has takes 15 us
                self._client.send(Stats(self._client.worker, values))

    def close(self) -> None:
        for each in self._resets:
            self._answer(each.order.request, False, "the worker stopped before the next step")
        self._opened.close()


if __name__ == "__main__":
    serve(WorkerConfig, Worker)
