"""An environment worker: obey, act, step, append, fetch; then again.

`python -m envproc.worker CONFIG` is the process; `Worker` is the same work as an object, which `--mode single` turns
without any process. A worker imports neither torch nor an algorithm: it starts in a fifth of a second and weighs
little, and its policy is data (core/acting.py).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from core.acting import Policy, PolicySpec
from core.control import Answer, Client, Command, Episodes, Evaluate, Pause, Ready, Reset, Resume, Set, Stop
from core.net import num_parameters
from core.ring import Ring, RingAddress, Word
from core.types import FloatArray
from core.weights import Follower, Weights
from envproc import make_env
from envproc.accumulator import Accumulator
from envproc.env import Env, Step
from envproc.process import parent_is_gone, serve

_NAP_S = 0.0002
"""how long a worker that may not go on sleeps before it looks again"""
_REPORT_EVERY_S = 0.05
_MOST_EPISODES = 500
"""in one message"""


@dataclass(frozen=True)
class WorkerConfig:
    """All that a worker is told at birth; it travels as JSON."""

    name: str
    env: str
    copies: int
    seed: int
    control: str
    """address of the control channel"""
    ring: RingAddress
    lane: int
    weights: str
    """address of the weights"""
    policy: PolicySpec
    gamma: float = 0.99
    n_step: int = 1
    epoch: int = 0


class Worker:
    """The environment, the policy and the lane of one worker."""

    def __init__(self, config: WorkerConfig, client: Client) -> None:
        started = time.monotonic()
        self._client = client
        self._env: Env = make_env(config.env, config.copies)
        spec = self._env.spec
        self._ring = Ring.attach(config.ring, spec)
        self._weights = Weights.attach(config.weights, num_parameters(config.policy.net))
        self._writer = self._ring.writer(config.lane, config.epoch)
        self._follower = Follower(self._weights)
        env_seed, policy_seed = np.random.SeedSequence([config.seed, config.lane, config.epoch]).generate_state(2)
        self._policy = Policy(
            config.policy, spec.action, spec.num_agents, self._follower.parameters, seed=int(policy_seed)
        )
        self._accumulator = Accumulator(spec, config.gamma, config.n_step)
        self._agents = range(spec.num_agents)
        self._to_reset: list[int] = []
        self._paused = False
        self._stopping = False
        self._next_report = 0.0
        self._step = self._env.reset(int(env_seed))
        self._client.send(Ready(config.name, os.getpid(), time.monotonic() - started))

    def run(self) -> None:
        """Work until told to stop, or until the main process is gone."""
        while not self.stopping and not parent_is_gone():
            if not self.turn():
                before = time.monotonic_ns()
                time.sleep(_NAP_S)
                self._writer.count(Word.WAITED_NS, time.monotonic_ns() - before)

    @property
    def stopping(self) -> bool:
        return self._stopping or bool(self._writer.words.item(Word.STOP))

    def turn(self) -> bool:
        """One environment step. False, and no step, while paused or ahead of the learner."""
        self._writer.count(Word.ALIVE)
        for command in self._client.receive():
            self._obey(command)
        self._report()
        if self._paused or not self._writer.may_go_on():
            return False
        if self._follower.fetch():
            self._writer.words[Word.ACTING_UPDATE] = self._follower.update
        step = self._step
        action = self._act()
        self._accumulator.decide(step.agent, step.obs, action)
        self._reset_agents()
        self._step = self._env.step(self._policy.to_env(action))
        _refuse_bad_numbers(self._step)
        rows = self._accumulator.observe(self._step)
        if len(self._step.ended.agent):
            self._policy.restart(self._step.ended.agent)
        if len(rows):
            self._writer.append(rows)
        self._writer.count(Word.STEPS)
        return True

    def _act(self) -> FloatArray:
        step = self._step
        if self._follower.version == 0:
            return self._policy.guess(step.agent)
        return self._policy.explore(step.obs, step.agent)

    def _reset_agents(self) -> None:
        """Forced resets. After decide(), so that the action which the environment will ignore gets no row either."""
        if not self._to_reset:
            return
        agents = np.array(self._to_reset, np.int64)
        self._to_reset.clear()
        self._accumulator.drop(agents)
        self._policy.restart(agents)
        self._env.reset_agents(agents)

    def _obey(self, command: Command) -> None:
        match command:
            case Reset(request, agents):
                unknown = [agent for agent in agents if agent not in self._agents]
                if unknown:
                    self._answer(request, False, f"no agent {unknown}; there are agents 0 to {len(self._agents) - 1}")
                    return
                self._to_reset += [agent for agent in agents if agent not in self._to_reset]
                self._answer(request, True, f"agents {agents} are reset with the next step")
            case Pause(request):
                self._paused = True
                self._answer(request, True, "paused")
            case Resume(request):
                self._paused = False
                self._answer(request, True, "resumed")
            case Set(request, field, value):
                try:
                    self._policy.set_sigma(value)
                except ValueError as error:
                    self._answer(request, False, str(error))
                    return
                self._answer(request, True, f"{field} = {value}")
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

    def close(self) -> None:
        self._env.close()
        self._weights.close()
        self._ring.close()


def _refuse_bad_numbers(step: Step) -> None:
    """A NaN in the ring would reach every weight of every network within one update."""
    ended = step.ended
    for agents, reward, obs in ((step.agent, step.reward, step.obs), (ended.agent, ended.reward, ended.obs)):
        if len(agents):
            for name, values in (("reward", reward), *obs.items()):
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    at = tuple(np.argwhere(~np.isfinite(values))[0])
                    raise ValueError(f"the environment gave agent {agents[at[0]]} {values[at]} as {name}{list(at[1:])}")


if __name__ == "__main__":
    serve(WorkerConfig, Worker)
