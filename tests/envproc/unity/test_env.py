"""A Unity player as an environment: every scene of the stand-in player over the real wire."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.acting import PolicySpec
from core.checkpoint import SavedPolicy, save
from core.net import Net, NetSpec, num_parameters
from core.types import ACTION_MASK, Action, ActionSpec
from envproc import EnvConfig, make_env
from envproc.env import CannotReset, HasStats, Place, change
from envproc.unity.columns import TooManyAgents
from envproc.unity.env import UnityEnv
from envproc.unity.launch import PlayerRefused
from envproc.unity.messages import UnityMessage
from envproc.unity.options import UnityOptions
from tests.envproc.unity.wire_log import Recorder

PLAYERS = Path(__file__).parents[3] / "unity/players"


def play(scene: str, behavior: str = "", args: str = "", areas: int = 1, **options: Any) -> UnityEnv:
    return UnityEnv(str(PLAYERS / scene), areas, behavior, UnityOptions(args=args, **options), Place(seed=3))


@pytest.fixture
def ball() -> Iterator[UnityEnv]:
    with closing(play("3DBall")) as env:
        yield env


def test_a_reset_of_agent_3_of_12_truncates_it_and_nobody_else(ball: UnityEnv) -> None:
    step = ball.reset(0)
    still = Action(np.zeros((12, 2), np.float32), np.zeros((12, 0), np.int64))
    for _ in range(3):
        before, step = step, ball.step(still)
        assert len(step.ended.agent) == 0
    ball.reset_agents(np.array([3]))
    after = ball.step(still)
    assert after.ended.agent.tolist() == [3]
    assert not after.ended.terminated[0]
    seen = after.ended.obs["VectorSensor_size8"][0]
    assert (seen == step.obs["VectorSensor_size8"][3]).all(), "what it saw when it was cut"
    assert before.agent.tolist() == step.agent.tolist() == after.agent.tolist() == list(range(12))


def test_the_reward_of_an_episodes_first_decision_is_there_to_be_ignored(ball: UnityEnv) -> None:
    """Between the end and the next decision 3DBall goes on earning; ML-Agents' own trainer drops it too."""
    record = Recorder(ball, "3DBall?team=0", "VectorSensor_size8")
    for _ in range(200):
        record.turn()
    rows = [row for own in record.found.values() for row in own]
    assert record.terminated > 20
    assert {round(row.reward, 4) for row in rows} == {0.1, -1.0}
    assert all((row.reward == -1.0) == (row.discount == 0.0) for row in rows)


def test_fields_are_sensors_by_name() -> None:
    with closing(play("Two", "Runner")) as env:
        shapes = {name: field.shape for name, field in env.spec.obs.items()}
        assert list(shapes.values()) == [(6, 3), (8,), (3,)], "a buffer of varying length, a stack, the mask"
        assert "StackingSensor_size2_VectorSensor_size4" in shapes and shapes[ACTION_MASK] == (3,)
        assert env.spec.action == ActionSpec((-1.0, -1.0), (1.0, 1.0), (3,))
        assert env.spec.num_agents == 3


