"""Checkpoints: what a run leaves behind, whole or not at all.

A checkpoint is a directory, `checkpoints/<number>` in the run's; the highest number is the newest. It is written under
another name, every file forced to the disk, a manifest with sizes and SHA-256 last; then it is renamed. Whoever finds a
directory with its final name finds all of it; whoever reads it checks, and takes the next older one if it is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from core.acting import PolicySpec
from core.net import num_parameters
from core.types import EnvSpec, FloatArray

_HOME = "checkpoints"
_MANIFEST = "manifest.json"
_PIECE = 2**20


@dataclass(frozen=True)
class SavedPolicy:
    """All that acting needs: the exact policy whose evaluation the run reported. Loading it needs no torch."""

    env: dict[str, Any]
    """which environment, in the words of envproc.EnvConfig"""
    env_spec: EnvSpec
    policy_spec: PolicySpec


def save(
    run: Path,
    policy: SavedPolicy,
    parameters: FloatArray,
    state: dict[str, Any],
    add: Callable[[Path], None] = lambda directory: None,
) -> Path:
    """Write the next checkpoint of the run in directory `run`; returns its directory.

    The policy with its (P,) `parameters`, and `state` for going on: tensors, numbers, text, in lists and dicts. `add`
    writes further files into the directory that it is given. Raises OSError if it cannot be written, as on a full disk;
    then all is as before.
    """
    directory = run / _HOME / f"{max(map(_number, _found(run)), default=0) + 1:06d}"
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _write(unfinished, policy, parameters, state, add)
        os.rename(unfinished, directory)
    except (OSError, RuntimeError) as error:  # the latter is torch's
        free = shutil.disk_usage(run).free / 2**20
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(f"{directory}: {error}; the disk had {free:.1f} MiB left") from error
    _force_to_disk(directory.parent)
    return directory


def _write(
    unfinished: Path,
    policy: SavedPolicy,
    parameters: FloatArray,
    state: dict[str, Any],
    add: Callable[[Path], None],
) -> None:
    import torch

    unfinished.mkdir(parents=True)
    (unfinished / "policy.json").write_bytes(msgspec.json.format(msgspec.json.encode(policy), indent=1))
    np.save(unfinished / "policy.npy", parameters, allow_pickle=False)
    torch.save(state, unfinished / "state.pt")
    add(unfinished)
    files = sorted(unfinished.iterdir())
    manifest = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in files}
    (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in [*files, unfinished / _MANIFEST, unfinished]:
        _force_to_disk(path)


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what was left unfinished, or half deleted, by a run that was
    killed."""
    home = run / _HOME
    for left in home.glob(".*.deleted"):
        shutil.rmtree(left, ignore_errors=True)
    for directory in [*_found(run)[keep:], *home.glob(".*.unfinished")]:
        # renamed first: half a checkpoint must not have a checkpoint's name
        doomed = directory.rename(home / f".{directory.name.strip('.')}.deleted")
        shutil.rmtree(doomed, ignore_errors=True)


def newest(run: Path, holding: str = "policy.npy") -> tuple[Path, list[str]]:
    """The directory of the newest checkpoint that has this file and is what was saved, and why newer ones are not.

    Raises ValueError if there is none.
    """
    rejected: list[str] = []
    try:
        found = _found(run)
    except OSError as error:  # not as if there were none
        raise ValueError(f"the checkpoints of {run} cannot be read: {error}") from error
    for directory in found:
        try:
            manifest = json.loads((directory / _MANIFEST).read_text())
            damaged = [name for name, file in manifest.items() if _sha256(directory / name) != file["sha256"]]
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            rejected.append(f"{directory} cannot be read ({type(error).__name__}: {error})")
            continue
        if damaged:
            rejected.append(f"{directory} is damaged: {', '.join(damaged)} not as saved")
        elif holding in manifest:
            return directory, rejected
    raise ValueError("; ".join(rejected) or f"{run} is no run with a checkpoint")


def load_policy(run: Path) -> tuple[SavedPolicy, FloatArray]:
    """The policy that the run in directory `run` kept, and its parameters.

    Raises ValueError if no checkpoint can be read.
    """
    return read_policy(newest(run)[0])


def read_policy(directory: Path) -> tuple[SavedPolicy, FloatArray]:
    """The policy in a checkpoint's directory, and its parameters. Raises ValueError if they cannot be read."""
    try:
        policy = msgspec.json.decode((directory / "policy.json").read_bytes(), type=SavedPolicy)
        parameters: FloatArray = np.load(directory / "policy.npy", allow_pickle=False)
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{directory} is no checkpoint that can be read: {error}") from error
    if parameters.shape != (num_parameters(policy.policy_spec.net),):
        raise ValueError(f"the checkpoint {directory} holds {parameters.shape} parameters for another network")
    return policy, parameters


def load_state(directory: Path) -> dict[str, Any]:
    """The state in a checkpoint's directory, on the CPU."""
    import torch

    state: dict[str, Any] = torch.load(directory / "state.pt", map_location="cpu", weights_only=True)
    return state


def _found(run: Path) -> list[Path]:
    """The directories of finished checkpoints, the newest first."""
    return sorted((path for path in (run / _HOME).glob("*") if path.name.isdecimal()), key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.name)


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            sha.update(piece)
    return sha.hexdigest()


def _force_to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
