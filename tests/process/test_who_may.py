"""Who can talk to a real run, read its files, and find it listening: this user, and whoever has its token or a key."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import ctl
from scripts.command_line import UsageError
from scripts.running import ask
from scripts.train import main
from tests.process.callers import make_keys
from tests.process.runs import Run, Start, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
NOBODY = 65534
LISTENS = {"tcp": "0A", "unix": "00010000"}
"""how the kernel's tables say so: the state of a connection, the flags of a socket"""


def told(run: Run) -> dict[str, Any]:
    """What its control.json says."""
    found: dict[str, Any] = json.loads((run.directory / "control.json").read_text())
    return found


def goes_on(run: Run) -> None:
    """Neither who came in nor who was refused has stopped it."""
    seen = len(run.records("progress"))
    wait_until(lambda: len(run.records("progress")) > seen + 1, "progress")
    assert run.records("command") == [] and run.process.poll() is None


def listening(run: Run) -> set[str]:
    """Where any process of the run does: paths, and addresses with ports."""
    own = set()
    for pid in run.processes():
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                own.add(os.readlink(file).removeprefix("socket:[").rstrip("]"))
            except OSError:  # closed meanwhile
                continue
    found = set()
    for row in Path("/proc/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *path = row.split()
        if inode in own and flags == LISTENS["unix"]:
            found.add(path[0] if path else "a socket without a name")
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = row.split()[:10]
            if inode in own and state == LISTENS["tcp"]:
                address, port = local.split(":")
                host = socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address
                found.add(f"tcp://{host}:{int(port, 16)}")
    return found


@pytest.fixture(scope="module")
def open_run(start_once: Start) -> Callable[..., Run]:
    """Starts one that goes on, and waits until it trains."""

    def open_run(name: str, *options: object) -> Run:
        run = start_once("--workers", 1, "--steps", 10**9, "--eval-every", 10**8, *options, run=name)
        run.wait_for_record(lambda record: record.get("updates", 0) > 0)
        return run

    return open_run


@pytest.mark.thorough
def test_without_control_a_run_listens_in_its_own_directory_only(open_run: Callable[..., Run]) -> None:
    run = open_run("alone")
    (path,) = listening(run)
    assert f"ipc://{path}" == told(run)["address"] and path.startswith(f"{run.temporary}/")
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    assert "token" not in told(run)


@pytest.mark.thorough
def test_with_control_on_loopback_a_token_is_what_it_takes(
    open_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run("by-token", "--control", "tcp://localhost:*")
    known = told(run)
    door, token = known["door"], known["token"]
    assert door.startswith("tcp://127.0.0.1:") and len(token) >= 32
    assert listening(run) == {known["address"].removeprefix("ipc://"), door}
    assert (run.directory / "control.json").stat().st_mode & 0o777 == 0o600
    assert token not in (run.directory / "config.json").read_text() + (run.directory / "metrics.jsonl").read_text()
    words = ["status", "--control", door, "--run", "by-token", "--runs-dir", str(run.directory.parent)]
    assert ctl.main(words) == 0
    assert json.loads(capsys.readouterr().out)["agent_steps"] > 0

    for wrong in ("", token[:-1], token + "x", token.swapcase()):
        with pytest.raises(UsageError, match="does not know this token"):
            ask(door, ["stop"], wrong)
    run.wait_for_record(lambda record: record.get("messages_refused", 0) >= 4)
    goes_on(run)
    assert ctl.main(["stop", *words[1:]]) == 0
    assert run.wait() == 0 and run.left() == []


@pytest.mark.thorough
def test_at_another_address_a_key_on_the_list_is_what_it_takes(
    open_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = make_keys(tmp_path / "keys", "alice")
    mallory = make_keys(tmp_path / "other", "mallory") / "for-mallory"
    shutil.copy(keys / "server.key", mallory)
    run = open_run("by-key", "--control", "tcp://127.0.0.2:*", "--control-keys", keys)
    known = told(run)
    door = known["door"]
    assert known["token"] == "" and door.startswith("tcp://127.0.0.2:")
    assert listening(run) == {known["address"].removeprefix("ipc://"), door}
    capsys.readouterr()
    assert ctl.main(["status", "--control", door, "--control-keys", str(keys / "for-alice")]) == 0
    assert json.loads(capsys.readouterr().out)["agent_steps"] > 0

    for refused in (
        ["--control-keys", str(mallory)],
        ["--control-keys", str(tmp_path)],
        ["--run", "by-key", "--runs-dir", str(run.directory.parent)],
    ):
        assert ctl.main(["stop", "--control", door, *refused]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    run.wait_for_record(lambda record: record.get("messages_refused", 0) >= 1)
    goes_on(run)


def test_a_port_that_another_has_is_refused_and_leaves_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        assert main(["ddpg", "--control", address, "--runs-dir", str(tmp_path / "runs")]) == 2
    assert f"--control {address} cannot be opened: Address already in use" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def for_all_to_see() -> Iterator[Path]:
    """A directory that any user can enter, unlike those of tests."""
    home = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


def refused_to_others(*tries: Callable[[], object]) -> list[bool]:
    """Whether each is forbidden to another user of this machine."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(theirs, bytes(map(_is_forbidden, tries)))
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as answers:
        found = [bool(each) for each in answers.read()]
    os.waitpid(pid, 0)
    assert len(found) == len(tries)
    return found


def _is_forbidden(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False


@pytest.mark.thorough
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_can_neither_connect_nor_read_the_token_or_a_secret_key(for_all_to_see: Path) -> None:
    keys = make_keys(for_all_to_see / "keys", "alice")
    for each in keys.rglob("*"):  # as somebody may do who shares the public ones
        if each.is_dir():
            each.chmod(0o755)
    keys.chmod(0o755)
    options = ("--workers", 1, "--steps", 10**9, "--control", "tcp://localhost:*")
    run = Run(for_all_to_see, *options)
    try:
        run.temporary.chmod(0o755)
        run.wait_for("progress")
        address = told(run)["address"].removeprefix("ipc://")
        secrets = [run.directory / "control.json", keys / "server.key_secret", keys / "for-alice" / "client.key_secret"]
        assert refused_to_others(*(file.read_bytes for file in secrets)) == [True] * 3

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(address)

        connect()  # as this user one can
        assert refused_to_others(connect) == [True]
        assert refused_to_others((run.directory / "config.json").read_bytes, run.temporary.stat) == [False] * 2
        goes_on(run)
    finally:
        run.end()
