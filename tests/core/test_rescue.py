"""What a run does whose gradient steps are skipped one after the other."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from algos.ddpg import DDPG, Config
from core.checkpoint import SavedPolicy
from core.learner import Learner
from core.metrics import Metrics
from core.net import num_parameters
from core.ratio import ReplayRatio
from core.replay import Replay, Sampler
from core.rescue import MOST_SKIPPED, Diverged, Rescue
from core.ring import Ring
from core.snapshots import Snapshots
from core.types import ActionSpec, Batch, EnvSpec, FieldSpec, Learned
from core.weights import Follower, Weights

SPEC = EnvSpec({"x": FieldSpec((3,))}, ActionSpec((-1.0,), (1.0,)), 4)


class Spoilable(DDPG):
    """What it learns from is finite, and its loss is not, while it is `spoilt`."""

    spoilt = False

    def update(self, batch: Batch) -> Learned:
        if self.spoilt:
            batch.reward.fill_(1e30)
        return super().update(batch)


class NoEvaluations:
    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def state_dict(self) -> dict[str, Any]:
        return {}

    def policy_to_keep(self) -> Any:
        return self._learner.policy().copy()


class Parts:
    """A run without processes."""

    def __init__(self, home: Path, opened: contextlib.ExitStack) -> None:
        torch.manual_seed(0)
        self.algorithm = Spoilable(SPEC, Config(hidden=(8, 8), batch_size=16))
        policy = self.algorithm.policy_spec
        self.ring = opened.enter_context(Ring.create(SPEC, self.algorithm.recording, 1, 1000))
        self.weights = opened.enter_context(Weights.create(num_parameters(policy.net)))
        rows = np.zeros(100, self.ring.layout)
        rows["obs"]["x"], rows["reward"] = np.random.default_rng(0).normal(size=(100, 3)), 1
        writer = self.ring.writer(0, 0)
        writer.append(rows)
        writer.decided(1000)
        feed = Replay(self.ring, Sampler(self.ring, 16, 0), ReplayRatio(1000, 16, 0, 4), torch.device("cpu"))
        self.learner = Learner(self.algorithm, feed, self.ring, self.weights)
        self.metrics = opened.enter_context(Metrics(home, Console(file=io.StringIO())))
        evaluations: Any = NoEvaluations(self.learner)
        saved = SavedPolicy({}, SPEC, policy)
        self.snapshots = Snapshots(home, saved, self.learner, evaluations, every=0, keep=2, breaks=True)
        self.rescue = Rescue(self.learner, self.snapshots, self.metrics)
        self._file = home / "metrics.jsonl"

    def learn(self, updates: int, spoilt: bool = False) -> None:
        self.algorithm.spoilt = spoilt
        for _ in range(updates):
            assert self.learner.learn()
        self.learner.publish()
        self.rescue.attend()
        self.rescue.attend()  # as a job does, whether something was learned or not

    @property
    def rollbacks(self) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in self._file.read_text().splitlines()]
        return [record for record in records if record["kind"] == "rollback"]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with contextlib.ExitStack() as opened:
        yield Parts(tmp_path, opened)


def test_fewer_than_ten_skipped_in_a_row_are_counted_and_nothing_else(parts: Parts) -> None:
    parts.learn(4)
    critic = parts.algorithm.state_dict()["critic"].clone()
    for number in range(1, 4):
        parts.learn(MOST_SKIPPED - 1, spoilt=True)
        assert torch.equal(parts.algorithm.state_dict()["critic"], critic)
        parts.learn(1)
        critic = parts.algorithm.state_dict()["critic"].clone()
        assert parts.learner.skipped == (number * (MOST_SKIPPED - 1), 0)
    assert parts.rollbacks == [] and parts.learner.num_refused == 0


def test_ten_in_a_row_take_the_newest_checkpoint_back_and_the_run_learns_on(parts: Parts) -> None:
    parts.learn(4)
    parts.snapshots.take(0.0)
    kept = parts.algorithm.state_dict()["critic"].clone()
    parts.learn(8)
    parts.learn(MOST_SKIPPED, spoilt=True)
    assert torch.equal(parts.algorithm.state_dict()["critic"], kept)
    follower = Follower(parts.weights)
    follower.fetch()
    assert (follower.parameters == parts.learner.policy()).all(), "the workers have not got it"
    (record,) = parts.rollbacks
    assert (record["number"], record["updates"]) == ("000001", 22)
    assert record["detail"].startswith("10 gradient steps in a row were skipped: critic_loss (last finite value ")
    assert parts.learner.updates == 22, "counters go on"
    parts.learn(8)
    assert not torch.equal(parts.algorithm.state_dict()["critic"], kept)
    assert parts.learner.skipped == (10, 0)


def test_the_second_time_the_run_stops_and_says_which_loss_and_what_to_do(parts: Parts) -> None:
    parts.learn(4)
    parts.snapshots.take(0.0)
    parts.learn(MOST_SKIPPED, spoilt=True)
    parts.learn(4)
    before = parts.learner.metrics["critic_loss"].item()
    with pytest.raises(Diverged) as diverged:
        parts.learn(MOST_SKIPPED + 2, spoilt=True)
    assert f"critic_loss (last finite value {before:.3g}) is not finite" in str(diverged.value)
    for part in ("going back to checkpoint 000001", "lower learning rate", "--algo.max-grad-norm"):
        assert part in str(diverged.value)
    assert len(parts.rollbacks) == 1


def test_without_a_checkpoint_the_run_stops_the_first_time(parts: Parts) -> None:
    with pytest.raises(Diverged, match=r"critic_loss \(last finite value none\).*no checkpoint to go back to"):
        parts.learn(MOST_SKIPPED, spoilt=True)
