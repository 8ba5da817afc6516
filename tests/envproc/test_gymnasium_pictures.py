"""Pictures of Gymnasium environments: whose, how many a second, and what is said where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from envproc.env import EnvFailed, HasPictures
from envproc.gymnasium import GymnasiumEnv
from tests.envproc.test_gymnasium import Scripted, act


class Drawn(Scripted):
    """Draws how often it was stepped."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.render_mode = given.get("render_mode")

    def render(self) -> Any:
        if self.render_mode is None:
            return None
        if self.now[0] >= 102:
            raise RuntimeError("no screen")
        return np.full((4, 6, 3), self.now[0], np.uint8)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    Scripted.made.clear()
    gymnasium.register("Scripted-v0", Scripted)
    gymnasium.register("Drawn-v0", Drawn)
    yield
    del gymnasium.registry["Scripted-v0"], gymnasium.registry["Drawn-v0"]


def test_pictures_are_those_of_the_first_copy_at_the_environments_own_rate() -> None:
    env = GymnasiumEnv("Drawn-v0", copies=2, pictures=True)
    env.reset(0)
    env.step(act((-1, -1), (1, -1)))
    assert isinstance(env, HasPictures) and env.pictures_per_s == 12
    assert np.array_equal(env.picture(), np.full((4, 6, 3), 101, np.uint8))
    assert [each.render_mode for each in Scripted.made if isinstance(each, Drawn)] == [None, "rgb_array", None]
    assert [each.closed for each in Scripted.made] == [True, False, False]  # the first told what there is


def test_an_environment_that_cannot_draw_says_so() -> None:
    with pytest.raises(ValueError, match=r"Scripted-v0 cannot draw itself: its render modes are \[\], and 'rgb_array'"):
        GymnasiumEnv("Scripted-v0", pictures=True)
    env = GymnasiumEnv("Drawn-v0", pictures=True)
    env.reset(0)
    for _ in range(2):
        env.step(act((-1, -1)))
    with pytest.raises(EnvFailed, match="Drawn-v0 could not draw itself: no screen"):
        env.picture()
    env = GymnasiumEnv("Drawn-v0")
    env.reset(0)
    with pytest.raises(EnvFailed, match="Drawn-v0 drew None, no array; for pictures it is made with pictures=True"):
        env.picture()


@pytest.mark.parametrize(
    ("package", "env_id", "rate"), [("ale_py", "ALE/Pong-v5", 15), ("Box2D", "LunarLander-v3", 50)]
)
def test_environments_of_other_packages_play_at_their_real_speed(package: str, env_id: str, rate: float) -> None:
    pytest.importorskip(package)
    env = GymnasiumEnv(env_id, pictures=True)
    env.reset(0)
    picture = env.picture()
    assert env.pictures_per_s == rate
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.std() > 10
    env.close()
