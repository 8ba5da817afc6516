"""Preflight: has this machine room for the run? Looked at before anything is started or any memory taken.

Raises ValueError, in one line with a number and the way out, where the run cannot work; writes a note to stderr, in one
line, where it can and will suffer. Says nothing where all is well.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.admission import keys_of_clients, place_of, secret_key
from core.shm import cgroups, free_memory, readable
from core.types import require
from scripts.options import Options, num_cores

_LEAST, _USUAL = 20 * 2**20, 80 * 2**20
"""bytes that a worker has to itself: at least, and with most environments that are no players"""
_FILES, _FILES_OF_A_PEER, _FILES_OF_A_TURNED_ONE = 40, 1, 12
"""open ones of the main process: without workers, for each process, for each worker that it turns by itself"""
_THREADS = 3
"""of each worker: its own and two of ZeroMQ"""
_LOGS = 2**20
"""bytes of records of the first minutes"""
_WORKERS_OF_A_CORE = 64
"""at most: it takes a second to start one of so many, and each of them waits that long for its next turn"""
_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")


def check_machine(options: Options[Any]) -> None:
    """Cores, open files, processes, ports, and whether the runs directory may be written to."""
    single = options.mode == "single"
    if not single:
        _check_cores(options)
    if sys.platform.startswith("linux"):
        places = options.workers + options.spare + 1
        _check_files(_FILES + places * (_FILES_OF_A_TURNED_ONE if single else _FILES_OF_A_PEER))
        if not single:
            _check_processes(options)
    if options.env.startswith("unity:") and options.unity.base_port:
        _check_ports(options)
    if options.listen:
        _check_listen(options)
    home = _existing(options.runs_dir)
    if home.is_dir() and not os.access(home, os.W_OK | os.X_OK):
        raise ValueError(f"--runs-dir {options.runs_dir}: {home} may not be written to; give another")
    if not single and options.workers > (most := _WORKERS_OF_A_CORE * num_cores()):
        raise ValueError(
            f"{options.workers} workers on {num_cores()} cores would do little but start; {most} may be, and fewer "
            "--workers, with more --copies, are faster"
        )


def check_memory(options: Options[Any], shared: int) -> None:
    """`shared`: bytes that the run takes for ring and weights. The rest is for the processes."""
    free = free_memory()
    num = 0 if options.mode == "single" else options.workers + 1
    if shared > free or not num:  # too large a ring is refused where it is made
        return
    each = (free - shared) // num
    told = f"ring and weights take {readable(shared)} of the {readable(free)} that are free, which leaves "
    told += f"{readable(each)} for each of {num} processes"
    if each < _LEAST:
        raise ValueError(f"{told}, and the least is {readable(_LEAST)}; a smaller --algo.capacity or fewer --workers")
    if each < _USUAL:
        _note(f"{told}; many environments take more: a smaller --algo.capacity or fewer --workers")


def check_disk(options: Options[Any], ring: int, networks: int) -> None:
    """`ring`: bytes of it that a run of so many steps fills; `networks`: of their parameters."""
    free = shutil.disk_usage(_existing(options.runs_dir)).free
    place = f"--runs-dir {options.runs_dir}, where {readable(free)} are left"
    one = 3 * networks + _LOGS  # Adam keeps two numbers for each
    if one > free:
        raise ValueError(f"{place}: a checkpoint and the logs take {readable(one)}; make room, or give another")
    every, keep = options.checkpoint_every, options.keep_checkpoints
    num = 1 + min(keep, options.steps // every if every else 0)  # an old one goes when the new one is there
    if (wanted := num * (one + ring)) > free:
        _note(
            f"{place}: the ring in {num} checkpoints may take {readable(wanted)}; make room, or give another, "
            "fewer --keep-checkpoints or a smaller --algo.capacity"
        )


def _check_cores(options: Options[Any]) -> None:
    cores, workers = num_cores(), options.workers
    players = workers * options.unity.players_per_worker
    if players > max(workers, cores):
        _note(
            f"{players} players on {cores} cores wait for each other; fewer --unity.players-per-worker may be as fast"
        )
    most = cores if options.device == "cpu" else 4 * cores
    if workers > most:
        shared = "each other and for the learner" if options.device == "cpu" else "each other"
        _note(f"{workers} workers on {cores} cores wait for {shared}; --workers {max(cores - 1, 1)} may be as fast")
    binding = [name for name in _BINDING if name in os.environ]
    if binding and cores < (os.cpu_count() or 1):
        _note(
            f"{' and '.join(binding)} may hold this process, and all that it starts, on {cores} of {os.cpu_count()} "
            "cores; unset it"
        )


def _check_files(need: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if need > hard:
        raise ValueError(f"the run needs {need} open files and may have {hard} (ulimit -Hn); fewer --workers need less")
    if need > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check_processes(options: Options[Any]) -> None:
    need = _THREADS * (options.workers + 1) + num_cores()
    for limit, used, what in _thread_limits():
        if need > limit - used:
            raise ValueError(
                f"{options.workers} workers need {need} threads, and {what} of {limit} leaves {max(limit - used, 0)}; "
                "fewer --workers need less"
            )


def _thread_limits() -> Iterator[tuple[int, int, str]]:
    """Each limit, how much of it is used, and its name."""
    import resource

    own = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if own != resource.RLIM_INFINITY and os.getuid() != 0:  # root has none
        yield own, _threads_of(os.getuid()), "the limit on processes (ulimit -u)"
    for group in cgroups():
        try:
            most, used = (group / "pids.max").read_text().strip(), int((group / "pids.current").read_text())
        except OSError:  # the root group has no limit, and not every group counts them
            continue
        if most != "max":
            yield int(most), used, f"pids.max in {group}"


def _threads_of(user: int) -> int:
    count = 0
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == user:
                count += os.stat(f"{entry.path}/task").st_nlink - 2  # each thread is a directory in it
        except OSError:  # it is gone
            continue
    return count


def _check_ports(options: Options[Any]) -> None:
    """Each player has one: those of the workers, of those that may be added, of the evaluator."""
    first = options.unity.base_port
    places = 1 if options.in_editor else options.workers + options.spare + 1
    last = first + places * options.unity.players_per_worker - 1
    require("--unity.base-port", first, last < 2**16, f"at most {2**16 - 1 - (last - first)} with so many --workers")
    for port in range(first, last + 1):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            raise ValueError(
                f"port {port} of {first} to {last} cannot be had{_owner(port)}; give another --unity.base-port, "
                "or 0: the system chooses"
            ) from error


def _check_listen(options: Options[Any]) -> None:
    """That the gate, a process of its own, can open there."""
    assert options.listen_keys is not None
    place, host = place_of("--listen", options.listen)
    port = place.rpartition(":")[2]
    require("--listen", options.listen, port not in ("*", "0"), "with a port: others must know it")
    secret_key("--listen-keys", options.listen_keys)
    keys_of_clients("--listen-keys", options.listen_keys)
    try:
        socket.create_server((str(host), int(port))).close()
    except OSError as error:
        raise ValueError(f"--listen {options.listen} cannot be had{_owner(int(port))} ({error.strerror})") from error


def _owner(port: int) -> str:
    """Who has it, as far as this user may know."""
    sockets = set()
    for table in glob.glob("/proc/net/tcp*"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if int(columns[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{columns[9]}]")
    for file in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(file) in sockets:
                process = Path(file).parents[1]
                return f": process {process.name} ({(process / 'comm').read_text().strip()}) has it"
        except OSError:  # it is gone, or somebody else's
            continue
    return ""


def _existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there."""
    return next(each for each in [directory, *directory.absolute().parents] if each.exists())


def _note(what: str) -> None:
    print(f"note: {what}", file=sys.stderr)
