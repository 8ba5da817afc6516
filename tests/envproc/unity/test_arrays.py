"""Messages to arrays and back, beside what mlagents-envs itself makes of the same."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlagents_envs.base_env import ActionSpec, ActionTuple, DecisionSteps, TerminalSteps
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.rpc_utils import behavior_spec_from_proto, steps_from_proto

from envproc.unity.arrays import channels_first, read_steps, step_message
from envproc.unity.messages import UnityMessage
from tests.envproc.unity.sensors import Sensor, behaviour, both, info, png


def assert_same(ours: Any, theirs: Any) -> None:
    """DecisionSteps or TerminalSteps."""
    assert type(ours) is type(theirs)
    assert ours.__dict__.keys() == theirs.__dict__.keys()
    for name in ("agent_id", "reward", "group_reward", "interrupted"):
        if hasattr(theirs, name):
            mine, stock = getattr(ours, name), getattr(theirs, name)
            assert mine.dtype == stock.dtype and mine.tolist() == stock.tolist(), name
    assert list(ours.group_id) == list(theirs.group_id)
    assert len(ours.obs) == len(theirs.obs)
    for mine, stock in zip(ours.obs, theirs.obs, strict=True):
        assert mine.dtype == stock.dtype and mine.shape == stock.shape
        np.testing.assert_allclose(mine, stock, rtol=0, atol=3e-7)
    if isinstance(theirs, DecisionSteps):
        assert (ours.action_mask is None) == (theirs.action_mask is None)
        for mine, stock in zip(ours.action_mask or [], theirs.action_mask or [], strict=True):
            assert mine.dtype == stock.dtype and mine.tolist() == stock.tolist()
    assert ours.agent_id_to_index == theirs.agent_id_to_index


sizes = st.integers(1, 5)
raw = st.builds(Sensor, st.lists(sizes, min_size=1, max_size=3).map(tuple))


@st.composite
def pictures(draw: st.DrawFn) -> Sensor:
    """PNGs, with what a mapping may say: channels that are averaged, dropped, in any order."""
    pngs = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 3 * pngs))
    shape = (draw(sizes), draw(sizes), channels)
    if draw(st.booleans()):
        return Sensor(shape, png=True, pngs=pngs)
    more = draw(st.lists(st.integers(-1, channels - 1), min_size=3 * pngs - channels, max_size=3 * pngs - channels))
    return Sensor(shape, png=True, pngs=pngs, mapping=tuple(draw(st.permutations([*range(channels), *more]))))


floats = st.floats(-1e6, 1e6, width=32)
ids = st.integers(-(2**31), 2**31 - 1)
ends = st.sampled_from([{}, {"done": True}, {"done": True, "max_step_reached": True}])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_arrays_are_those_that_mlagents_envs_makes(data: st.DataObject) -> None:
    sensors = data.draw(st.lists(st.one_of(raw, pictures()), min_size=1, max_size=3))
    branches = tuple(data.draw(st.lists(sizes, max_size=3)))
    spec = behaviour(sensors, branches)
    told = []
    for number in data.draw(st.lists(ids, max_size=4, unique=True)):
        fields = {"reward": data.draw(floats), "group_reward": data.draw(floats), "group_id": data.draw(ids)}
        each = info(number, sensors, **fields, **data.draw(ends))
        length = data.draw(st.sampled_from([0, sum(branches), sum(branches) + 1, 1]))
        each.action_mask.extend(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
        told.append(each)
    full, lean = both(told)
    for ours, theirs in zip(read_steps(lean, spec), steps_from_proto(full, spec), strict=True):
        assert_same(ours, theirs)


def test_with_nobody_there_the_arrays_are_empty_and_of_the_right_shape() -> None:
    sensors = [Sensor((3,)), Sensor((4, 2, 3), png=True), Sensor((2, 5))]
    spec = behaviour(sensors, (2, 3))
    for steps in read_steps([], spec):
        assert [each.shape for each in steps.obs] == [(0, *each.shape) for each in spec.observation_specs]
        assert len(steps) == 0 and steps.reward.shape == (0,) and steps.agent_id.shape == (0,)
    decisions, terminals = read_steps([], spec)
    assert isinstance(decisions, DecisionSteps) and isinstance(terminals, TerminalSteps)


def test_nobody_waiting_is_as_mlagents_envs_has_it_where_actions_are_discrete() -> None:
    sensors = [Sensor((3,))]
    spec = behaviour(sensors, (2, 3))
    full, lean = both([info(1, sensors, done=True)])
    for ours, theirs in zip(read_steps(lean, spec), steps_from_proto(full, spec), strict=True):
        assert_same(ours, theirs)


def test_true_in_a_mask_forbids_and_the_branches_are_apart() -> None:
    spec = behaviour([Sensor((1,))], (2, 3))
    masked = info(4, [Sensor((1,))])
    masked.action_mask.extend([True, False, False, False, True])
    _, lean = both([masked, info(5, [Sensor((1,))])])
    masks = read_steps(lean, spec)[0].action_mask
    assert [each.tolist() for each in masks] == [[[True, False], [False] * 2], [[False, False, True], [False] * 3]]


@pytest.mark.parametrize("is_png", [False, True])
def test_an_image_with_its_channels_first_is_the_same_image_moved(is_png: bool) -> None:
    """Whatever mlagents-envs is installed: the player's package says how its images lie."""
    seen = {}
    for first in (False, True):
        sensor = Sensor((3, 5, 4), is_png, (2, 0, 1, 3, -1, 3) if is_png else (), 2, first)
        spec = behaviour([sensor])
        assert channels_first(spec.observation_specs[0]) is first
        _, lean = both([info(1, [sensor]), info(2, [sensor])])
        seen[first] = read_steps(lean, spec)[0].obs[0]
    assert seen[True].shape == (2, 4, 3, 5)
    if is_png:
        np.testing.assert_array_equal(seen[True], seen[False].transpose(0, 3, 1, 2))


