"""A real worker and a real player: what arrives in the ring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.control import Reset
from core.ring import FOREVER
from core.types import Rows
from envproc import EnvConfig
from envproc.unity.options import UnityOptions
from tests.process.lane import Lane
from tests.process.runs import wait_until


class TestRows:
    """A real worker, a real player, and the ring."""

    @pytest.fixture
    def lane(self, tmp_path: Path) -> Iterator[Lane]:
        with Lane(EnvConfig("unity:unity/players/3DBall"), tmp_path) as lane:
            yield lane

    def test_agent_3_of_12_is_reset_and_the_others_are_not_touched(self, lane: Lane) -> None:
        lane.step(5)
        lane.deliver(Reset(7, [3]))
        lane.step(5)
        wait_until(lambda: lane.answers[-1].request == 7, "the answer to the reset")
        assert lane.answers[-1].done, lane.answers[-1]
        rows = lane.rows()
        wait_until(lambda: any(each.end == "reset" for each in lane.episodes), "the episode to be reported")
        assert [(each.agent, each.end) for each in lane.episodes if each.end == "reset"] == [(3, "reset")]
        for agent in range(12):
            breaks = _breaks(rows[rows["agent"] == agent])
            assert breaks == (1 if agent == 3 else 0), f"agent {agent}"

    def test_a_player_without_the_channel_says_so_and_goes_on(self, tmp_path: Path) -> None:
        options = UnityOptions(args="--no-reset-channel")
        with Lane(EnvConfig("unity:unity/players/3DBall", unity=options), tmp_path) as lane:
            lane.step(3)
            answer = lane.ask(Reset(1, [3]))
            assert not answer.done and "SharlAgent" in answer.what and "docs/unity_reset.md" in answer.what
            lane.step(3)

    @pytest.mark.parametrize(
        "scene", ["Spawn", *(pytest.param(scene, marks=pytest.mark.thorough) for scene in ("Renew", "Visual"))]
    )
    def test_rows_form_chains_in_every_scene(self, scene: str, tmp_path: Path) -> None:
        """At full speed, with resets in between. Observations begin with (wire id, episode, decision)."""
        random = np.random.default_rng(0)
        options = UnityOptions(max_agents=8 if scene == "Spawn" else 0)
        with Lane(EnvConfig(f"unity:unity/players/{scene}", unity=options), tmp_path) as lane:
            lane.ring.allow(FOREVER)
            for request in range(1, 21):
                goal = lane.steps + 15
                wait_until(lambda: lane.steps >= goal, "steps")  # noqa: B023 - called before goal changes
                lane.send(Reset(request, [int(random.integers(lane.spec.num_agents))]))
            wait_until(lambda: len(lane.answers) == 20, "the answers")
            lane.ring.allow(0)
            turns = lane.turns
            wait_until(lambda: lane.turns > turns + 50, "the worker to pause")
            rows = lane.rows().copy()
        field = next(name for name in lane.spec.obs if name.startswith("Vector"))
        chains: dict[tuple[float, float], list[Any]] = defaultdict(list)
        for row in rows:
            chains[tuple(row["obs"][field][:2].tolist())].append(row)
        assert len(chains) > 20
        for (who, episode), chain in chains.items():
            for number, row in enumerate(chain):
                before, after = row["obs"][field][:3].tolist(), row["next_obs"][field][:3].tolist()
                assert before == [who, episode, number] and after == [who, episode, number + 1]
                assert row["discount"] > 0 or number == len(chain) - 1, "nothing follows a true end"


def _breaks(rows: Rows) -> int:
    """How often an agent's row does not go on where its last one, which was no end, had led."""
    field = rows["obs"].dtype.names[0]  # type: ignore[index]
    goes_on = (rows["next_obs"][field][:-1] == rows["obs"][field][1:]).all(axis=1)
    return int((~goes_on & (rows["discount"][:-1] > 0)).sum())