@pytest.mark.parametrize("stacked", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_an_image_is_the_same_however_it_comes(stacked: bool) -> None:
    """PNG or raw, channels last (package 2) or first (package 3): the field is (channels, height, width) in [0, 1]."""
    seen = {}
    stack = "--stack-images" if stacked else ""
    for version in ("2.2.1-exp.1", "3.0.0"):
        for raw in ("", "--raw-images"):
            with closing(play("Visual", args=f"--package-version {version} {raw} {stack}")) as env:
                step = env.reset(0)
                for _ in range(3):
                    step = env.step(Action(np.full((len(step.agent), 2), 0.5, np.float32), np.zeros((4, 0), np.int64)))
                (name,) = (each for each, field in env.spec.obs.items() if len(field.shape) == 3)
                assert env.spec.obs[name].shape == (6 if stacked else 3, 24, 24)
                seen[version, raw] = step.obs[name].copy()
    first, *others = seen.values()
    assert first.shape[1:] == (6 if stacked else 3, 24, 24) and 0 <= first.min() < first.max() <= 1
    for each in others:
        np.testing.assert_allclose(each, first, atol=1 / 255)


@pytest.mark.parametrize("raw", ["", "--raw-images"])
def test_images_as_bytes_are_the_same_pixels(raw: str) -> None:
    images = []
    for image_bytes in (False, True):
        with closing(play("Visual", args=raw, image_bytes=image_bytes)) as env:
            step = env.reset(0)
            (name,) = (each for each, field in env.spec.obs.items() if len(field.shape) == 3)
            assert env.spec.obs[name].dtype == str(step.obs[name].dtype)
            images.append(step.obs[name].copy())
    assert images[1].dtype == np.uint8
    np.testing.assert_allclose(images[1], images[0] * 255, atol=0.5001)


def test_the_mask_says_what_is_allowed() -> None:
    """Walls cannot be walked through: an agent in a corner has two moves masked; nothing is claimed off a goal."""
    with closing(play("Grid")) as env:
        step = env.reset(0)
        masked = 0
        for _ in range(50):
            mask = step.obs[ACTION_MASK]
            assert mask.dtype == np.bool_ and mask.shape == (len(step.agent), 7)
            assert mask[:, 0].all() and mask[:, 5].all(), "to stay and not to claim are always allowed"
            masked += int((~mask[:, 1:5]).sum())
            moves = mask[:, 1:5].argmax(axis=1) + 1
            step = env.step(Action(np.zeros((len(moves), 0), np.float32), np.stack([moves, 0 * moves], axis=1)))
            assert step.ended.obs[ACTION_MASK].all(), "who ended may not act: nothing is masked"
        assert masked > 50


def test_an_id_that_is_renewed_keeps_to_the_columns_there_are() -> None:
    with closing(play("Renew")) as env:
        step, ids = env.reset(0), set()
        for _ in range(200):
            assert set(step.agent.tolist()) <= {0, 1, 2}
            ids |= {env._columns.id_of(column) for column in step.agent.tolist()}
            step = env.step(
                Action(np.zeros((len(step.agent), 2), np.float32), np.zeros((len(step.agent), 0), np.int64))
            )
        assert len(ids) > 20


def test_more_agents_than_columns_is_an_error_that_names_the_option() -> None:
    with closing(play("Spawn")) as env:
        step = env.reset(0)
        assert env.spec.num_agents == 3
        with pytest.raises(TooManyAgents, match=r"--unity\.max-agents"):
            for _ in range(500):
                n = len(step.agent)
                step = env.step(Action(np.zeros((n, 1), np.float32), np.zeros((n, 0), np.int64)))


def test_a_scene_with_several_behaviours_wants_one_named() -> None:
    with pytest.raises(PlayerRefused, match=r"2 behaviours.*--behavior Runner or Chaser"):
        play("Two")
    with pytest.raises(PlayerRefused, match=r"'Walker'.*there is Runner or Chaser"):
        play("Two", "Walker")
    with closing(play("Two", "Chaser")) as env:
        assert env.spec.action.branches == (4,)
    with closing(play("Two", "Chaser?team=1")) as env:
        assert env.spec.num_agents == 2


def test_a_saved_policy_acts_for_another_behaviour_of_the_scene(tmp_path: Path) -> None:
    with closing(play("Two", "Runner")) as env:
        spec = env.spec
    net = NetSpec(
        {name: field.shape for name, field in spec.obs.items() if name != ACTION_MASK}, (), 2, normalize=False
    )
    parameters = np.random.default_rng(0).normal(0, 0.01, num_parameters(net)).astype(np.float32)
    save(tmp_path, SavedPolicy({}, spec, PolicySpec(net, "tanh")), parameters, {})
    with closing(play("Two", "Chaser", others=(f"Runner={tmp_path}",))) as env:
        link, sent = env._link, []
        send = link._talk.send

        def noted(message: bytes) -> None:
            decisions = link.get_steps("Runner?team=0")[0]
            told = UnityMessage.FromString(message).unity_input.rl_input.agent_actions["Runner?team=0"].value
            if len(decisions):
                sent.append((decisions.obs, [list(each.continuous_actions) for each in told]))
            send(message)

        link._talk.send = noted  # type: ignore[method-assign]
        step = env.reset(0)
        for _ in range(20):
            n = len(step.agent)
            step = env.step(Action(np.zeros((n, 0), np.float32), np.zeros((n, 1), np.int64)))
    assert len(sent) > 5
    for seen, told in sent:
        expected = np.tanh(Net(net, parameters)(dict(zip(net.inputs, seen, strict=True))))
        np.testing.assert_allclose(told, expected, rtol=1e-6)
        assert np.abs(told).max() > 0
    with pytest.raises(ValueError, match="/nowhere is no run with a checkpoint"):
        play("Two", "Chaser", others=("Runner=/nowhere",))


def test_environment_parameters_reach_the_scene() -> None:
    """Without gravity the balls stay where they were dropped, until there is some again."""
    config = EnvConfig(f"unity:{PLAYERS}/3DBall", params=("gravity=0",))
    with closing(make_env(config)) as env:
        height = env.reset(0).obs["VectorSensor_size8"][:, 3].copy()
        nothing = Action(np.zeros((12, 2), np.float32), np.zeros((12, 0), np.int64))
        assert (env.step(nothing).obs["VectorSensor_size8"][:, 3] > height - 0.01).all()
        change(env, "env.gravity", 9.81)
        assert (env.step(nothing).obs["VectorSensor_size8"][:, 3] < height - 0.01).all()


@pytest.mark.parametrize("param", ["a=1e39", "größe=1"])
def test_a_parameter_that_cannot_travel_is_refused(param: str) -> None:
    """On the wire it is a float32, and the key is ASCII."""
    with pytest.raises(ValueError, match=r"names in ASCII and float32 values"):
        make_env(EnvConfig(f"unity:{PLAYERS}/3DBall", params=(param,)))


def test_the_time_scale_is_told_at_the_next_exchange() -> None:
    with closing(play("3DBall")) as env:
        env.reset(0)
        assert not env._engine.message_queue
        change(env, "unity.time_scale", 5.0)
        (message,) = env._engine.message_queue
        assert struct.unpack("<if", message) == (2, 5.0)  # the kind that is a time scale, in ML-Agents' order of kinds
        env.step(Action(np.zeros((12, 2), np.float32), np.zeros((12, 0), np.int64)))
        assert not env._engine.message_queue


def test_what_the_scene_records_is_aggregated_as_it_asks(ball: UnityEnv) -> None:
    record = Recorder(ball, "3DBall?team=0", "VectorSensor_size8")
    assert isinstance(ball, HasStats)
    for _ in range(200):
        record.turn()
    stats = ball.stats()
    assert stats["Ball/Fallen"] == record.terminated
    assert 10 < stats["Ball/Steps"] < 500
    assert ball.stats() == {}


def test_a_scene_without_our_component_says_so_and_goes_on() -> None:
    with closing(play("3DBall", args="--no-reset-channel")) as env:
        record = Recorder(env, "3DBall?team=0", "VectorSensor_size8")
        for _ in range(20):
            record.turn()
        with pytest.raises(CannotReset, match=r"agents \[3\].*SharlAgent.*docs/unity_reset.md"):
            env.reset_agents(np.array([3]))
        for _ in range(20):
            record.turn()
        record.check()


def test_after_a_reset_of_all_nobody_stands_in_ended(ball: UnityEnv) -> None:
    step = ball.reset(0)
    random = np.random.default_rng(0)
    for count in (30, 31, 33):  # the last fallen are still on their way
        for _ in range(count):
            action = random.uniform(-1, 1, (len(step.agent), 2)).astype(np.float32)
            step = ball.step(Action(action, np.zeros((len(action), 0), np.int64)))
        step = ball.reset(0)
        assert len(step.ended.agent) == 0 and step.agent.tolist() == list(range(12))


def test_areas_are_replicated_where_the_scene_can() -> None:
    with closing(play("3DBall", areas=3)) as env:
        assert env.spec.num_agents == 36 and len(env.reset(0).agent) == 36