def test_an_image_that_says_nothing_of_its_dimensions_has_its_channels_last() -> None:
    sensor = Sensor((3, 5, 4))
    made = info(1, [sensor])
    made.observations[0].ClearField("dimension_properties")
    spec = behavior_spec_from_proto(UnityMessage().unity_output.rl_initialization_output.brain_parameters.add(), made)
    assert not channels_first(spec.observation_specs[0])


def test_a_grey_png_of_one_channel_is_one_channel() -> None:
    sensor = Sensor((4, 3, 1), png=True)
    made = info(1, [sensor])
    grey = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20
    made.observations[0].compressed_data = png(grey)
    _, lean = both([made])
    seen = read_steps(lean, behaviour([sensor]))[0].obs[0]
    np.testing.assert_allclose(np.squeeze(seen), grey / 255, atol=1e-6)


def test_numbers_that_are_not_finite_pass() -> None:
    sensor = Sensor((4,))
    made = info(1, [sensor], reward=float("inf"))
    made.observations[0].float_data.data[:] = [float("nan"), float("-inf"), -0.0, 1.0]
    _, lean = both([made])
    decisions = read_steps(lean, behaviour([sensor]))[0]
    np.testing.assert_array_equal(decisions.obs[0], [[np.nan, -np.inf, 0.0, 1.0]])
    assert np.signbit(decisions.obs[0][0, 2]) and decisions.reward[0] == np.inf


def stock_message(actions: dict[str, ActionTuple], side_channel: bytes) -> Any:
    """What UnityEnvironment would send."""
    env: Any = object.__new__(UnityEnvironment)
    env._env_state = {name: (range(len(each.continuous)), ()) for name, each in actions.items()}
    env._side_channel_manager = Mock(generate_side_channel_messages=lambda: bytearray(side_channel))
    message = UnityMessage()
    message.unity_input.CopyFrom(env._generate_step_input(actions))
    return message


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.lists(sizes, max_size=2)),
        max_size=3,
    ),
    st.binary(max_size=20),
    st.integers(0, 100),
)
def test_a_step_says_what_mlagents_envs_would_say(
    behaviours: dict[str, tuple[int, int, list[int]]], side_channel: bytes, seed: int
) -> None:
    random = np.random.default_rng(seed)
    actions = {}
    for name, (num, continuous, branches) in behaviours.items():
        actions[name] = ActionSpec(continuous, tuple(branches)).random_action(num)
        if continuous:
            actions[name].add_continuous(random.standard_normal((num, continuous)).astype(np.float32))
    ours = UnityMessage.FromString(step_message(actions, side_channel))
    theirs = stock_message(actions, side_channel)
    theirs.header.status = 200
    for listed in theirs.unity_input.rl_input.agent_actions.values():
        for each in listed.value:
            each.ClearField("vector_actions_deprecated")
    assert ours == theirs


def test_actions_of_doubles_and_of_any_strides_arrive_as_they_were() -> None:
    numbers = np.linspace(-1, 1, 12).reshape(3, 4)[:, ::2]
    choices = np.arange(6).reshape(2, 3).T
    message = UnityMessage.FromString(step_message({"Ball": ActionTuple(numbers, choices)}, b""))
    sent = message.unity_input.rl_input.agent_actions["Ball"].value
    assert [list(each.continuous_actions) for each in sent] == numbers.astype(np.float32).tolist()
    assert [list(each.discrete_actions) for each in sent] == choices.tolist()


@pytest.mark.parametrize(
    "row",
    [np.arange(20, dtype=np.float32).reshape(10, 2)[4:5:9], np.broadcast_to(np.array([8, 9], np.float32), (1, 2))],
)
def test_the_actions_of_one_agent_arrive_whatever_the_stride_to_the_next_would_be(row: npt.NDArray[np.float32]) -> None:
    sent = step_message({"Ball": ActionTuple(row, np.zeros((1, 0), np.int32))}, b"")
    received = UnityMessage.FromString(sent).unity_input.rl_input.agent_actions["Ball"].value
    assert [list(each.continuous_actions) for each in received] == [[8, 9]]
