"""Everything that runs inside an environment worker.

An environment has a name, and `make_env` knows six kinds:

    3dball                  the built-in 3DBall; a copy is an area of 12 agents
    gymnasium:CartPole-v1   any Gymnasium id; a copy is an agent
    unity:path/to/build     a Unity ML-Agents player; a copy is a training area, if the scene has a replicator of them
    unity:editor            the Unity Editor, when Play is pressed there
    path/to/file.py:Class   a class of yours, called with copies=...; the contract is envproc/env.py. Or a Gymnasium
                            class, or a function that makes one, called with nothing: a copy is an agent
    package.module:Class    the same, from what is installed
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from types import ModuleType

from core.types import EnvSpec, require
from envproc.ball3d import Ball3D
from envproc.env import HERE, CannotSet, Env, HasPictures, HasTimeScale, Place, change
from envproc.stack import Stacked
from envproc.unity.options import UnityOptions

_KINDS = "3dball, gymnasium:ID, unity:PATH, unity:editor, path/to/file.py:Class or package.module:Class"


@dataclass(frozen=True)
class EnvConfig:
    """Which environment."""

    name: str
    copies: int = 1
    """of it side by side"""
    behavior: str = ""
    """of a Unity scene with several: the one to act for"""
    unity: UnityOptions = field(default_factory=UnityOptions)
    frame_stack: int = 1
    """frames of each image that an agent sees at once"""
    params: tuple[str, ...] = ()
    """parameters of it, each as key=number"""

    def parameters(self) -> dict[str, float]:
        """`params` by name. Raises ValueError for one that is not key=number."""
        found = {}
        for each in self.params:
            name, is_pair, value = each.partition("=")
            try:
                found[name] = float(value)
            except ValueError:
                is_pair = ""
            if not (name and is_pair and isfinite(found[name])):
                raise ValueError(f"--env-params {each}; it must be key=number, as in gravity=4")
        return found


def make_env(config: EnvConfig, where: Place = HERE) -> Env:
    """The environment that is meant. Raises ValueError, in one line, if there is none, or none that can draw."""
    require("--frame-stack", config.frame_stack, config.frame_stack >= 1, "at least 1")
    parameters = config.parameters()
    env = _make(config, parameters, where)
    if where.pictures and not isinstance(env, HasPictures):
        env.close()
        raise ValueError(
            f"{config.name} cannot draw itself; that takes pictures_per_s and picture(), see envproc/env.py"
        )
    try:
        if not isinstance(env, HasTimeScale):  # a player was told at its start
            for key, value in parameters.items():
                change(env, f"env.{key}", value)
        return env if config.frame_stack == 1 else Stacked(env, config.frame_stack)
    except CannotSet as error:
        env.close()
        raise ValueError(f"--env-params: {error}") from error
    except ValueError:
        env.close()
        raise


def _make(config: EnvConfig, parameters: dict[str, float], where: Place) -> Env:
    name, copies = config.name, config.copies
    kind, _, what = name.partition(":")
    if kind == "unity" and what:
        if where.pictures:
            raise ValueError(f"{name} is drawn by Unity, into a window of its own: look there, and leave --video out")
        # only here: a worker of anything else stays small
        from envproc.unity.env import UnityEnv
        from envproc.unity.launch import EDITOR
        from envproc.unity.several import Several

        num = config.unity.players_per_worker
        require(
            "--unity.players-per-worker", num, num == 1 or what != EDITOR, "1 with the Editor, which runs one scene"
        )
        try:
            make = UnityEnv if num == 1 else Several
            return make(what, copies, config.behavior, config.unity, where, parameters)
        except CannotSet as error:
            raise ValueError(f"--env-params: {error}") from error
    if config.behavior:
        raise ValueError(f"--behavior {config.behavior} is for Unity scenes; {name} has no behaviours to choose from")
    if name == "3dball":
        return Ball3D(areas=copies)
    place, _, what = name.partition(":") if kind == "gymnasium" else name.rpartition(":")
    if not place or not what:
        raise ValueError(f"no environment {name!r}{_hint(name)}; environments are {_KINDS}")
    if place == "gymnasium":
        try:
            from envproc.gymnasium import GymnasiumEnv
        except ModuleNotFoundError as error:
            if error.name != "gymnasium":
                raise
            raise ValueError(f"{name} needs Gymnasium: pip install gymnasium") from error
        return GymnasiumEnv(what, copies, where.pictures)
    module = _from_file(Path(place)) if place.endswith(".py") else _from_path(place, name)
    return _call(module, what, place, copies, where.pictures)


def check_player(name: str) -> None:
    """Raises ValueError, in one line, if there is no player `unity:PATH`. Starts nothing."""
    _, _, path = name.partition(":")
    if not path:
        raise ValueError(f"no environment {name!r}; environments are {_KINDS}")
    if path != "editor":
        from envproc.unity.launch import find_player  # only here: no worker needs it to start

        find_player(path)


def _hint(name: str, *others: str) -> str:
    near = difflib.get_close_matches(name.lower(), ["3dball", "gymnasium", "unity", *others], n=1, cutoff=0.5)
    meant = f"gymnasium:{name}" if re.search(r"-v\d+$", name) else near[0] if near else None
    return f" (did you mean {meant!r}?)" if meant else ""


def _from_file(file: Path) -> ModuleType:
    """The module of that file, under its own stem."""
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [each.name for each in file.parent.glob("*.py")], n=1)
        raise ValueError(f"no file {file}" + (f"; did you mean {file.parent / near[0]}?" if near else ""))
    known = importlib.util.find_spec(file.stem) if file.stem.isidentifier() else None
    if known is not None and known.origin is not None:
        if Path(known.origin).resolve() == file.resolve():
            return importlib.import_module(file.stem)
        raise ValueError(f"{file} would hide the module {file.stem!r} of {known.origin}; rename the file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    sys.path.append(folder)  # its neighbours are importable, as if Python had been called with the file itself
    sys.modules[file.stem] = module  # before it runs, as import does: dataclasses and pickle look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    finally:
        sys.path.remove(folder)
    return module


def _from_path(path: str, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"no environment {name!r}{_hint(name)}; environments are {_KINDS}")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        # What is missing inside that module is the module's own story, and told as such.
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        package = path.rpartition(".")[0]
        inside = pkgutil.iter_modules(getattr(sys.modules.get(package), "__path__", []), f"{package}.")
        hint = _hint(path, *(each.name for each in inside))
        raise ValueError(f"no module {error.name!r} for {name!r}{hint}; environments are {_KINDS}") from error


def _call(module: ModuleType, what: str, place: str, copies: int, pictures: bool) -> Env:
    make = getattr(module, what, None)
    if make is None:
        near = difflib.get_close_matches(what, dir(module), n=1)
        raise ValueError(f"{place} has no {what!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    takes = {} if _makes_gymnasium(make) else {"copies": copies}
    try:
        inspect.signature(make).bind(**takes)
    except TypeError as error:
        told = f"copies={copies} and nothing else" if takes else "nothing, as it is Gymnasium's"
        raise ValueError(
            f"{place}:{what} is called with {told}: {error}; name a function that does the rest"
        ) from error
    if not takes:
        from envproc.gymnasium import GymnasiumEnv

        return GymnasiumEnv(f"{place}:{what}", copies, pictures, make)
    env: Env = make(copies=copies)
    if not isinstance(getattr(env, "spec", None), EnvSpec):
        raise ValueError(
            f"{place}:{what} makes something that has no `spec`, an EnvSpec; the contract is envproc/env.py"
        )
    return env


def _makes_gymnasium(make: Callable[..., object]) -> bool:
    """Whether it is a class of Gymnasium's, or a function that may return such a thing, wrapped for instance."""
    gymnasium = sys.modules.get("gymnasium")  # whoever has either has imported it
    if gymnasium is None:
        return False
    if isinstance(make, type):
        return issubclass(make, gymnasium.Env)
    return "copies" not in inspect.signature(make).parameters
