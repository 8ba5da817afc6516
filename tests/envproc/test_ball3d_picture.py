"""The picture of 3DBall: where things are in it, found by their colours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from envproc.ball3d import Ball3D
from envproc.env import HasPictures, Picture

Array = npt.NDArray[np.float64]


@pytest.fixture
def env() -> Ball3D:
    """Level plates, each with its ball in the middle, at rest."""
    env = Ball3D()
    env.reset(0)
    env._balls.plate[:] = np.array([[1.0], [0.0], [0.0], [0.0]])
    env._balls.ball[:] = np.array([[0.0], [3.0], [0.0]])
    return env


def orange(picture: Picture) -> npt.NDArray[np.bool_]:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    mask: npt.NDArray[np.bool_] = (red > 200) & (red - blue > 100) & (green < red)
    return mask


def middle(mask: npt.NDArray[np.bool_]) -> Array:
    """Right and down, in pixels."""
    middle: Array = np.argwhere(mask).mean(axis=0)[::-1]
    return middle


def changed(before: Picture, after: Picture) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = (before != after).any(axis=2)
    return mask


def cell(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of the twelve in which this lies."""
    right, down = middle(mask)
    return int((down - 90) // 105), int((right - 40) // 142)


def test_it_is_640_by_480_and_shows_every_ball(env: Ball3D) -> None:
    assert isinstance(env, HasPictures) and env.pictures_per_s == 10
    picture = env.picture()
    assert picture.shape == (480, 640, 3) and picture.dtype == np.uint8
    places = set()
    for agent in range(12):
        env._balls.ball[1, agent] = -100.0  # far below, and out of the picture
        without = env.picture()
        places.add(cell(orange(picture) & changed(picture, without)))
        picture = without
    assert places == {(row, column) for row in range(3) for column in range(4)}
    assert not orange(picture).any()


def test_the_picture_changes_where_a_ball_moved_and_nowhere_else(env: Ball3D) -> None:
    before = env.picture()
    for agent, (row, column) in ((0, (0, 0)), (6, (1, 2)), (11, (2, 3))):
        env._balls.ball[0, agent] += 1.0
        after = env.picture()
        where = np.argwhere(changed(before, after))
        assert cell(changed(before, after)) == (row, column)
        assert (where.max(axis=0) - where.min(axis=0) < 60).all()
        before = after


def test_to_the_right_up_and_away_are_right_up_and_up_in_the_picture(env: Ball3D) -> None:
    start = middle(orange(env.picture()))
    for axis, (right, down) in enumerate(((1, 0), (0, -1), (0, -1))):
        env._balls.ball[axis] += 1.0
        moved = middle(orange(env.picture())) - start
        env._balls.ball[axis] -= 1.0
        assert (np.sign(moved) * (abs(moved) > 6) == (right, down)).all(), (axis, moved)


def test_a_tilted_plate_looks_tilted_and_its_neighbours_do_not(env: Ball3D) -> None:
    before = env.picture()
    env._balls.plate[:, 5] = (np.cos(0.1), 0.0, np.sin(0.1), 0.0)  # about z: its right side rises
    after = env.picture()
    assert cell(changed(before, after)) == (1, 1)
    left, right = (
        [int(np.argmax(each[165:, at, 2].astype(int) - each[165:, at, 0] > 60)) for each in (before, after)]
        for at in (222, 284)  # columns; of each the first row that is a plate's blue
    )
    assert left[1] > left[0] + 3 and right[1] < right[0] - 3


def test_a_ball_that_fell_behind_its_plate_is_hidden_and_one_in_front_is_not(env: Ball3D) -> None:
    seen = []
    for away in (2.9, -2.9):
        env._balls.ball[:] = np.array([[0.0], [1.9], [away]])
        seen.append(orange(env.picture()).sum())
    assert seen[0] < 0.6 * seen[1]


def test_a_picture_stays_as_it_is_while_the_world_goes_on(env: Ball3D) -> None:
    picture = env.picture()
    kept = picture.copy()
    env._balls.ball[0] += 1.0
    assert not np.array_equal(env.picture(), kept)
    assert np.array_equal(picture, kept)


def test_a_picture_shows_nothing_of_the_one_before(env: Ball3D) -> None:
    first = env.picture()
    env._balls.ball += 3.0
    env.picture()
    env._balls.ball -= 3.0
    assert np.array_equal(env.picture(), first)


def test_of_several_areas_the_first_is_drawn() -> None:
    one, several = Ball3D(1), Ball3D(3)
    for env in (one, several):
        env.reset(7)
    assert np.array_equal(one.picture(), several.picture())
