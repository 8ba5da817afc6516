"""GymnasiumEnv over the families of environments that need packages of their own: Atari, MuJoCo, Box2D."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from core.types import Action, FieldSpec
from envproc import EnvConfig, make_env
from envproc.gymnasium import GymnasiumEnv
from tests.contracts import check_env


@pytest.mark.parametrize(("package", "env_id"), [("mujoco", "HalfCheetah-v5"), ("Box2D", "LunarLander-v3")])
def test_environments_of_other_packages_keep_the_contract(package: str, env_id: str) -> None:
    pytest.importorskip(package)
    env = GymnasiumEnv(env_id, copies=2)
    check_env(env)
    env.close()


def test_an_atari_game_is_preprocessed_as_usual_and_its_frames_stack() -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    env = make_env(EnvConfig("gymnasium:ALE/Pong-v5", copies=2, frame_stack=4))
    assert env.spec.obs == {"image": FieldSpec((4, 84, 84), "uint8", stack=4)}
    check_env(env, steps=60)
    env.close()


def test_an_atari_action_lasts_4_frames_and_a_life_lost_is_no_end() -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    env = GymnasiumEnv("ALE/Breakout-v5")
    ale = env._envs[0].unwrapped.ale  # type: ignore[attr-defined]
    fire = Action(np.zeros((1, 0), np.float32), np.ones((1, 1), np.int64))
    env.reset(0)
    assert 0 < ale.getEpisodeFrameNumber() <= 30  # no-ops
    before = ale.getEpisodeFrameNumber()
    env.step(fire)
    assert ale.getEpisodeFrameNumber() == before + 4
    assert ale.getFloat("repeat_action_probability") == 0.25
    lives = ale.lives()
    while ale.lives() == lives:
        step = env.step(fire)
        assert len(step.ended.agent) == 0
    env.close()


@pytest.mark.parametrize("package", ["ale_py", "cv2"])
def test_a_package_that_an_atari_game_needs_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    if package == "cv2":
        pytest.importorskip("ale_py")
    monkeypatch.setitem(sys.modules, package, None)
    way_out = f"Pong-v5 needs {package}, which is missing: pip install ale-py opencv-python-headless"
    with pytest.raises(ValueError, match=way_out) as caught:
        GymnasiumEnv("ALE/Pong-v5")
    assert "\n" not in str(caught.value)


def test_a_game_that_does_not_exist_is_told_in_one_line() -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match="Gymnasium has no 'ALE/Pongg-v5'") as caught:
        GymnasiumEnv("ALE/Pongg-v5")
    assert "\n" not in str(caught.value)
