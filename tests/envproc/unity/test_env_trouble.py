"""A Unity environment with a player that says what cannot be, or a user who asks for it."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel

from core.acting import PolicySpec
from core.checkpoint import SavedPolicy, save
from core.net import NetSpec, num_parameters
from core.types import Action, EnvSpec, FieldSpec
from core.types import ActionSpec as OurActionSpec
from envproc.env import Place, Refused
from envproc.unity.env import UnityEnv
from envproc.unity.fields import Fields
from envproc.unity.launch import PlayerHangs
from envproc.unity.link import BadMessage
from envproc.unity.options import UnityOptions
from envproc.unity.reset_channel import CHANNEL, ResetChannel
from tests.envproc.unity.test_env import PLAYERS, play
from tests.envproc.unity.test_link_pretender import Pretender, hello, pack, pretended, said, state
from tests.process.runs import free_port

STATS = StatsSideChannel().channel_id


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        (CHANNEL, b"\x02\0\0\0\xff\xff\xff\x7f"),  # HERE of 2**31 - 1 agents
        (CHANNEL, b"\x02\0\0\0\xff\xff\xff\xff"),  # of -1
        (CHANNEL, b"\x02\0\0\0\x02\0\0\0" + bytes(8)),  # of two, but names one
        (STATS, b"\0\0"),
        (STATS, b"\x01\0\0\0\xff" + bytes(8)),  # a name that is not ASCII
        (STATS, b"\x01\0\0\0x" + bytes(4) + b"\x07\0\0\0"),  # an aggregation that there is not
    ],
)
def test_a_side_channel_message_that_cannot_be_is_an_error_and_nothing_else(channel: Any, message: bytes) -> None:
    blob = pack(channel, message)
    channels = [ResetChannel(), StatsSideChannel()]
    with (
        pretended(said(side_channel=blob), channels=channels) as (link, _),
        pytest.raises(BadMessage, match="cannot be read"),
    ):
        link.reset()


def test_a_scene_in_which_nobody_asks_any_more_is_not_waited_for_for_ever() -> None:
    first = state(["Ball", "Other"], Ball=[(1, False)], Other=[(2, False)])
    more = [state(Ball=[], Other=[(2, False)])] * 20_000
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(Pretender(port, [hello(), said(), first, *more], then_leaves=False).play)
        with closing(UnityEnv("editor", 1, "Ball", UnityOptions(base_port=port, answer_s=0.2), Place())) as env:
            step = env.reset(0)
            with pytest.raises(PlayerHangs, match="nobody of Ball"):
                while True:
                    n = len(step.agent)
                    step = env.step(Action(np.zeros((n, 2), np.float32), np.zeros((n, 0), np.int64)))


@pytest.mark.parametrize("seed", [0, 5, 2**31, 2**32 - 1])
def test_any_seed_will_do(seed: int) -> None:
    with closing(UnityEnv(str(PLAYERS / "Renew"), 1, "", UnityOptions(), Place(seed=seed))) as env:
        assert env.spec.num_agents == 3


def test_agents_that_there_are_not_cannot_be_reset() -> None:
    with closing(play("3DBall")) as env:
        env.reset(0)
        for wrong in (12, -1):
            with pytest.raises(ValueError, match=f"no agents .{wrong}.; there are 0 to 11"):
                env.reset_agents(np.array([3, wrong]))


def test_a_link_that_is_closed_can_be_forgotten() -> None:
    env = play("Renew")
    link = weakref.ref(env._link)
    env.close()
    env.close()
    del env
    gc.collect()
    assert link() is None


def test_sensors_with_any_names_have_a_field_each() -> None:
    names = ["x", "x_2", "x", "", "action_mask", "ä b"]
    sensors = [
        ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.DEFAULT, name)
        for size, name in enumerate(names, start=1)
    ]
    spec = Fields(BehaviorSpec(sensors, ActionSpec(0, (2,)))).env_spec(1)
    assert [field.shape for field in spec.obs.values()] == [(1,), (2,), (3,), (4,), (5,), (6,), (2,)]
    assert {"x", "ä b"} <= set(spec.obs) and spec.obs["action_mask"].dtype == "bool"


@pytest.mark.thorough
def test_policies_for_others_must_have_somebody_to_act_for_and_fit(tmp_path: Path) -> None:
    net = NetSpec({"sight": (1,)}, (), 2, normalize=False)
    spec = EnvSpec({"sight": FieldSpec((1,))}, OurActionSpec((-1, -1), (1, 1)), 1)
    saved = SavedPolicy({}, spec, PolicySpec(net, "tanh"))
    save(tmp_path, saved, np.zeros(num_parameters(net), np.float32), {})
    for behavior, other, says in (
        ("Chaser", "Walker", r"\['Walker'\].*Runner"),
        ("Chaser", "Chaser", r"\['Chaser'\].*Runner"),
        ("Chaser", "Runner", "trained for other sensors or actions"),
    ):
        with pytest.raises(Refused, match=says):
            play("Two", behavior, others=(f"{other}={tmp_path}",))
