"""Checkpoints: what a run leaves behind, whole or not at all.

A checkpoint is a directory. It is written under another name, every file forced to the disk, a manifest with sizes
and SHA-256 last; then it is renamed. Whoever finds a directory with its final name finds all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from core.acting import PolicySpec
from core.net import num_parameters
from core.types import EnvSpec, FloatArray

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class SavedPolicy:
    """All that acting needs: the exact policy whose evaluation the run reported. Loading it needs no torch."""

    env: dict[str, Any]
    """which environment, in the words of envproc.EnvConfig"""
    env_spec: EnvSpec
    policy_spec: PolicySpec


def save(directory: Path, policy: SavedPolicy, parameters: FloatArray, state: dict[str, Any]) -> None:
    """Write `directory`: the policy with its (P,) `parameters`, and the algorithm's whole `state`."""
    import torch

    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / "policy.json").write_bytes(msgspec.json.format(msgspec.json.encode(policy), indent=1))
    np.save(unfinished / "policy.npy", parameters, allow_pickle=False)
    torch.save(state, unfinished / "state.pt")
    files = sorted(unfinished.iterdir())
    manifest = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in files}
    (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in [*files, unfinished / _MANIFEST, unfinished]:
        _force_to_disk(path)
    os.rename(unfinished, directory)
    _force_to_disk(directory.parent)


def load_policy(directory: Path) -> tuple[SavedPolicy, FloatArray]:
    """The policy in `directory` and its parameters.

    Raises ValueError if a file is missing, or is not the one that was saved.
    """
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        for name in ("policy.json", "policy.npy"):
            if _sha256(directory / name) != manifest[name]["sha256"]:
                raise ValueError(f"the checkpoint {directory} is damaged: {name} is not what was saved")
        policy = msgspec.json.decode((directory / "policy.json").read_bytes(), type=SavedPolicy)
        parameters: FloatArray = np.load(directory / "policy.npy", allow_pickle=False)
    except (OSError, KeyError, json.JSONDecodeError, msgspec.MsgspecError) as error:
        raise ValueError(f"{directory} is no checkpoint that can be read: {error}") from error
    if parameters.shape != (num_parameters(policy.policy_spec.net),):
        raise ValueError(f"the checkpoint {directory} holds {parameters.shape} parameters for another network")
    return policy, parameters


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _force_to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
