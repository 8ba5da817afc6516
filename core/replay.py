"""Replay: rows drawn from the ring at random, uniformly or by priority, as often as the replay ratio says.

Uniform: all intact rows of all lanes alike. By priority: core/prioritized.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.gather import ALL, Gather, Where
from core.mirror import Mirror
from core.ratio import ReplayRatio, share
from core.ring import Ring, Word
from core.types import Batch, BoolArray, IntArray, Learned, Rows


class Sampler:
    """Draws rows uniformly from all lanes, into one batch that it owns and fills again at each call."""

    def __init__(self, ring: Ring, batch_size: int, seed: int, gather: Gather | Mirror | None = None) -> None:
        """`gather`: what copies the rows, `batch_size` of them; if None, into the CPU's memory."""
        self._ring = ring
        self._random = np.random.Generator(np.random.SFC64(seed))
        self.gather = gather or Gather(ring, batch_size)
        self._batch_size = batch_size
        self._drawn: tuple[IntArray, IntArray] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self.num_lapped = 0
        """rows that were overwritten while they were copied, and drawn again"""

    def sample(self) -> Rows:
        """(batch_size,) rows, each intact. Valid until the next call. Raises ValueError if the ring is empty."""
        self.draw()
        return self.gather.rows

    def draw(self) -> None:
        """The same, but the rows are wanted as a batch alone."""
        lane, index = self._copy(ALL, self._batch_size)
        torn = self.gather.torn(lane, index).nonzero()[0]
        while len(torn):
            self.num_lapped += len(torn)
            lane[torn], index[torn] = self._copy(torn, len(torn))
            # what was found whole stays, whatever happens meanwhile
            torn = torn[self.gather.torn(lane[torn], index[torn], torn)]
        assert self.gather.has(index), "a row of the ring does not carry its own index"
        self._drawn = lane, index

    def batch(self, device: torch.device) -> Batch:
        """The last sample as tensors; on the CPU they are the sampled rows themselves."""
        return self.gather.batch(device)

    def learned(self, td_error: Tensor | None) -> None:
        """What became of the last sample: (n,) absolute TD errors."""

    def state_dict(self) -> dict[str, Any]:
        """What the next draws depend on, besides the ring."""
        state: Any = self._random.bit_generator.state
        return {"random": {**state, "state": {"state": state["state"]["state"].tolist()}}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        random = state["random"]
        words = np.array(random["state"]["state"], np.uint64)
        self._random.bit_generator.state = {**random, "state": {"state": words}}

    def age(self) -> float:
        """Mean age of the last batch's rows: how many newer rows their lanes hold."""
        lane, index = self._drawn
        return float((self._ring.load(Word.PUBLISHED)[lane] - index).mean()) if len(lane) else float("nan")

    def _copy(self, where: Where, count: int) -> tuple[IntArray, IntArray]:
        """Draw `count` rows and copy them to `where` in the batch; returns their lanes and indices."""
        lane, index = self._draw(where, count)
        self.gather.copy(lane, index, where)
        return lane, index

    def _draw(self, where: Where, count: int) -> tuple[IntArray, IntArray]:
        oldest, published = self.gather.window()
        end = (published - oldest).cumsum()
        if end[-1] == 0:
            raise ValueError("the ring is empty")
        draw = (self._random.random(count) * end[-1]).astype(np.int64)
        lane = end.searchsorted(draw, side="right")
        return lane, draw + (published - end)[lane]


class Replay:
    """What an algorithm that replays learns from: one sample at each update that the ratio pays for."""

    def __init__(self, ring: Ring, sampler: Sampler, ratio: ReplayRatio, device: torch.device) -> None:
        # publishing costs 1 to 2 % of an update of a small network; a GPU has to finish first, and idles then
        self.publish_every = 4 if device.type == "cpu" else 16
        self._ring, self.sampler, self.ratio = ring, sampler, ratio
        self._device = device
        self._batch = sampler.batch(self._device)

    def allow(self, updates: int) -> None:
        """Tell each worker how far it may go."""
        lanes = int(self._ring.at_work.sum())
        limit = self.ratio.limit(updates, lanes * self._ring.spec.num_agents)
        self._ring.allow(share(limit, self._ring.load(Word.DECISIONS), lanes))

    def takes_part(self) -> BoolArray:
        """All lanes with a worker."""
        return self._ring.at_work

    def next(self, updates: int) -> Batch | None:
        """What to learn from now, if an update is due."""
        agent_steps = self._ring.agent_steps
        if not self.ratio.due(agent_steps, updates) or not self._ring.load(Word.PUBLISHED).any():
            return None
        self.sampler.draw()
        if self._device.type != "cpu":
            self._batch = self.sampler.batch(self._device)
        self._batch.agent_steps = agent_steps
        return self._batch

    def due(self, updates: int) -> int:
        """How many updates the ratio pays for now."""
        return self.ratio.num_due(self._ring.agent_steps, updates)

    def begin_at(self, updates: int) -> None:
        """With an empty ring: what was learned before is settled."""
        self.ratio = replace(self.ratio, updates_before=updates)

    def learned(self, learned: Learned) -> None:
        """What became of it."""
        self.sampler.learned(learned.td_error)

    def configure(self, config: Any, updates: int) -> None:
        """Another replay ratio from now on. Raises ValueError if it cannot be meant."""
        if config.replay_ratio != self.ratio.ratio:
            self.ratio = self.ratio.changed(config.replay_ratio, self._ring.agent_steps, updates)

    def state_dict(self) -> dict[str, Any]:
        settled = {"warmup": self.ratio.warmup, "updates_before": self.ratio.updates_before}
        return {"sampler": self.sampler.state_dict(), "settled": settled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state["sampler"])
        self.ratio = replace(self.ratio, **state["settled"])

    def figures(self, updates: int) -> dict[str, float]:
        """For the progress record."""
        return {
            "replay_ratio": self.ratio.ratio,
            "replay_ratio_held": self.ratio.held(self._ring.agent_steps, updates),
            "row_age": self.sampler.age(),
            "rows_lapped": self.sampler.num_lapped,
        }
