"""A Unity player as an environment: of every scene, what it says is exactly what went over the wire."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from envproc.env import Place, Step
from envproc.unity.env import UnityEnv
from envproc.unity.options import UnityOptions
from tests.contracts import Walk
from tests.envproc.unity.test_env import PLAYERS, play
from tests.envproc.unity.wire_log import Recorder

SPAWN = UnityOptions(max_agents=8)
SCENES = {  # scene, behaviour, sensor that identifies a decision
    "3DBall": ("3DBall", "3DBall?team=0", "VectorSensor_size8", UnityOptions()),
    "Grid": ("Grid", "Grid?team=0", "", UnityOptions()),
    "Visual": ("Visual", "Visual?team=0", "", UnityOptions()),
    "Two, Runner": ("Two", "Runner?team=0", "StackingSensor_size2_VectorSensor_size4", UnityOptions()),
    "Two, Chaser": ("Two", "Chaser?team=1", "", UnityOptions()),
    "Spawn": ("Spawn", "Spawn?team=0", "", SPAWN),
    "Renew": ("Renew", "Renew?team=0", "", UnityOptions()),
}


def thorough_but_for(*fast: str) -> list[Any]:
    """All scenes, of which these are fast tests."""
    return [pytest.param(each, marks=() if each in fast else pytest.mark.thorough) for each in SCENES]


def recorded(scene: str, args: str = "", seed: int = 0) -> Recorder:
    name, behavior, sensor, options = SCENES[scene]
    env = UnityEnv(
        str(PLAYERS / name), 1, behavior, UnityOptions(args=args, max_agents=options.max_agents), Place(seed=seed)
    )
    return Recorder(
        env,
        behavior,
        sensor or next(each for each in env.spec.obs if each.startswith("Vector") and "Goal" not in each),
        seed,
    )


@pytest.mark.parametrize("scene", thorough_but_for("Two, Runner", "Visual"))
def test_rows_are_exactly_what_the_wire_said(scene: str) -> None:
    record = recorded(scene)
    with closing(record.env):
        for _ in range(400):
            record.turn()
    record.check()
    assert sum(map(len, record.found.values())) > 300
    if scene in ("3DBall", "Two, Runner", "Spawn", "Renew"):
        assert record.terminal_only > 0, "exchanges in which nobody may act"
    if scene == "Spawn":
        assert record.never_decided > 0, "ended before its first decision"
    if scene in ("Renew", "Spawn", "Visual"):
        assert min(record.interrupted, record.terminated) > 5


@pytest.mark.parametrize("scene", thorough_but_for("3DBall", "Spawn"))
def test_rows_are_so_with_agents_reset_in_between(scene: str) -> None:
    record = recorded(scene, seed=1)
    random = np.random.default_rng(2)

    def anybody(step: Step) -> list[int]:
        if len(step.agent) == 0 or random.random() < 0.7:
            return []
        return list(random.choice(step.agent, random.integers(1, len(step.agent) + 1), replace=False).tolist())

    with closing(record.env):
        for _ in range(300):
            record.turn(anybody)
    record.check()
    assert record.forced > 50


@pytest.mark.parametrize("scene", [each for each in thorough_but_for("3DBall") if each.values != ("Spawn",)])
def test_the_contract_of_environments_is_kept_step_by_step(scene: str) -> None:
    name, behavior, _, _ = SCENES[scene]
    with closing(play(name, behavior)) as env:
        walk = Walk(env, 150, seed=0, force_from=75)
        assert walk.victim >= 0
        assert len(Walk(env, 50, seed=1).events) == env.spec.num_agents, "and again after a reset"
