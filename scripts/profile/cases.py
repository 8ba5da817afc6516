"""What is learned from: algorithms at sizes, each with a full ring of random rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from algos import ALGORITHMS
from core.gather import Gather
from core.mirror import Mirror
from core.prioritized import make_sampler
from core.ring import Ring
from core.rollout import Rollout
from core.types import ActionSpec, EnvSpec, FieldSpec
from scripts.profile.shapes import fill, some_rows

ROLLOUT = 2048
"""rows that are read in order at a time: the horizon of Stable-Baselines3's PPO"""
CHUNK = 50
"""rows that are written into the ring at once, at most"""


@dataclass(frozen=True)
class Case:
    """One algorithm at one size."""

    algorithm: str
    obs: int
    """numbers in a vector, or 0: four images of 84 x 84 in a row, through Nature's network"""
    continuous: int
    discrete: int
    """choices of the one branch, or 0"""
    hidden: tuple[int, ...]
    batch: int
    quantiles: int = 200
    """qrdqn only"""
    capacity: int = 1_000_000
    """rows in the replay buffer: Stable-Baselines3's default, and more than the caches hold"""
    config: dict[str, Any] = field(default_factory=dict)
    """of ours, beyond the sizes: what makes it the same work"""
    device: str = "cpu"
    precision: str = "float32"
    mirror: bool = False
    """the ring is held on the device once more"""

    def __str__(self) -> str:
        """But for the device."""
        obs = self.obs or "84x84x4-nature"
        sizes = "-".join(map(str, (obs, *self.hidden, self.continuous or self.discrete)))
        more = ["norm"] * ("normalize" not in self.config)
        more += ["mirror"] * self.mirror
        more += [{"bfloat16": "bf16"}.get(self.precision, self.precision)] * (self.precision != "float32")
        return " ".join([f"{self.algorithm} {sizes} x{self.batch}", *more])

    def sized(self, batch: int | None, width: int | None, device: str, precision: str, mirror: bool) -> Case:
        """The same with this batch, all hidden layers so wide; None: as they are."""
        if batch is None or not _has_batch(self.algorithm):
            batch = self.batch
        hidden = self.hidden if width is None else (width,) * len(self.hidden)
        mirror = mirror and self.obs > 0 and _has_batch(self.algorithm)
        return replace(self, batch=batch, hidden=hidden, device=device, precision=precision, mirror=mirror)

    @property
    def spec(self) -> EnvSpec:
        branches = (self.discrete,) if self.discrete else ()
        action = ActionSpec((-1.0,) * self.continuous, (1.0,) * self.continuous, branches)
        obs = {"vector": FieldSpec((self.obs,))} if self.obs else {"image": FieldSpec((4, 84, 84), "uint8", stack=4)}
        return EnvSpec(obs, action, num_agents=1)


# Stable-Baselines3's learner does not normalise observations, and its DQN is not double; ours is, unless told not to
PLAIN = {"normalize": False}
CASES = (
    Case("ddpg", 17, 6, 0, (256, 256), 256, config=PLAIN),  # HalfCheetah's size
    Case("ddpg", 17, 6, 0, (256, 256), 256),
    Case("ddpg", 8, 2, 0, (64, 64), 128, config=PLAIN),  # 3DBall's, and the defaults of ours
    Case("td3", 17, 6, 0, (256, 256), 256, config=PLAIN),
    Case("sac", 17, 6, 0, (256, 256), 256, config=PLAIN),
    Case("dqn", 8, 0, 4, (256, 256), 128, config={**PLAIN, "double": False}),  # LunarLander's
    Case("dqn", 4, 0, 2, (64, 64), 64, config={**PLAIN, "double": False}),  # CartPole's
    Case("qrdqn", 8, 0, 4, (256, 256), 128, config={**PLAIN, "quantiles": 200}),
    Case("qrdqn", 4, 0, 2, (64, 64), 64, config={**PLAIN, "quantiles": 200}),
    Case("ppo", 17, 6, 0, (64, 64), 64, config=PLAIN),  # tanh, actor and critic apart; 10 epochs of 2048 rows
    Case("ppo", 4, 0, 2, (64, 64), 64, config=PLAIN),
    Case("iqn", 8, 0, 4, (256, 256), 128, config=PLAIN),
    Case("rainbow", 8, 0, 4, (256, 256), 128, config=PLAIN),
    Case("sac_discrete", 8, 0, 4, (256, 256), 128, config=PLAIN),
    Case("vtrace", 17, 6, 0, (64, 64), ROLLOUT, config=PLAIN),
    Case("r2d2", 8, 0, 4, (128,), 64, capacity=100_000, config=PLAIN),  # 64 sequences
    Case("dqn", 0, 0, 6, (512,), 32, capacity=10_000, config={**PLAIN, "double": False}),  # a game of Atari
)


def _has_batch(algorithm: str) -> bool:
    """False: it learns from a whole rollout at once."""
    return hasattr(ALGORITHMS[algorithm].config(), "batch_size")


@dataclass
class Ours:
    """What learns with our algorithm."""

    algorithm: Any
    draw: Callable[[], Any]
    """the experience that it learns from next"""
    learned: Callable[[Any], object]
    """told what became of it"""
    case: Case

    def update(self) -> int:
        """Learns once, and returns how many gradient steps that were."""
        experience = self.draw()
        learned = self.learn(experience)
        self.learned(learned.td_error)
        return int(learned.updates)

    def learn(self, experience: Any) -> Any:
        with torch.autocast(self.case.device, torch.bfloat16, enabled=self.case.precision == "bfloat16"):
            return self.algorithm.update(experience)

    @property
    def period(self) -> int:
        """After so many updates the same work comes again."""
        return int(getattr(self.algorithm.config, "policy_delay", 1))


@contextlib.contextmanager
def ours(case: Case, graphs: bool = True) -> Iterator[Ours]:
    """Our algorithm, on a full ring; on a GPU with CUDA graphs, where it has them, or without."""
    recipe, spec, device = ALGORITHMS[case.algorithm], case.spec, torch.device(case.device)
    make: Callable[..., Any] = recipe.config
    sizes = {"batch_size": case.batch} if _has_batch(case.algorithm) else {}
    algorithm: Any = recipe.build(spec, make(**sizes, hidden=case.hidden, **case.config), case.device)
    if not graphs and hasattr(algorithm, "graphs"):
        algorithm.graphs.recorder = None
    recording = algorithm.recording
    capacity = ROLLOUT if recording.ordered else case.capacity // recording.stride
    with Ring.create(spec, recording, 1, capacity * recording.stride) as ring:
        writer = ring.writer(0, 0)
        if ring.frames:
            fill(ring, writer)
        for first in range(writer.published, capacity, CHUNK):
            rows = some_rows(ring, min(CHUNK, capacity - first), first // CHUNK)
            if recording.ordered:
                rows["decision"] = first + np.arange(len(rows))
            writer.append(rows)
        if recording.ordered:
            rollout = Rollout(ring, np.zeros(capacity, np.int64), np.arange(capacity), device)
            yield Ours(algorithm, lambda: rollout, lambda td_error: None, case)
        else:
            gather = (Mirror if case.mirror else Gather)(ring, case.batch, device)
            sampler = make_sampler(ring, case.batch, 0, algorithm.config.prioritization, gather)
            here = sampler.batch(device)

            def draw() -> Any:
                sampler.draw()
                return here if case.device == "cpu" else sampler.batch(device)

            yield Ours(algorithm, draw, sampler.learned, case)
