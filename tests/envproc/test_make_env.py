"""Names of environments, and what is said when there is none of that name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envproc import EnvConfig, make_env
from envproc.ball3d import Ball3D
from envproc.env import HasPictures, Place
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
    with pytest.raises(ValueError, match="copies=1 and nothing else"):
        make_env(EnvConfig(f"{own}:alone", 1))


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
