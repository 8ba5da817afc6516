"""Names of environments, and what is said when there is none of that name."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from core.types import Action
from envproc import EnvConfig, make_env
from envproc.ball3d import Ball3D
from envproc.env import CannotSet, HasPictures, Place, change
from envproc.gymnasium import GymnasiumEnv

OWN = """
from dataclasses import dataclass

from envproc.ball3d import Ball3D


@dataclass
class Weather:  # dataclasses look their module up while it is being imported
    wind: float = 0.0


class Mine(Ball3D):
    def __init__(self, copies):
        super().__init__(copies)


def alone():
    return Mine(1)
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A file of a user's own."""
    file = tmp_path / "my_own_env.py"
    file.write_text(OWN)
    yield file
    sys.modules.pop("my_own_env", None)


def test_3dball_comes_in_areas_of_12() -> None:
    env = make_env(EnvConfig("3dball", 3))
    assert isinstance(env, Ball3D)
    assert env.spec.num_agents == 36


def test_a_gymnasium_id_comes_in_copies() -> None:
    env = make_env(EnvConfig("gymnasium:CartPole-v1", 3))
    assert isinstance(env, GymnasiumEnv)
    assert env.spec.num_agents == 3
    env.close()


def test_a_class_of_a_file_is_imported_under_the_files_name(own: Path) -> None:
    env = make_env(EnvConfig(f"{own}:Mine", 2))
    assert env.spec.num_agents == 24
    assert type(env).__module__ == "my_own_env"
    assert type(make_env(EnvConfig(f"{own}:Mine", 2))) is type(env)  # one file is one module


