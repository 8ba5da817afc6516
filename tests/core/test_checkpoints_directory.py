"""Of checkpoints that are not kept nothing stays, and what is none is not taken for one."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from core.checkpoint import newest, prune


def make(home: Path, name: str) -> None:
    (home / name).mkdir(parents=True)
    (home / name / "state.pt").touch()


def test_what_was_being_deleted_or_written_when_the_run_was_killed_is_deleted_later(tmp_path: Path) -> None:
    home = tmp_path / "checkpoints"
    for name in ("000001", "000002", "000003", ".000001.deleted", ".000004.unfinished", ".000004.unfinished.deleted"):
        make(home, name)
    prune(tmp_path, keep=2)
    assert sorted(os.listdir(home)) == ["000002", "000003"]


def test_a_directory_whose_name_is_no_number_is_passed_over(tmp_path: Path) -> None:
    home = tmp_path / "checkpoints"
    for name in ("000001", "²", "notes"):
        make(home, name)
    sha256 = hashlib.sha256(b"").hexdigest()
    (home / "000001" / "manifest.json").write_text(json.dumps({"state.pt": {"bytes": 0, "sha256": sha256}}))
    assert newest(tmp_path, holding="state.pt") == (home / "000001", [])
