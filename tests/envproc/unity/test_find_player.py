"""Finding the program that a path means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from envproc.unity.launch import find_player

ROOT = Path(__file__).parents[3]


def build(folder: Path, *names: str) -> None:
    """Players without anything in them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o755)


@pytest.mark.parametrize(
    ("files", "asked", "found"),
    [
        (["Ball.x86_64"], "Ball", "Ball.x86_64"),
        (["Ball.x86_64"], "Ball.x86_64", "Ball.x86_64"),
        (["Ball.x86"], "Ball", "Ball.x86"),
        (["Ball.exe"], "Ball", "Ball.exe"),
        (["Ball"], "Ball", "Ball"),
        (["Ball.sh"], "Ball.sh", "Ball.sh"),
        (["Ball.x86_64", "Ball.x86", "Ball"], "Ball", "Ball.x86_64"),
        (["Ball.x86_64", "Ball.x86_64.x86_64"], "Ball.x86_64", "Ball.x86_64.x86_64"),
        (["Ball.v2.x86_64", "Ball.x86_64"], "Ball.v2", "Ball.v2.x86_64"),
        (["Ball.x86_64", "Ball_Data/some.dll"], "Ball", "Ball.x86_64"),
        (["Ball.x86_64", "Ball/Other.x86_64"], "Ball", "Ball.x86_64"),  # beside a folder of its name
        (["Ball/Other.x86_64", "Ball/UnityPlayer.so", "Ball/Other_Data/x.x86_64"], "Ball", "Ball/Other.x86_64"),
        (["Ball/Other.x86_64", "Ball/old.x86_64/more"], "Ball/", "Ball/Other.x86_64"),
        (["my.x86_64.builds/Ball.x86_64"], "my.x86_64.builds/Ball", "my.x86_64.builds/Ball.x86_64"),
        (["my.x86_64.builds/Ball.x86_64"], "my.x86_64.builds", "my.x86_64.builds/Ball.x86_64"),
        (["my.apps/Ball.exe.d/Ball"], "my.apps/Ball.exe.d/Ball", "my.apps/Ball.exe.d/Ball"),
        (["[ab]*?/B[a]ll*.x86_64", "a/Ball.x86_64"], "[ab]*?/B[a]ll*", "[ab]*?/B[a]ll*.x86_64"),
        (["[ab]*?/B[a]ll*.x86_64"], "[ab]*?", "[ab]*?/B[a]ll*.x86_64"),
        (["two  words/The Ball .x86_64"], "two  words/The Ball ", "two  words/The Ball .x86_64"),
        (["größe/Bäll.x86_64"], "größe/Bäll", "größe/Bäll.x86_64"),
        (["Ball.x86_64"], ".", "Ball.x86_64"),
        (["Ball.x86_64"], "", "Ball.x86_64"),
        (["a/Ball.x86_64", "b/c"], "b/../a/Ball", "a/Ball.x86_64"),
        (["Ball.x86_64"], "~/Ball", "Ball.x86_64"),
    ],
)
def test_a_player_is_found(
    files: list[str], asked: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, *files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_player(asked) == tmp_path.resolve() / found
    if not asked.startswith("~"):
        assert find_player(str(tmp_path / asked)) == tmp_path.resolve() / found


@pytest.mark.parametrize(
    ("files", "asked", "said"),
    [
        (["Ball.x86_64"], "Bal", "no Unity player at Bal; did you mean Ball?"),
        (["builds/Ball.x86_64"], "builds/Boll", "no Unity player at builds/Boll; did you mean builds/Ball?"),
        (["builds-1.0/Ball.x86_64"], "builds-1.1", "no Unity player at builds-1.1; did you mean builds-1.0?"),
        (["Ball.x86_64"], "Walker", "no Unity player at Walker; give the path of the built player"),
        ([], "no/such/folder/Ball", "no Unity player at no/such/folder/Ball; give the path of the built player"),
        (["Ball_Data/x.dll"], "Ball_Data", "no Unity player at Ball_Data"),
        (["Ball.x86_64"], "~nobody-of-this-name/Ball", "no Unity player at ~nobody-of-this-name/Ball"),
        (["Ball.x86_64"], "/", "no Unity player at /; give"),
        (["b/Two.x86_64", "b/One.x86"], "b", "b holds One.x86, Two.x86_64; name the one to run"),
    ],
)
def test_a_player_that_is_not_there_is_told_in_one_line(
    files: list[str], asked: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, *files)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as raised:
        find_player(asked)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_a_player_that_may_not_be_run_says_what_allows_it(tmp_path: Path) -> None:
    build(tmp_path, "Ball.x86_64")
    (tmp_path / "Ball.x86_64").chmod(0o644)
    with pytest.raises(ValueError, match=re.escape(f"chmod +x {tmp_path / 'Ball.x86_64'}")):
        find_player(str(tmp_path / "Ball"))


# --- processes
