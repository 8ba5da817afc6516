"""The evaluator: a process that plays whole episodes with the newest weights, without noise, when it is asked to.

`python -m envproc.evaluator CONFIG` is the process; it never touches the ring, so training does not notice it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.acting import Policy, PolicySpec
from core.control import Client, Command, Evaluate, Evaluated, Ready, Set, Stop
from core.net import num_parameters
from core.trace import Track, TrackAddress, stopwatch
from core.types import EnvSpec, FloatArray
from core.weights import Follower, Weights
from envproc import EnvConfig, make_env
from envproc.env import HERE, Env, HasStats, Place, refuse_bad_numbers
from envproc.process import obey_set, parent_is_gone, serve

_NAP_S = 0.005
_NICE = 5
"""how far training goes before evaluating where the cores are too few for both"""


@dataclass(frozen=True)
class EvaluatorConfig:
    """All that the evaluator is told at birth; it travels as JSON."""

    name: str
    env: EnvConfig
    control: str
    weights: str
    policy: PolicySpec
    where: Place = HERE
    trace: TrackAddress | None = None
    """its track, if the run is traced"""


EVALUATION = 0
"""all that stands on that track"""


class Evaluator:
    """An environment of its own and the newest weights."""

    def __init__(
        self, config: EvaluatorConfig, client: Client, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        """`interrupted` may end an evaluation, besides the messages and the end of the main process."""
        self._interrupted = interrupted
        started = time.monotonic()
        self._config, self._client = config, client
        self._env: Env = make_env(config.env, config.where)
        self._weights = Weights.attach(config.weights, num_parameters(config.policy.net))
        self._follower = Follower(self._weights)
        self._track = None if config.trace is None else Track.attach(config.trace)
        self._stopwatch = stopwatch(np.zeros(1, np.int64), self._track)
        self._stopping = False
        self._unserved: list[Command] = []
        client.send(Ready(config.name, os.getpid(), time.monotonic() - started, self._env.spec))

    def run(self) -> None:
        """Serve requests until told to stop, or until the main process is gone."""
        if hasattr(os, "nice"):
            os.nice(_NICE)
        while not self._stopping and not parent_is_gone():
            self.turn()
            time.sleep(_NAP_S)

    def turn(self) -> None:
        """Serve what was asked meanwhile."""
        self._hear()  # first: an evaluation may take long
        while self._unserved:
            command = self._unserved.pop(0)
            match command:
                case Evaluate() | Stop() if self._stopping:
                    pass
                case Evaluate(request, episodes, seed):
                    self._follower.fetch()
                    parameters = self._follower.parameters
                    policy = self._config.policy
                    self._stopwatch.start()
                    result = play(self._env, policy, parameters, episodes, seed, self._told_to_stop)
                    self._stopwatch.lap(EVALUATION)
                    if result is not None:
                        update, name = self._follower.update, self._config.name
                        self._client.send(Evaluated(name, request, update, *result))
                case Set():
                    obey_set(command, self._env, self._client)
                case _:  # the commands of workers mean nothing here
                    self._client.num_refused += 1

    def _hear(self) -> None:
        commands = self._client.receive()
        self._stopping |= any(isinstance(each, Stop) for each in commands)
        self._unserved += commands

    def _told_to_stop(self) -> bool:
        self._hear()
        self._stopping |= parent_is_gone()
        return self._stopping or self._interrupted()

    def close(self) -> None:
        self._env.close()
        self._weights.close()
        if self._track is not None:
            self._track.close()


def copies_for(episodes: int, spec: EnvSpec, copies: int) -> int:
    """How many environment copies play `episodes` side by side, if `spec` describes `copies` of them."""
    return -(-episodes * copies // spec.num_agents)


def play(
    env: Env,
    policy_spec: PolicySpec,
    parameters: FloatArray,
    episodes: int,
    seed: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[list[float], list[int]] | None:
    """Play at least `episodes` whole episodes without noise; returns their returns and lengths (in decisions).

    Every agent contributes its first ceil(episodes / agents) episodes: taking whichever end first would count the
    short ones too often. Where agents come and go, those that are there contribute more until it is enough. None if
    `interrupted` said so in between.
    """
    spec = env.spec
    policy = Policy(policy_spec, spec.action, spec.num_agents, parameters, seed=0)
    quota = -(-episodes // spec.num_agents)
    begun = np.zeros(spec.num_agents, np.int64)  # episodes that count, each agent's
    counts = np.zeros(spec.num_agents, np.bool_)  # whether the running one does
    total, length = np.zeros(spec.num_agents), np.zeros(spec.num_agents, np.int64)
    returns: list[float] = []
    lengths: list[int] = []
    step = env.reset(seed)
    if isinstance(env, HasStats):
        env.stats()  # nobody asks for those of evaluations; they would pile up
    while True:
        if interrupted():
            return None
        fresh = step.agent[length[step.agent] == 0]
        counts[fresh] = begun[fresh] < quota
        begun[fresh] += counts[fresh]
        length[step.agent] += 1
        step = env.step(policy.to_env(policy.act(step.obs, step.agent)))
        refuse_bad_numbers(step)
        policy.restart(step.ended.agent)
        for agent, reward in zip(step.ended.agent.tolist(), step.ended.reward.tolist(), strict=True):
            if counts[agent]:
                returns.append(float(total[agent]) + reward)
                lengths.append(int(length[agent]))
            total[agent] = length[agent] = counts[agent] = 0
        if not counts.any():
            if len(returns) >= episodes:
                return returns, lengths
            quota += int(len(step.agent) > 0 and (begun[step.agent] >= quota).all())
        going_on = length[step.agent] > 0  # of an episode's first decision the reward is nobody's
        total[step.agent[going_on]] += step.reward[going_on]


if __name__ == "__main__":
    serve(EvaluatorConfig, Evaluator)
