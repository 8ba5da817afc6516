"""Segment: named arrays in one block of memory that several processes map.

On Linux the block is a memfd: it has no name in any file system, the kernel frees it when the last process that
maps it is gone however it went, and every page is there from the start (a block that does not fit is refused with
numbers instead of killing somebody in the middle of a run). Another process opens it by its address,
/proc/<creator>/fd/<n>. Where there is no memfd (macOS, Windows) it is a private file, unlinked by its creator.

The block opens with a header that whoever attaches checks against the layout it expects.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Layout = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]
"""name -> dtype and shape, in the order in which they lie in the block"""

MAGIC = b"sharl\x00\x00\x01"
_HEADER = struct.Struct("<8s32sQ")  # magic with layout version, digest of the layout, size in bytes
_ALIGNMENT = 128  # two cache lines: the words of one array never share a line with another's, prefetcher included


class Segment:
    """One shared block, mapped into this process. Whoever created it closes it last."""

    def __init__(self, file: int, layout: Layout, address: str, *, writable: bool, owner: bool = False) -> None:
        self.address = address
        """what another process on this machine attaches by"""
        self._file, self._layout = file, layout
        self._owner = owner
        places, size = _places(layout)
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(file, size, access=access)
        self._arrays = {
            name: np.ndarray(shape, dtype, buffer=self._map, offset=place)
            for (name, (dtype, shape)), place in zip(layout.items(), places, strict=True)
        }

    @classmethod
    def create(cls, name: str, layout: Layout, first: int | None = None) -> Segment:
        """A new block, all zeros.

        With `first`, only so many entries of each array's first axis are there; `populate` brings others. Raises
        MemoryError, with both sizes, if it is larger than the memory that is free, or than a file may be.
        """
        stretches = [(0, size_of(layout))] if first is None else _stretches(layout, 0, first)
        _refuse_too_large(name, stretches)
        file, address = _new_block(name, size_of(layout), stretches)
        os.pwrite(file, _HEADER.pack(MAGIC, _digest(layout), size_of(layout)), 0)
        return cls(file, layout, address, writable=True, owner=True)

    def populate(self, name: str, entry: int) -> None:
        """Give this entry of each array's first axis its memory, all zeros. Raises MemoryError as create does."""
        stretches = _stretches(self._layout, entry, entry + 1)
        _refuse_too_large(name, stretches)
        _give_memory(self._file, stretches)

    @classmethod
    def attach(cls, address: str, layout: Layout, *, writable: bool = False) -> Segment:
        """The block at `address`, read-only unless asked otherwise.

        Raises ValueError if its header tells of another layout, OSError if its creator is gone.
        """
        file = os.open(address, os.O_CLOEXEC | (os.O_RDWR if writable else os.O_RDONLY))
        try:
            found = os.pread(file, _HEADER.size, 0)
            expected = _HEADER.pack(MAGIC, _digest(layout), size_of(layout))
            if found != expected or os.fstat(file).st_size < size_of(layout):
                raise ValueError(
                    f"the shared block at {address} has another layout than this process expects: "
                    "environment, number of agents or version of sharl differ between the two"
                )
            return cls(file, layout, address, writable=writable)
        except BaseException:
            os.close(file)
            raise

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def close(self) -> None:
        """Let go of the block. Arrays that were handed out keep their memory mapped until they go too."""
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        self._arrays.clear()
        if self._owner and not hasattr(os, "memfd_create"):
            os.unlink(self.address)

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def size_of(layout: Layout) -> int:
    """Bytes that a block takes."""
    return _places(layout)[1]


def free_memory() -> int:
    """Bytes that this process may still take: the machine's, or what is left of its cgroup's limit."""
    if not sys.platform.startswith("linux"):
        return sys.maxsize
    with open("/proc/meminfo") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    for group in cgroups():
        try:
            limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except OSError:  # the root group has no limit, and not every group counts memory
            continue
        if limit != "max":  # file cache that nobody has used of late is given back before anybody is killed
            free = min(free, int(limit) - used + int(counts.get("inactive_file", 0)))
    return free


def cgroups() -> list[Path]:
    """This process's cgroup (version 2) and all above it: each may set a limit."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
    except OSError:  # no cgroups in this kernel
        return []
    root = Path("/sys/fs/cgroup")
    leaf = root / own.lstrip("/")
    return [leaf, *(parent for parent in leaf.parents if parent.is_relative_to(root))]


def readable(size: int) -> str:
    """So many bytes as people read them."""
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


def _refuse_too_large(name: str, stretches: list[tuple[int, int]]) -> None:
    size, free = sum(count for _, count in stretches), free_memory()
    if size > free:
        raise MemoryError(
            f"the {name} needs {size / 2**30:.2f} GiB and {free / 2**30:.2f} GiB are free; "
            "a smaller --algo.capacity leaves more"
        )


def _new_block(name: str, size: int, stretches: list[tuple[int, int]]) -> tuple[int, str]:
    """File descriptor and address of `size` zero bytes, of which these stretches are really there."""
    if hasattr(os, "memfd_create"):
        import fcntl

        file = os.memfd_create(f"sharl-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.truncate(file, size)
        except OSError as error:  # a limit on the size of files is one on memory's, too
            os.close(file)
            told = f"the {name} needs {readable(size)} in one piece: {error}; raise `ulimit -f`"
            raise MemoryError(told) from error
        _give_memory(file, stretches)
        # nobody can shrink the block under a reader, which would kill it with SIGBUS
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return file, f"/proc/{os.getpid()}/fd/{file}"
    file, path = tempfile.mkstemp(prefix=f"sharl-{name}-")
    os.truncate(file, size)
    return file, path


def _give_memory(file: int, stretches: list[tuple[int, int]]) -> None:
    if hasattr(os, "memfd_create"):  # else the system gives it when it is written to
        for start, count in stretches:
            os.posix_fallocate(file, start, count)


def _stretches(layout: Layout, first: int, last: int) -> list[tuple[int, int]]:
    """Start and number of the bytes that hold the entries from `first` to `last` of each array's first axis."""
    starts, _ = _places(layout)
    found = [(0, _HEADER.size)]
    for start, (dtype, shape) in zip(starts, layout.values(), strict=True):
        entry = np.dtype(dtype).itemsize * math.prod(shape[1:])
        found.append((start + first * entry, (last - first) * entry))
    return [(start, count) for start, count in found if count]


def _places(layout: Layout) -> tuple[list[int], int]:
    """Offset of each array, and the size of the whole."""
    places = []
    end = _HEADER.size
    for dtype, shape in layout.values():
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        places.append(start)
        end = start + np.dtype(dtype).itemsize * math.prod(shape)
    return places, end


def _digest(layout: Layout) -> bytes:
    text = repr([(name, np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in layout.items()])
    return hashlib.sha256(text.encode()).digest()
