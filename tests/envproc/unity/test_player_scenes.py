"""The stand-in's other scenes, driven by the stock UnityEnvironment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel

from envproc.unity.player.channels import RESET, ints
from tests.envproc.unity.play import CHANNELS_LAST, Row, heard_at_random, rows, stock

TRACE = {
    "3DBall": None,
    "Grid": (1, 0),
    "Visual": (1, 0),
    "Runner": (1, 4),
    "Chaser": (0, 0),
    "Spawn": (0, 0),
    "Renew": (0, 0),
}
"""behaviour -> which observation, and from where in it, holds (id, episode, decision)"""


def name(row: Row) -> str:
    return row.key.partition("?")[0]


def trace(row: Row) -> list[int]:
    place = TRACE[name(row)]
    assert place is not None
    obs, at = place
    return [int(each) for each in row.obs[obs][at : at + 3]]


def lives(heard: Sequence[Sequence[Row]]) -> dict[tuple[str, int, int], list[Row]]:
    """(behaviour, id, episode) -> its rows, in order."""
    found = defaultdict(list)
    for row in (row for exchange in heard for row in exchange):
        agent, episode, _ = trace(row)
        assert agent == row.id
        found[row.key, agent, episode].append(row)
    return found


def ends_of(heard: Sequence[Sequence[Row]]) -> Counter[bool]:
    return Counter(row.interrupted for exchange in heard for row in exchange if row.done)


@pytest.mark.parametrize(
    "scene", ["Two", "Spawn", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("Grid", "Visual", "Renew"))]
)
def test_every_episode_is_told_decision_by_decision_and_once_to_its_end(scene: str) -> None:
    with stock(scene, side_channels=[RawBytesChannel(RESET)]) as env:
        heard = heard_at_random(env, 250)
    finished = 0
    for (key, agent, _), life in lives(heard).items():
        assert [trace(row)[2] for row in life] == list(range(len(life)))
        assert not any(row.done for row in life[:-1])
        assert len(life) > 1 or not life[0].done or key == "Spawn?team=0", f"{agent} ended before it was asked"
        if life[-1].done:
            finished += 1
            assert all(row.reward for row in life[1:])
    assert finished > 10
    assert set(ends_of(heard)) == {False, True}


def test_both_behaviours_are_heard_of_though_they_decide_at_times_of_their_own() -> None:
    with stock("Two", side_channels=[RawBytesChannel(RESET)]) as env:
        heard = heard_at_random(env, 200)
        specs = {key: spec.action_spec for key, spec in env.behavior_specs.items()}
    assert list(specs) == ["Runner?team=0", "Chaser?team=1"]
    assert (specs["Runner?team=0"].continuous_size, specs["Runner?team=0"].discrete_branches) == (2, (3,))
    assert (specs["Chaser?team=1"].continuous_size, specs["Chaser?team=1"].discrete_branches) == (0, (4,))
    askers = Counter(frozenset(name(row) for row in exchange if not row.done) for exchange in heard)
    assert all(askers[frozenset(who)] > 10 for who in (["Runner"], ["Chaser"], ["Runner", "Chaser"]))
    assert {row.group[0] for exchange in heard for row in exchange if name(row) == "Runner"} == {1}
    later = [row for exchange in heard[1:] for row in exchange if name(row) == "Runner" and not row.done]
    assert all(row.group[1] % 0.25 == 0 for row in later) and {row.group[1] for row in later} >= {1.0}


def test_a_stack_holds_the_observation_before_and_a_buffer_is_padded_with_zeros() -> None:
    with stock("Two", side_channels=[RawBytesChannel(RESET)]) as env:
        heard = heard_at_random(env, 250)
    full = Counter[int]()
    for (key, _, _), life in lives(heard).items():
        if not key.startswith("Runner"):
            continue
        before = np.zeros(4, np.float32)
        for row in life:
            buffer, stack = row.obs
            assert np.array_equal(stack[:4], before)
            before = stack[4:]
            number = int(np.count_nonzero(buffer.any(axis=1)))
            assert buffer[:number].all() and not buffer[number:].any()
            full[number] += 1
    assert len(full) >= 4


def test_agents_appear_with_new_ids_and_some_are_never_asked() -> None:
    with stock("Spawn", side_channels=[RawBytesChannel(RESET)]) as env:
        heard = heard_at_random(env, 400)
    assert [row.id for row in heard[0]] == [0, 1, 2]
    asked: set[int] = set()
    unheard_of = 0
    for exchange in heard:
        deciding = [row.id for row in exchange if not row.done]
        assert len(deciding) <= 8
        unheard_of += sum(row.done and row.id not in asked for row in exchange)
        asked.update(deciding)
    assert unheard_of > 3 and len(asked) > 20


def test_an_id_lives_for_one_episode_where_agents_are_enabled_anew() -> None:
    channel = RawBytesChannel(RESET)
    with stock("Renew", side_channels=[channel]) as env:
        heard = heard_at_random(env, 250)
    ends = [row.id for exchange in heard for row in exchange if row.done]
    assert len(ends) == len(set(ends)) > 20
    decisions = [(number, row.id) for number, exchange in enumerate(heard) for row in exchange if not row.done]
    for number, exchange in enumerate(heard):
        deciding = [row.id for row in exchange if not row.done]
        assert deciding == sorted(deciding), "agents stand in the order in which they were enabled"
        for end in (row.id for row in exchange if row.done):
            assert all(at < number for at, agent in decisions if agent == end)
    # every change of the agents is told, with indices that stay
    told = [np.frombuffer(message, np.int32) for message in channel.get_and_clear_received_messages()]
    assert len(told) > 15
    for message in told:
        assert message[:2].tolist() == [2, 3] and sorted(message[2::2]) == [0, 1, 2]
    assert max(told[-1][3::2]) == max(agent for _, agent in decisions)


def test_masks_forbid_walls_and_empty_claims_and_the_signalled_goal_is_the_right_one() -> None:
    with stock("Grid", side_channels=[RawBytesChannel(RESET)]) as env:
        env.reset()
        claims = Counter[float]()
        wanted: dict[int, float] = {}
        for _ in range(60):
            actions = []
            for row in rows(env):
                signal, vector = row.obs
                _, _, _, x, y, *goals = vector.tolist()
                if row.done:
                    if row.id in wanted:
                        claims[row.reward] += 1
                        assert row.reward == np.float32(-0.01) + np.float32(wanted[row.id]) and not row.interrupted
                    continue
                assert row.mask is not None
                assert row.mask.tolist() == [
                    False,
                    y == 4,
                    y == 0,
                    x == 0,
                    x == 4,
                    False,
                    (x, y) not in (tuple(goals[:2]), tuple(goals[2:])),
                ]
                # to the right goal, or for odd agents to the wrong one, and claim it
                goal = int(np.argmax(signal)) ^ (row.id % 2)
                to_x, to_y = goals[2 * goal : 2 * goal + 2]
                move = 4 if to_x > x else 3 if to_x < x else 1 if to_y > y else 2 if to_y < y else 0
                wanted[row.id] = -1.0 if row.id % 2 else 1.0
                actions.append((move, int(move == 0)))
            env.set_actions("Grid?team=0", ActionTuple(discrete=np.array(actions, np.int32)))
            env.step()
    assert len(claims) == 2 and min(claims.values()) > 10


@pytest.mark.thorough
@pytest.mark.skipif(not CHANNELS_LAST, reason="this version of mlagents-envs cannot read PNGs with channels last")
def test_a_picture_shows_the_patches_where_they_are_in_every_format() -> None:
    seen = {}
    for flags in (
        (),
        ("--raw-images",),
        ("--stack-images",),
        ("--raw-images", "--stack-images", "--package-version", "3.0.0"),
    ):
        with stock("Visual", *flags, side_channels=[RawBytesChannel(RESET)]) as env:
            heard = heard_at_random(env, 40)
            seen[flags] = [row for exchange in heard for row in exchange]
            spec = env.behavior_specs["Visual?team=0"].observation_specs[0]
        expected = (24, 24, 6 if "--stack-images" in flags else 3), [2, 2, 1]
        if "3.0.0" in flags:
            expected = (6, 24, 24), [1, 2, 2]
        assert (spec.shape, [int(each) for each in spec.dimension_property]) == expected
    plain, *others = seen.values()
    for row in plain:
        picture, vector = row.obs
        for channel, (at_row, at_column) in enumerate(vector[3:].reshape(2, 2).astype(int)):
            lit = np.argwhere(picture[..., channel])
            assert lit.min(axis=0).tolist() == [at_row, at_column] and len(lit) == 16
        assert set(np.unique(picture)) == {0.0, 1.0}
    raw, stacked, stacked_chw = others
    last: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for one, other, two, chw in zip(plain, raw, stacked, stacked_chw, strict=True):
        assert np.array_equal(one.obs[0], other.obs[0])
        before = np.zeros((24, 24, 3), np.float32) if trace(one)[2] == 0 else last[one.id]
        assert np.array_equal(two.obs[0], np.concatenate([before, one.obs[0]], axis=2))
        assert np.array_equal(chw.obs[0], two.obs[0].transpose(2, 0, 1))
        last[one.id] = one.obs[0]


@pytest.mark.thorough
def test_the_same_seed_and_actions_give_the_same_story() -> None:
    stories = []
    for seed in (3, 3, 4):
        with stock("Spawn", seed=seed, side_channels=[RawBytesChannel(RESET)]) as env:
            heard = heard_at_random(env, 100)
        stories.append([(row.id, row.obs[0].tolist(), row.reward, row.done) for exchange in heard for row in exchange])
    assert stories[0] == stories[1] != stories[2]


@pytest.mark.thorough
def test_a_reset_of_one_agent_does_not_change_what_the_others_draw() -> None:
    stories = []
    for reset in (False, True):
        channel = RawBytesChannel(RESET)
        story = defaultdict(list)
        with stock("Two", side_channels=[channel]) as env:
            env.reset()
            if reset:
                channel.send_raw_data(ints(1, 0, 2, 1, 3))
            for _ in range(150):
                env.step()  # nobody does anything
                for row in rows(env):
                    story[row.id].append(([each.tolist() for each in row.obs], row.reward, row.done, row.interrupted))
        stories.append(story)
    left, right = stories
    for agent in range(5):
        pairs = list(zip(left[agent], right[agent], strict=False))  # an exchange more or less
        assert len(pairs) > 50
        assert all(one == other for one, other in pairs) == (agent not in (1, 3))
