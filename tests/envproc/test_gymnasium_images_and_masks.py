"""GymnasiumEnv: images have their channels first, and what an info masks is a field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from core.types import ACTION_MASK, Action, FieldSpec
from envproc.env import EnvFailed
from envproc.gymnasium import GymnasiumEnv

Mask = Callable[[int], Any]
made: list[Shown] = []


class Shown(gymnasium.Env[Any, Any]):
    """Shows what its space holds, at random, and masks by the number of infos so far; choice 1 is the end."""

    def __init__(self, **given: Any) -> None:
        self.observation_space = given.get("observes", spaces.Box(-1, 1, (2,)))
        self.action_space = given.get("acts", spaces.Discrete(2))
        self.mask: Mask = given.get("mask", lambda _: None)
        self.told = 0
        self.seen: list[Any] = []
        made.append(self)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.see(), self.info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        end = bool(np.any(action))
        return self.see(), 0.0, end, False, {} if end else self.info()  # who ended is told nothing

    def see(self) -> Any:
        self.seen.append(self.observation_space.sample())
        return self.seen[-1]

    def info(self) -> dict[str, Any]:
        self.told += 1
        mask = self.mask(self.told)
        return {} if mask is None else {ACTION_MASK: mask}


@pytest.fixture
def make() -> Iterator[Callable[..., GymnasiumEnv]]:
    def make(**given: Any) -> GymnasiumEnv:
        made.clear()
        gymnasium.register("Shown-v0", Shown, kwargs=given)
        return GymnasiumEnv("Shown-v0", copies=2)

    yield make
    del gymnasium.registry["Shown-v0"]


def choose(*choices: tuple[int, ...]) -> Action:
    return Action(np.zeros((len(choices), 0), np.float32), np.array(choices))


def as_it_is(image: Any) -> Any:
    return image


def last_first(image: Any) -> Any:
    return image.transpose(2, 0, 1)


def with_one(image: Any) -> Any:
    return image[None]


@pytest.mark.parametrize(
    ("shape", "turned"),
    [
        ((4, 6, 3), last_first),
        ((2, 6, 1), last_first),
        ((5, 6, 7), last_first),
        ((3, 4, 6), as_it_is),  # few first and more last: no camera has three rows
        ((6, 7), with_one),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_an_image_has_its_channels_first_wherever_they_were(
    make: Callable[..., GymnasiumEnv], shape: tuple[int, ...], turned: Callable[[Any], Any], inside: bool
) -> None:
    box = spaces.Box(0, 255, shape, np.uint8)
    env = make(observes=spaces.Dict({"image": box}) if inside else box)
    assert env.spec.obs == {"image": FieldSpec(turned(np.zeros(shape)).shape, "uint8")}
    env.reset(0)
    step = env.step(choose((0,), (1,)))
    stays, (*_, last, first) = ([turned(each["image"] if inside else each) for each in a_copy.seen] for a_copy in made)
    assert np.array_equal(step.obs["image"], [stays[-1], first])
    assert np.array_equal(step.ended.obs["image"], [last])


def test_floats_of_two_dimensions_are_no_image(make: Callable[..., GymnasiumEnv]) -> None:
    with pytest.raises(ValueError, match="supported are a Box of 1 or 3 dimensions, or of 2 and uint8"):
        make(observes=spaces.Box(0, 1, (6, 7)))


def bits(told: int) -> Any:
    return (told >> np.arange(5) & 1).astype(np.int8)


@pytest.mark.parametrize("tell", [bits, lambda told: (bits(told)[:2], bits(told)[2:])])
def test_what_an_info_masks_is_a_field_which_masks_nothing_after_the_end_and_what_it_did_where_an_episode_is_cut(
    make: Callable[..., GymnasiumEnv], tell: Mask
) -> None:
    env = make(acts=spaces.MultiDiscrete([2, 3]), mask=tell)
    assert env.spec.obs == {"vector": FieldSpec((2,)), ACTION_MASK: FieldSpec((5,), "bool")}
    step = env.reset(0)
    for number in range(5):
        expected = [bits(a_copy.told).astype(bool).tolist() for a_copy in made]
        assert step.obs[ACTION_MASK].tolist() == expected
        if number == 2:
            env.reset_agents(np.array([1]))
        step = env.step(choose((0, int(number == 1)), (0, 0)))
        assert step.ended.obs[ACTION_MASK].tolist() == {1: [[True] * 5], 2: expected[1:]}.get(number, [])


def test_where_a_time_limit_cuts_the_mask_of_that_very_step_stands() -> None:
    def limited() -> gymnasium.Env[Any, Any]:
        shown = Shown(mask=lambda told: np.array([told % 2, 1], np.int8))
        return gymnasium.wrappers.TimeLimit(shown, 3)

    env = GymnasiumEnv("limited", make=limited)
    env.reset(0)
    masks = [env.step(choose((0,))).ended.obs[ACTION_MASK].tolist() for _ in range(3)]
    told = made[-1].told - 1  # before the next episode's first
    assert masks == [[], [], [[told % 2 == 1, True]]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mask": lambda _: np.ones(5)}, "Shown-v0 has 2 choices and an 'action_mask' of 5"),
        ({"observes": spaces.Dict({ACTION_MASK: spaces.Box(0, 1, (2,))})}, r"observes 'action_mask'; .* into the info"),
    ],
)
def test_a_mask_that_makes_no_sense_is_told(
    make: Callable[..., GymnasiumEnv], given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        make(**given)


def test_a_mask_that_is_missing_later_is_told(make: Callable[..., GymnasiumEnv]) -> None:
    env = make(mask=lambda told: np.ones(2) if told < 3 else None)  # the constructor's reset, then that of copy 0
    env.reset(0)
    with pytest.raises(EnvFailed, match="Shown-v0 gave no 'action_mask' in an info, but did before"):
        env.step(choose((0,), (0,)))
