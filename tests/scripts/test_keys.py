"""`python -m scripts.keys`: what it makes, and that nobody else can read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts import keys

SECRETS = ["server.key_secret", "for-alice/client.key_secret", "for-bob/client.key_secret"]


def test_each_gets_its_own_and_nobody_else_can_read_what_is_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.umask(before := os.umask(0))
    directory = tmp_path / "keys"
    assert keys.main([str(directory), "alice", "bob"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"for the job, --control-keys or --listen-keys: {directory}",
        f"for alice, --control-keys of scripts.ctl or --keys of scripts.worker: {directory}/for-alice",
        f"for bob, --control-keys of scripts.ctl or --keys of scripts.worker: {directory}/for-bob",
    ]
    assert sorted(str(file.relative_to(directory)) for file in directory.rglob("*.key_secret")) == sorted(SECRETS)
    assert all((directory / name).stat().st_mode & 0o777 == 0o600 for name in SECRETS)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len({(directory / name).read_text() for name in SECRETS}) == 3
    assert os.umask(before) == before


def test_what_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main([str(tmp_path), "alice"]) == 0
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.key*")}
    assert keys.main([str(tmp_path), "bob"]) == 0
    assert keys.main([str(tmp_path), "carol", "alice"]) == 2
    assert f"alice has a key already; delete {tmp_path}/clients/alice.key" in capsys.readouterr().err
    assert all(file.read_bytes() == content for file, content in before.items())
    assert not (tmp_path / "for-carol").exists()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "", "a\0b", "a.b", "x" * 5000])
def test_a_name_that_could_be_a_path_is_none(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main([str(tmp_path / "keys"), name]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "is no name of a client" in told and len(told) < 300
    assert list(tmp_path.iterdir()) == []
