"""Shared blocks: sized before use, seen by real processes, gone with their users."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from core import shm
from core.shm import Layout, Segment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd and /proc are Linux's")

LAYOUT: Layout = {"words": (np.int64, (4,)), "table": (np.float32, (3, 5)), "last": (np.uint8, (1,))}

CODE = """
import sys
import numpy as np
from core.shm import Segment
layout = {"words": (np.int64, (4,)), "table": (np.float32, (3, 5)), "last": (np.uint8, (1,))}
"""


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another interpreter; it is gone at the end."""
    command = [sys.executable, "-c", CODE + code, *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=10)


@pytest.fixture
def no_memfd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As on macOS and Windows. The folder in which the block's file lies."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def who_maps(name: str) -> list[int]:
    """Processes that have a block of this name open or mapped."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if any(name in use for use in uses(folder))]


def uses(process: Path) -> Iterator[str]:
    """What a process maps and has open, as far as it is still there."""
    with suppress(OSError):
        yield (process / "maps").read_text()
        for file in (process / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                yield os.readlink(file)


def files_named(name: str) -> list[Path]:
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    return [path for folder in folders if folder.is_dir() for path in folder.glob(f"*{name}*")]


def test_a_limit_on_files_is_named_where_it_refuses_a_block() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(MemoryError, match=r"the test needs 2 MiB in one piece: .*; raise `ulimit -f`"):
            Segment.create("test", {"all": (np.uint8, (2**21,))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not who_maps("sharl-test")


def test_a_new_block_is_all_zeros_and_its_arrays_do_not_overlap() -> None:
    with Segment.create("test", LAYOUT) as segment:
        for number, (name, (dtype, shape)) in enumerate(LAYOUT.items()):
            array = segment[name]
            assert array.dtype == dtype and array.shape == shape and not array.any()
            array[:] = number + 1
        for number, name in enumerate(LAYOUT):
            assert (segment[name] == number + 1).all()
            assert segment[name].ctypes.data % 128 == 0


def test_a_block_larger_than_memory_is_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm, "free_memory", lambda: 3 * 2**29)
    before = _open_files()
    with pytest.raises(MemoryError, match=r"the test needs 2\.00 GiB and 1\.50 GiB are free"):
        Segment.create("test", {"a": (np.uint8, (2**31,))})
    assert _open_files() <= before, "what other tests left open may be closed meanwhile"


def _open_files() -> set[str]:
    return {os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}


def test_free_memory_is_what_the_tightest_cgroup_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = shm.free_memory()
    assert 0 < whole < 2**50
    for name, limit in (("leaf", "max"), ("parent", str(3 * 2**20))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.max").write_text(limit + "\n")
        (tmp_path / name / "memory.current").write_text(f"{2**20}\n")
        (tmp_path / name / "memory.stat").write_text(f"anon {2**20}\ninactive_file 0\n")
    monkeypatch.setattr(shm, "cgroups", lambda: [tmp_path / "leaf", tmp_path / "parent", tmp_path / "root"])
    assert shm.free_memory() == 2 * 2**20


def test_file_cache_that_the_kernel_would_give_back_counts_as_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text(f"{8 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{7 * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2**20}\nfile {6 * 2**20}\ninactive_file {5 * 2**20}\n")
    monkeypatch.setattr(shm, "cgroups", lambda: [tmp_path])
    assert shm.free_memory() == 6 * 2**20


def test_every_page_is_there_from_the_start_and_nobody_can_take_one_away() -> None:
    with Segment.create("test", {"a": (np.uint8, (2**22,))}) as segment:
        assert os.stat(segment.address).st_blocks * 512 >= 2**22
        for size in (2**21, 2**23):
            with pytest.raises(PermissionError):
                os.truncate(segment.address, size)


def test_another_process_sees_what_is_written_here_and_the_other_way_round() -> None:
    code = """
