"""The stand-in's 3DBall, driven by the stock UnityEnvironment: the agents' lives as Unity has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel

from core.types import Action, FloatArray
from envproc.ball3d import Ball3D
from envproc.env import Step
from envproc.unity.player.channels import RESET, ints
from tests.envproc.one_ball import balance
from tests.envproc.unity.play import rows, stock

KEY = "3DBall?team=0"
TENTH = np.float32(0.1)
V_1 = np.float32(-9.81 * 0.02)
"""how fast a ball falls after its first step"""


def act(env: Any, wish: FloatArray) -> None:
    env.set_actions(KEY, ActionTuple(continuous=wish))


def balanced(env: Any) -> FloatArray:
    """(n, 2) for those who decide."""
    decisions, ends = env.get_steps(KEY)
    return balance(Step(decisions.agent_id, {"vector": decisions.obs[0]}, decisions.reward, ends))


def silent_stats() -> Any:
    """Registered, so that the stock trainer does not complain about it."""
    return StatsSideChannel()


def test_the_player_and_the_built_in_3dball_are_one_world_to_the_last_bit() -> None:
    twin = Ball3D(areas=2)
    step = twin.reset(7)
    channel = RawBytesChannel(RESET)
    random = np.random.default_rng(0)
    with stock("3DBall", seed=7, num_areas=2, side_channels=[channel, silent_stats()]) as env:
        env.reset()
        num_ends = 0
        for number in range(150):
            decisions, _ = env.get_steps(KEY)
            assert np.array_equal(decisions.agent_id, step.agent)
            assert np.array_equal(decisions.obs[0], step.obs["vector"])
            assert number == 0 or np.array_equal(decisions.reward, step.reward)
            wish = (balanced(env) + random.normal(0, 3, (24, 2))).astype(np.float32)
            if number % 20 == 5:
                named = np.array([number % 24, 3])
                channel.send_raw_data(ints(1, number, len(named), *named.tolist()))
                twin.reset_agents(named)
            act(env, wish)
            step = twin.step(Action(wish, np.zeros((24, 0), np.int64)))
            ends = []
            while True:
                env.step()
                decisions, ended = env.get_steps(KEY)
                ends += [(ended[agent].obs[0], ended[agent]) for agent in ended.agent_id]
                if len(decisions):
                    break
            assert [end.agent_id for _, end in ends] == step.ended.agent.tolist()
            for row, (obs, end) in enumerate(ends):
                assert np.array_equal(obs, step.ended.obs["vector"][row])
                assert end.reward == step.ended.reward[row] and end.interrupted != step.ended.terminated[row]
            num_ends += len(ends)
    assert num_ends > 30


def test_ids_stay_and_ends_come_alone_or_with_the_next_decision_of_the_same_agent() -> None:
    stats = StatsSideChannel()
    with stock("3DBall", side_channels=[RawBytesChannel(RESET), stats]) as env:
        env.reset()
        alone = together = 0
        fallen = 0.0
        for _ in range(300):
            decisions, ends = env.get_steps(KEY)
            assert len(decisions) in (0, 12)
            if len(decisions):
                assert np.array_equal(decisions.agent_id, np.arange(12))
                # both at once: the end came with the period's last step, nothing has been earned since
                assert (decisions.reward[ends.agent_id] == 0).all()
                act(env, np.full((12, 2), (1.0, 0.3), np.float32) * np.linspace(-1, 1, 12, dtype=np.float32)[:, None])
            alone += len(ends) and not len(decisions)
            together += len(ends) and len(decisions)
            assert (ends.reward == -1).all() and not ends.interrupted.any()
            env.step()
            fallen += sum(value for value, _ in stats.get_and_reset_stats().get("Ball/Fallen", []))
            fallen -= len(env.get_steps(KEY)[1])
        assert alone > 10 and together > 10
        assert fallen == 0


@pytest.mark.thorough
def test_who_never_falls_is_interrupted_after_1000_decisions_and_decides_in_the_same_message() -> None:
    with stock("3DBall", side_channels=[RawBytesChannel(RESET)]) as env:
        env.reset()
        for number in range(1001):
            decisions, ends = env.get_steps(KEY)
            if number:
                assert (ends.reward == TENTH).all() and len(ends) == 12 * (number == 1000)
            if 0 < number < 1000:
                assert (decisions.reward == TENTH).all()
            act(env, balanced(env))
            if number < 1000:
                env.step()
        assert ends.interrupted.all() and np.array_equal(ends.agent_id, np.arange(12))
        assert (decisions.reward == 0).all() and (decisions.obs[0][:, 6] == V_1).all()


def test_a_reset_of_all_tells_no_ends_and_one_step_passes_before_the_first_decision() -> None:
    with stock("3DBall", side_channels=[RawBytesChannel(RESET)]) as env:
        env.reset()
        first = env.get_steps(KEY)[0]
        assert (first.reward == 0).all() and (first.obs[0][:, 6] == 0).all()
        for _ in range(3):
            act(env, balanced(env))
            env.step()
        env.reset()
        decisions, ends = env.get_steps(KEY)
        assert len(ends) == 0
        assert np.array_equal(decisions.agent_id, np.arange(12))
        assert (decisions.reward == TENTH).all()
        assert (decisions.obs[0][:, 6] == V_1).all()
        assert not np.array_equal(decisions.obs[0][:, 2], first.obs[0][:, 2]), "everybody goes on with his own luck"


def test_who_had_just_asked_when_all_were_reset_acts_by_zero_and_not_by_its_last_action() -> None:
    worlds = []
    for push in (0.0, 1.0):
        with stock("3DBall", side_channels=[RawBytesChannel(RESET)]) as env:
            env.reset()
            for _ in range(3):
                act(env, np.full((12, 2), push, np.float32))
                env.step()
            env.reset()
            worlds.append(env.get_steps(KEY)[0].obs[0])
    assert np.array_equal(*worlds)


def test_a_reset_at_an_end_in_the_middle_of_a_period_starts_the_period_anew() -> None:
    with stock("3DBall", side_channels=[RawBytesChannel(RESET), silent_stats()]) as env:
        env.reset()
        while len(env.get_steps(KEY)[0]):
            act(env, np.ones((12, 2), np.float32))
            env.step()
        env.reset()
        decisions, ends = env.get_steps(KEY)
        assert np.array_equal(decisions.agent_id, np.arange(12))
        # the others' last action was repeated once after the reset, and may have made nobody fall
        assert len(ends) == 0
        assert (decisions.obs[0][:, 6] == V_1).all()


def test_the_reset_channel_says_who_is_there_who_ended_and_who_is_unknown() -> None:
    channel = RawBytesChannel(RESET)
    with stock("3DBall", side_channels=[channel]) as env:
        env.reset()
        assert channel.get_and_clear_received_messages() == [
            ints(2, 12, *(n for agent in range(12) for n in (agent, agent)))
        ]
        for _ in range(5):
            act(env, balanced(env))
            env.step()
        seen = env.get_steps(KEY)[0].obs[0]
        channel.send_raw_data(ints(1, 77, 3, 4, 99, 9))
        act(env, balanced(env))
        env.step()
        decisions, ends = env.get_steps(KEY)
        assert len(decisions) == 0 and ends.agent_id.tolist() == [4, 9]
        assert ends.interrupted.all() and (ends.reward == 0).all()
        assert np.array_equal(ends.obs[0], seen[[4, 9]])
        assert channel.get_and_clear_received_messages() == [ints(3, 77, 2, 4, 9, 1, 99)]
        env.step()
        decisions, _ = env.get_steps(KEY)
        # they did not act in the step in which they ended; five steps have passed for each
        np.testing.assert_allclose(decisions.obs[0][[4, 9], 6], -9.81 * 0.1, rtol=1e-6)
        assert (decisions.reward == TENTH).all()


def test_a_build_without_our_csharp_knows_no_reset_channel() -> None:
    channel = RawBytesChannel(RESET)
    with stock("3DBall", "--no-reset-channel", side_channels=[channel]) as env:
        env.reset()
        channel.send_raw_data(ints(1, 0, 1, 4))
        for _ in range(3):
            act(env, balanced(env))
            env.step()
            assert not any(row.done for row in rows(env))
        assert channel.get_and_clear_received_messages() == []


def test_gravity_is_a_parameter_that_works_at_once() -> None:
    parameters = EnvironmentParametersChannel()
    with stock("3DBall", side_channels=[parameters, RawBytesChannel(RESET)]) as env:
        parameters.set_float_parameter("gravity", 4.0)
        parameters.set_float_parameter("mass", 2.0)
        parameters.set_uniform_sampler_parameters("scale", 1.0, 2.0, 0)
        env.reset()
        env.step()
        np.testing.assert_allclose(env.get_steps(KEY)[0].obs[0][:, 6], -4.0 * 0.1, rtol=1e-6)


def test_the_same_seed_gives_the_same_world_and_another_another() -> None:
    worlds = []
    for seed in (5, 5, -6):
        with stock("3DBall", seed=seed, side_channels=[RawBytesChannel(RESET)]) as env:
            env.reset()
            worlds.append(env.get_steps(KEY)[0].obs[0])
    assert np.array_equal(worlds[0], worlds[1]) and not np.array_equal(worlds[0], worlds[2])
