"""Real workers whose rows are read in order: none is lost, none used too often, none overwritten, whoever is slow."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.acting import PolicySpec
from core.control import Answer, Begin, Failed, Ready, Reset, Server
from core.learner import Learner
from core.net import NetSpec, num_parameters
from core.ring import Ring, Word
from core.rollout import InOrder, Rollout, capacity_for
from core.supervisor import Supervisor
from core.types import EnvSpec, Learned, Recording
from core.weights import Weights
from envproc import EnvConfig
from envproc.worker import WorkerConfig
from tests.process.runs import ROOT, wait_until
from tests.process.turns import AGENTS

EPOCHS, MINIBATCH, GAMMA = 3, 50, 0.5
Place = tuple[int, int]
"""(episode, decision)"""


class Bookkeeper:
    """An algorithm that learns nothing and writes down which rows it was given. Its policy's mean is -1 + updates/8."""

    config: Any = None

    def __init__(self, spec: EnvSpec, pause_s: float) -> None:
        self.recording = Recording(GAMMA, ordered=True)
        self.policy_spec = PolicySpec(
            NetSpec({"vector": (3,)}, (), 1, normalize=False, extras={"log_std": 1}), "stochastic"
        )
        self.used: dict[int, list[Place]] = defaultdict(list)  # agent over all lanes -> its rows, in order
        self.follows: dict[int, list[bool]] = defaultdict(list)
        self.updates = 0
        self.lag: list[int] = []
        """(rows,) updates between the policy that decided and the one that learned"""
        self._pause_s = pause_s
        self._random = np.random.default_rng(0)

    def update(self, rollout: Rollout) -> Learned:
        count = np.zeros(len(rollout), np.int64)
        for _ in range(EPOCHS):
            for which, batch in rollout.shuffled(MINIBATCH, self._random):
                np.add.at(count, which, 1)
                self._check(rollout, which, batch)
            time.sleep(self._pause_s)  # the workers shall try to overwrite what is learned from
        assert (count == EPOCHS).all()
        for where, batch in rollout.in_pieces():
            self._check(rollout, where, batch)
            for i, (_, episode, decision) in zip(where, batch.obs["vector"].int().tolist(), strict=True):
                assert rollout.decision[i] == decision
                self.used[int(rollout.agent[i])].append((episode, decision))
                self.follows[int(rollout.agent[i])].append(bool(rollout.follows[i]))
        self.updates += 1
        return Learned({})

    def _check(self, rollout: Rollout, which: Any, batch: Any) -> None:
        """Every row is whole: what stands in it fits together."""
        agent, _, decision = batch.obs["vector"].T
        assert (agent.numpy() == rollout.agent[which] % AGENTS).all()
        assert torch.allclose(batch.reward, batch.action[:, 0].clamp(-1, 1) / 2)
        ends = decision + 1 == 3 + agent
        assert torch.equal(batch.discount == 0, ends & (agent % 2 == 0))
        assert (batch.next_obs["vector"][:, 0] == agent).all()
        # log_prob says how far the action was from the mean of the policy that decided
        square = -2 * (batch.log_prob + 0.5 * np.log(2 * np.pi))
        distance = square.clamp(min=0).sqrt()
        possible = torch.stack([batch.action[:, 0] + distance, batch.action[:, 0] - distance]) + 1
        lag = self.updates - possible * 8
        nearest = (lag - lag.round()).abs().argmin(dim=0)
        self.lag += lag.round().int().gather(0, nearest[None])[0].tolist()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to load."""

    def policy_parameters(self) -> torch.Tensor:
        """Weights of the observation 0, bias, log standard deviation 0."""
        return torch.tensor([0.0, 0.0, 0.0, -1 + self.updates / 8, 0.0])


class Crew:
    """Some worker processes, the ring, and a learner."""

    def __init__(self, logs: Path, lanes: int, horizon: int, ahead: int, pause_s: float = 0.0) -> None:
        self._opened = contextlib.ExitStack()
        self.server = self._opened.enter_context(Server())
        supervisor = self._opened.enter_context(Supervisor(logs))
        env = EnvConfig(str(ROOT / "tests/process/turns.py") + ":Turns")
        names = [f"worker-{lane}" for lane in range(lanes)]
        for lane, name in enumerate(names):
            config = WorkerConfig(name, env, seed=1, control=self.server.address, lane=lane, logs=str(logs))
            supervisor.start(name, "envproc.worker", config)
        self.reports: list[Any] = []
        wait_until(lambda: len(self.heard(Ready)) == lanes, "the workers to be ready")
        spec: EnvSpec = self.heard(Ready)[0].spec
        self.algorithm = Bookkeeper(spec, pause_s)
        capacity = capacity_for(AGENTS, lanes, horizon, ahead)
        self.ring = self._opened.enter_context(Ring.create(spec, self.algorithm.recording, lanes, capacity))
        weights = self._opened.enter_context(Weights.create(num_parameters(self.algorithm.policy_spec.net)))
        self.feed = InOrder(self.ring, horizon, ahead, torch.device("cpu"))
        self.learner = Learner(self.algorithm, self.feed, self.ring, weights)
        for name in names:
            assert self.server.send(name, Begin(self.ring.address, weights.address, self.algorithm.policy_spec))

    def heard(self, kind: type) -> list[Any]:
        self.reports += self.server.receive()
        failures = [report for report in self.reports if isinstance(report, Failed)]
        assert not failures, failures[0].traceback
        return [report for report in self.reports if isinstance(report, kind)]

    def learn(self, rollouts: int) -> None:
        """So many more."""
        goal, deadline = self.feed.num_rollouts + rollouts, time.monotonic() + 60
        while self.feed.num_rollouts < goal:
            self.learner.step()
            self.heard(Answer)
            assert time.monotonic() < deadline, "neither side goes on"

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self.ring.stop()
        self._opened.close()


def assert_complete(used: list[Place], length: int) -> None:
    """Episode after episode, decision after decision, from the first on, up to where it was read."""
    expected = [(i // length, i % length) for i in range(len(used))]
    assert used == expected


@pytest.mark.parametrize(("lanes", "ahead"), [(1, 0), (2, 0), (2, 2)])
def test_every_row_of_twelve_agents_is_used_in_order(tmp_path: Path, lanes: int, ahead: int) -> None:
    with Crew(tmp_path, lanes, horizon=10, ahead=ahead, pause_s=0.003) as crew:
        crew.learn(rollouts=12)
        algorithm, feed = crew.algorithm, crew.feed
        assert (feed._done > 1.2 * crew.ring.capacity).any() or ahead  # the ring has wrapped
        assert sum(len(each) for each in algorithm.used.values()) == feed._done.sum()
        assert (crew.ring.load(Word.DONE) == feed._done).all()
        assert sorted(algorithm.used) == list(range(lanes * AGENTS))
        for agent, used in algorithm.used.items():
            assert_complete(used, 3 + agent % AGENTS)
            joins = [one[0] == other[0] for one, other in pairwise(used)]
            # what follows in the next rollout does not in this one
            missing = sum(joins) - sum(algorithm.follows[agent])
            assert 0 <= missing < 12
        assert min(algorithm.lag) >= 0, "a policy decided that there was not yet"
        assert max(algorithm.lag) <= (2 if ahead == 0 else 2 + ahead)


def test_while_the_learner_is_busy_the_workers_stop_at_the_limit(tmp_path: Path) -> None:
    with Crew(tmp_path, 2, horizon=10, ahead=1) as crew:
        crew.learn(rollouts=2)
        for _ in range(200):
            crew.feed.allow(0)
            time.sleep(0.005)
        behind = crew.ring.load(Word.PUBLISHED) - crew.feed._done
        assert (behind >= 2 * 10 * AGENTS).all()
        assert (behind <= 2 * 10 * AGENTS + 2 * AGENTS).all()
        waited = crew.ring.load(Word.WAITED_NS)
        time.sleep(0.05)
        assert (crew.ring.load(Word.WAITED_NS) > waited).all()


def test_a_forced_reset_costs_one_row_and_ends_what_follows(tmp_path: Path) -> None:
    random, answers = np.random.default_rng(0), 0
    with Crew(tmp_path, 1, horizon=10, ahead=0) as crew:
        for request in range(8):
            unlucky = random.choice(AGENTS, 4, replace=False).tolist()
            assert crew.server.send("worker-0", Reset(request, unlucky))
            answers += 1
            while len(crew.heard(Answer)) < answers:
                crew.learner.step()
            assert crew.heard(Answer)[-1].done
        crew.learn(rollouts=2)
        short = 0
        for agent, used in crew.algorithm.used.items():
            follows = crew.algorithm.follows[agent]
            for place, (one, other) in enumerate(pairwise(used)):
                if other[0] == one[0]:
                    assert other[1] == one[1] + 1, "a row is missing within an episode"
                else:
                    assert other[1] == 0, "the next episode does not begin at its beginning"
                    assert not follows[place]
                    short += one[1] + 1 < 3 + agent
        assert short > 5, "no reset came in the middle of an episode"