segment = Segment.attach(sys.argv[1], layout, writable=True)
assert segment["table"][2, 4] == 7.5
segment["words"][3] = 42
"""
    with Segment.create("test", LAYOUT) as segment:
        segment["table"][2, 4] = 7.5
        with process(code, segment.address) as other:
            assert other.wait(timeout=20) == 0
        assert segment["words"][3] == 42


def test_who_attaches_cannot_write_unless_it_asked_to() -> None:
    with Segment.create("test", LAYOUT) as segment:
        reader = Segment.attach(segment.address, LAYOUT)
        for name in LAYOUT:
            with pytest.raises(ValueError, match="read-only"):
                reader[name][...] = 1
            with pytest.raises(ValueError, match="WRITEABLE"):
                reader[name].setflags(write=True)
        reader.close()


@pytest.mark.parametrize(
    "other",
    [
        {"words": (np.int64, (5,))},
        {**LAYOUT, "table": (np.int32, (3, 5))},
        {**LAYOUT, "table": (np.float32, (5, 3))},
        {name: LAYOUT[name] for name in reversed(list(LAYOUT))},
        {("label" if name == "table" else name): each for name, each in LAYOUT.items()},
    ],
)
def test_a_block_of_another_layout_is_refused(other: Layout) -> None:
    with Segment.create("test", LAYOUT) as segment:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(ValueError, match="another layout"):
            Segment.attach(segment.address, other)
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_is_no_block_at_all_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\0" * 4096):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match="another layout"):
            Segment.attach(str(tmp_path / "file"), LAYOUT)


def test_no_file_system_shows_the_block() -> None:
    name = f"visible-{uuid.uuid4().hex}"
    with Segment.create(name, LAYOUT) as segment:
        assert who_maps(name) == [os.getpid()]
        assert files_named(name) == []
        segment["words"][0] = 1
    del segment
    assert who_maps(name) == []


def test_a_block_outlives_its_creators_close_for_those_who_have_it_open() -> None:
    segment = Segment.create("test", LAYOUT)
    reader, kept = Segment.attach(segment.address, LAYOUT), segment["words"]
    address = segment.address
    segment.close()
    segment.close()  # twice is once
    with pytest.raises(OSError):
        Segment.attach(address, LAYOUT)
    kept[1] = 5
    assert reader["words"][1] == 5
    reader.close()


def test_nothing_is_left_of_a_block_whose_creator_was_killed() -> None:
    code = """
segment = Segment.create(sys.argv[1], layout)
segment["words"][2] = 9
print(segment.address, flush=True)
sys.stdin.read()
"""
    name = f"orphan-{uuid.uuid4().hex}"
    with process(code, name) as creator:
        assert creator.stdout is not None
        address = creator.stdout.readline().strip()
        reader = Segment.attach(address, LAYOUT)
        os.kill(creator.pid, signal.SIGKILL)
        creator.wait(timeout=10)
    assert reader["words"][2] == 9  # it is nobody else's to take away
    with pytest.raises(OSError):
        Segment.attach(address, LAYOUT)
    assert who_maps(name) == [os.getpid()]
    reader.close()
    del reader
    assert who_maps(name) == [] and files_named(name) == []


def test_without_memfd_a_private_file_serves_and_goes_with_its_creators_close(no_memfd: Path) -> None:
    code = """
segment = Segment.attach(sys.argv[1], layout, writable=True)
segment["last"][0] = segment["words"][1]
segment.close()
"""
    with Segment.create("test", LAYOUT) as segment:
        assert not segment["table"].any()
        segment["words"][1] = 11
        (file,) = no_memfd.iterdir()
        assert file.stat().st_mode & 0o077 == 0
        with process(code, segment.address) as other:
            assert other.wait(timeout=20) == 0
        Segment.attach(segment.address, LAYOUT).close()
        assert segment["last"][0] == 11 and file.exists()
    assert list(no_memfd.iterdir()) == []
