"""Before a run takes anything from the machine: what there is too little of is refused, or noted, in one line."""

from __future__ import annotations

import functools
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envproc.unity.options import UnityOptions
from scripts import preflight
from scripts.options import Options, num_cores
from scripts.preflight import check_disk, check_machine, check_memory
from scripts.train import main
from tests.process.callers import make_keys
from tests.process.runs import ROOT, free_port

MIB = 2**20
PLAYER = "unity:unity/players/3DBall"
WHAT_THE_CHILD_DOES = """
import resource, torch
from scripts.options import Options
from scripts.preflight import check_machine
check_machine(Options(None, workers=1))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def child(
    *command: object, limit: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
        env=os.environ | environment,
    )


def training(home: Path, *options: object) -> list[object]:
    return [sys.executable, "-m", "scripts.train", "ddpg", "--runs-dir", home / "runs", *options]


def assert_refused(ended: subprocess.CompletedProcess[str], *says: object) -> None:
    assert ended.returncode == 2, ended.stderr
    *notes, error = ended.stderr.splitlines()
    assert error.startswith("error: ") and all(each.startswith("note: ") for each in notes), ended.stderr
    for each in says:
        assert str(each) in error


def limit(which: int, soft: int, hard: int) -> Callable[[], None]:
    return functools.partial(resource.setrlimit, which, (soft, hard))


@pytest.fixture
def on_a_disk(tmp_path: Path) -> Callable[[str], list[object]]:
    """What to put in front of a command to give it a small disk of its own at tmp_path."""

    def wrapper(options: str) -> list[object]:
        mount = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
        wrapped: list[object] = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, tmp_path]
        try:
            child(*wrapped, "true").check_returncode()
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting is not permitted here")
        return wrapped

    return wrapper


def test_where_all_is_well_it_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(None, env=PLAYER, unity=UnityOptions(base_port=free_port()), workers=1, runs_dir=tmp_path)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    check_machine(options)
    check_memory(options, MIB)
    check_disk(options, MIB, MIB)
    assert capsys.readouterr().err == "" and resource.getrlimit(resource.RLIMIT_NOFILE) == files


def test_a_ring_larger_than_memory_is_refused_within_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.process_time()  # on an idle machine, the time
    assert main(["ddpg", "--algo.capacity", str(10**11)]) == 2
    assert time.process_time() - begun < 1
    told = capsys.readouterr().err
    assert told.startswith("error: the ring needs ") and "GiB are free" in told


def test_memory_that_the_ring_leaves_no_worker_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(None, workers=3)
    monkeypatch.setattr(preflight, "free_memory", lambda: 179 * MIB)
    with pytest.raises(ValueError, match=r"take 100 MiB of the 179 MiB that are free.* 20 MiB .*--algo\.capacity"):
        check_memory(options, 100 * MIB)
    assert capsys.readouterr().err == ""


def test_memory_that_the_ring_leaves_the_smallest_workers_only_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "free_memory", lambda: 300 * MIB)
    check_memory(Options(None, workers=3), 100 * MIB)
    told = capsys.readouterr().err
    assert told.startswith("note: ") and told.count("\n") == 1
    assert "leaves 50 MiB for each of 4 processes" in told and "--algo.capacity" in told
    check_memory(Options(None, workers=3, mode="single"), 100 * MIB)
    assert capsys.readouterr().err == "", "there are no processes"


@pytest.mark.thorough
def test_open_files_that_do_not_do_are_refused(tmp_path: Path) -> None:
    ended = child(*training(tmp_path, "--workers", 2), limit=limit(resource.RLIMIT_NOFILE, 45, 45))
    assert_refused(ended, "47 open files", "may have 45", "--workers")
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_the_limit_on_open_files_is_raised_where_that_helps_and_nothing_said() -> None:
    allowed = limit(resource.RLIMIT_NOFILE, 30, 200)
    ended = child(sys.executable, "-c", WHAT_THE_CHILD_DOES, limit=allowed, OMP_NUM_THREADS="1")
    assert (ended.stdout, ended.stderr) == ("200\n", "")


@pytest.mark.thorough
def test_more_processes_than_the_user_may_have_are_refused(tmp_path: Path) -> None:
    command = training(tmp_path, "--workers", 200)
    if os.getuid() == 0:  # who has no limit
        ordinary = ["unshare", "--user", "--map-user=1000"]
        try:
            child(*ordinary, "true").check_returncode()
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("being somebody else is not permitted here")
        command = [*ordinary, *command]
    most = preflight._threads_of(os.getuid()) + 300  # what starts the program must not fail
    ended = child(*command, limit=limit(resource.RLIMIT_NPROC, most, most))
    assert_refused(ended, f"200 workers need {3 * 201 + num_cores()} threads", f"of {most} leaves", "--workers")


def test_more_processes_than_the_cgroup_may_have_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pids.max").write_text("20\n")
    (tmp_path / "pids.current").write_text("10\n")
    monkeypatch.setattr(preflight, "cgroups", lambda: [tmp_path, tmp_path / "root"])
    with pytest.raises(
        ValueError, match=r"4 workers need \d+ threads, and pids.max in .* of 20 leaves 10; .*--workers"
    ):
        check_machine(Options(None, workers=4))
    (tmp_path / "pids.max").write_text("max\n")
    check_machine(Options(None, workers=1))


@pytest.mark.thorough
def test_a_disk_without_room_for_one_checkpoint_is_refused(
    tmp_path: Path, on_a_disk: Callable[[str], list[object]]
) -> None:
    ended = child(*on_a_disk("size=512k"), *training(tmp_path))
    assert_refused(ended, f"--runs-dir {tmp_path / 'runs'}, where 0 MiB are left", "take 1 MiB", "give another")


@pytest.mark.thorough
def test_a_disk_without_room_for_the_ring_is_noted_and_the_run_goes_on(
    tmp_path: Path, on_a_disk: Callable[[str], list[object]]
) -> None:
    options = ["--workers", 1, "--eval-every", 100, "--eval-episodes", 24, "--until-return", -1000]
    ended = child(*on_a_disk("size=16m"), *training(tmp_path, *options))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith("note: ") and ended.stderr.count("\n") == 1
    for each in ("where 16 MiB are left", "3 checkpoints", "--keep-checkpoints", "--algo.capacity"):
        assert each in ended.stderr


@pytest.mark.thorough
def test_a_place_that_may_not_be_written_to_is_refused(
    tmp_path: Path, on_a_disk: Callable[[str], list[object]]
) -> None:
    ended = child(*on_a_disk("ro"), *training(tmp_path))
    assert_refused(ended, f"--runs-dir {tmp_path / 'runs'}: {tmp_path} may not be written to")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_has_is_refused_with_its_owner(host: str) -> None:
    port = 20_000 + os.getpid() % 10_000  # below what the system hands out: its neighbours are nobody's
    with socket.create_server((host, port)):
        for first in (port, port - 1, port - 5):  # a worker's, one that may be added, the evaluator's
            options = Options(None, env=PLAYER, unity=UnityOptions(base_port=first), workers=1)
            says = f"port {port} of {first} to {first + 5} cannot be had: process {os.getpid()} \\(.*--unity.base-port"
            with pytest.raises(ValueError, match=says):
                check_machine(options)


def test_ports_beyond_the_last_one_are_refused() -> None:
    options = Options(None, env=PLAYER, unity=UnityOptions(base_port=64_999), workers=300)
    with pytest.raises(ValueError, match=r"--unity\.base-port 64999; it must be at most 64935"):
        check_machine(options)


@pytest.mark.parametrize(("device", "most"), [("cpu", num_cores()), ("cuda", 4 * num_cores())])
def test_more_workers_than_the_cores_can_turn_are_noted(
    device: str, most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    check_machine(Options(None, workers=most, device=device))
    assert capsys.readouterr().err == ""
    check_machine(Options(None, workers=most + 1, device=device))
    told = capsys.readouterr().err
    assert told.startswith(f"note: {most + 1} workers on {num_cores()} cores") and told.count("\n") == 1
    check_machine(Options(None, workers=most + 1, device=device, mode="single"))
    assert capsys.readouterr().err == "", "there are no processes"


def test_many_more_workers_than_the_cores_can_even_start_are_refused() -> None:
    most = 64 * num_cores()
    check_machine(Options(None, workers=most))
    with pytest.raises(ValueError, match=rf"{most + 1} workers on {num_cores()} cores.* {most} .*--workers.*--copies"):
        check_machine(Options(None, workers=most + 1))
    check_machine(Options(None, workers=most + 1, mode="single"))


@pytest.mark.thorough
@pytest.mark.skipif(num_cores() == 1, reason="there is nothing to lose")
def test_a_setting_that_holds_all_processes_on_one_core_is_noted() -> None:
    ended = child(sys.executable, "-c", WHAT_THE_CHILD_DOES, OMP_PROC_BIND="true")
    assert ended.stderr.startswith("note: OMP_PROC_BIND may hold this process") and ended.stderr.count("\n") == 1


def test_a_port_that_another_has_is_refused_where_collectors_are_to_join(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys", "bob")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"--listen {address} cannot be had: process {os.getpid()} .* has it"):
            check_machine(Options(None, workers=1, runs_dir=tmp_path, listen=address, listen_keys=keys))
    check_machine(Options(None, workers=1, runs_dir=tmp_path, listen=address, listen_keys=keys))