def test_a_class_of_a_module_is_found_by_its_path(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(own.parent)
    assert make_env(EnvConfig("my_own_env:Mine", 1)).spec.num_agents == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("3dbal", r"no environment '3dbal' \(did you mean '3dball'\?\)"),
        ("3DBALL", "did you mean '3dball'"),
        ("CartPole-v1", "did you mean 'gymnasium:CartPole-v1'"),
        ("gym:CartPole-v1", "no module 'gym'.*did you mean 'gymnasium'"),
        ("gymnasium:CartPol-v1", "CartPol.*Did you mean: `CartPole`"),
        ("gymnasium:", "no environment 'gymnasium:'"),
        (":Mine", "no environment ':Mine'"),
        ("", "no environment ''; environments are 3dball, gymnasium:ID"),
        ("envproc.bal3d:Ball3D", "no module 'envproc.bal3d'.*did you mean 'envproc.ball3d'"),
        ("envproc.ball3d:Ball3", "envproc.ball3d has no 'Ball3'; did you mean 'Ball3D'"),
        ("envproc.ball3d:Ball3D", "is called with copies=1 and nothing else.*'copies'"),
    ],
)
def test_an_unknown_name_is_told_in_one_line_with_what_was_meant(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_env(EnvConfig(name, 1))
    assert "\n" not in str(caught.value)


def test_an_unknown_file_or_class_is_told_with_what_was_meant(own: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*my_own_en\.py; did you mean .*my_own_env\.py"):
        make_env(EnvConfig(f"{own.with_name('my_own_en.py')}:Mine", 1))
    with pytest.raises(ValueError, match="has no 'Mime'; did you mean 'Mine'"):
        make_env(EnvConfig(f"{own}:Mime", 1))
    with pytest.raises(ValueError, match=r"makes a Mine, no gymnasium.Env; what takes `copies`"):
        make_env(EnvConfig(f"{own}:alone", 1))


GYMNASIUMS_OWN = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Plain(gymnasium.Env):  # without render_mode, as whoever draws nothing writes it
    observation_space, action_space = spaces.Box(-1, 1, (2, 2), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.ones((2, 2), np.float32), {}

    def step(self, action):
        return np.ones((2, 2), np.float32), 1.0, True, False, {}


class Sized(Plain):
    def __init__(self, size):
        self.size = size


def flattened():
    return gymnasium.wrappers.FlattenObservation(Plain())


gymnasium.register("Plain-v0", Plain)
"""


def test_a_gymnasium_class_of_a_users_file_comes_in_copies_and_so_does_what_a_function_wraps(tmp_path: Path) -> None:
    file = tmp_path / "my_gymnasium_env.py"
    file.write_text(GYMNASIUMS_OWN)
    try:
        env = make_env(EnvConfig(f"{file}:flattened", 3))
        assert isinstance(env, GymnasiumEnv)
        assert (env.spec.num_agents, env.spec.obs["vector"].shape) == (3, (4,))
        assert env.step(Action(np.zeros((3, 0), np.float32), np.zeros((3, 1), np.int64))).ended.agent.tolist() == [
            0,
            1,
            2,
        ]
        with pytest.raises(ValueError, match=r"FlattenObservation|\(2, 2\)"):  # as it is, it is no vector and no image
            make_env(EnvConfig(f"{file}:Plain"))
        with pytest.raises(
            ValueError, match=r"Sized is called with nothing, as it is Gymnasium's.*'size'; name a function"
        ):
            make_env(EnvConfig(f"{file}:Sized"))
        with pytest.raises(ValueError, match="flattened cannot draw itself"):
            make_env(EnvConfig(f"{file}:flattened"), Place(pictures=True))
        with pytest.raises(ValueError, match=r"FlattenObservation|2, 2"):
            make_env(EnvConfig("gymnasium:Plain-v0"))
    finally:
        sys.modules.pop("my_gymnasium_env", None)
        gymnasium.registry.pop("Plain-v0", None)


def test_a_file_that_would_hide_another_module_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "json.py"
    file.write_text(OWN)
    with pytest.raises(ValueError, match=r"would hide the module 'json' of .*; rename the file"):
        make_env(EnvConfig(f"{file}:Mine", 1))


def test_what_fails_inside_a_users_file_is_not_hidden_and_leaves_no_half_module(tmp_path: Path) -> None:
    file = tmp_path / "half_an_env.py"
    file.write_text("import surely_not_installed")
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        make_env(EnvConfig(f"{file}:Mine", 1))
    assert "half_an_env" not in sys.modules


def test_what_is_missing_inside_a_users_module_is_not_blamed_on_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        make_env(EnvConfig("needs_more:Mine", 1))


def test_gymnasium_itself_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "envproc.gymnasium")
    monkeypatch.setattr(sys.modules["envproc"], "gymnasium", None)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match="needs Gymnasium: pip install gymnasium"):
        make_env(EnvConfig("gymnasium:CartPole-v1", 1))


def test_a_worker_of_3dball_stays_small() -> None:
    program = (
        "import sys; from envproc import EnvConfig, make_env; make_env(EnvConfig('3dball', 1)); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "envproc.ball3d" in done.stdout.split()
    assert not {"gymnasium", "torch", "numba", "PIL"} & set(done.stdout.split())


def test_an_environment_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "a_neighbour_of_mine.py").write_text("from envproc.ball3d import Ball3D as Thing\n")
    (tmp_path / "needs_its_neighbour.py").write_text(
        "from a_neighbour_of_mine import Thing\n\n\ndef make(copies):\n    return Thing(copies)\n"
    )
    assert type(make_env(EnvConfig(f"{tmp_path}/needs_its_neighbour.py:make", 1))) is Ball3D
    assert str(tmp_path) not in sys.path


def test_a_worker_of_a_unity_player_imports_no_torch() -> None:
    program = "import sys; import envproc.unity.env, envproc.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "envproc.unity.env" in done.stdout.split() and "torch" not in done.stdout.split()


def test_what_cannot_draw_itself_is_refused_where_pictures_are_wanted() -> None:
    wanted = Place(pictures=True)
    for name in ("3dball", "gymnasium:CartPole-v1"):
        assert isinstance(make_env(EnvConfig(name), wanted), HasPictures)
    with pytest.raises(ValueError, match=r"toys:Catch cannot draw itself; that takes pictures_per_s and picture\(\)"):
        make_env(EnvConfig("envproc.toys:Catch", frame_stack=2), wanted)
    with pytest.raises(ValueError, match=r"unity:nowhere is drawn by Unity, into a window of its own: .*leave --video"):
        make_env(EnvConfig("unity:nowhere"), wanted)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ((), {}),
        (("gravity=4",), {"gravity": 4.0}),
        (("a=-1.5e3", "b c=0"), {"a": -1500.0, "b c": 0.0}),
        (("a=1", "a=2"), {"a": 2.0}),
        (("a= 3 ",), {"a": 3.0}),
    ],
)
def test_params_are_numbers_by_name(params: tuple[str, ...], expected: dict[str, float]) -> None:
    assert EnvConfig("3dball", params=params).parameters() == expected


@pytest.mark.parametrize("wrong", ["gravity", "gravity=low", "gravity=", "=4", "a=1=2", "a=nan", "a=inf"])
def test_a_parameter_that_is_no_number_by_name_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"--env-params .*; it must be key=number, as in gravity=4"):
        make_env(EnvConfig("3dball", params=("gravity=4", wrong)))


@pytest.mark.parametrize(
    ("env", "param", "says"),
    [
        ("3dball", "mass=1", "env.mass = 1: 3DBall has gravity, from 0 to 1000"),
        ("3dball", "gravity=-1", "env.gravity = -1: 3DBall has gravity, from 0 to 1000"),
        ("gymnasium:CartPole-v1", "gravity=4", "env.gravity = 4: CartPole-v1 declares no parameters"),
        ("envproc.toys:Masked", "a=1", "env.a = 1: this environment has no parameters"),
    ],
)
def test_a_parameter_that_the_environment_does_not_have_is_refused_with_those_it_has(
    env: str, param: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        make_env(EnvConfig(env, params=(param,)))


def test_what_a_wrapper_of_gymnasium_declares_can_be_set() -> None:
    class Pushed(gymnasium.Wrapper[Any, Any, Any, Any]):
        def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
            super().__init__(env)
            self.parameters = {"push": 0.0}

        def step(self, action: Any) -> Any:
            obs, reward, *rest = self.env.step(action)
            return obs, float(reward) + self.parameters["push"], *rest

    def make(**_: Any) -> gymnasium.Env[Any, Any]:
        return gymnasium.wrappers.TimeLimit(Pushed(gymnasium.make("CartPole-v1")), 100)

    gymnasium.register("Pushed-v0", make)
    try:
        with contextlib.closing(make_env(EnvConfig("gymnasium:Pushed-v0", copies=2, params=("push=3",)))) as env:
            step = env.reset(1)
            action = Action(np.zeros((2, 0), np.float32), np.ones((2, 1), np.int64))
            assert env.step(action).reward.tolist() == [4, 4]
            change(env, "env.push", 0.5)
            assert env.step(action).reward.tolist() == [1.5, 1.5]
            assert step.agent.tolist() == [0, 1]
            with pytest.raises(CannotSet, match="declares push"):
                change(env, "env.pull", 1)
    finally:
        del gymnasium.registry["Pushed-v0"]
