"""The processes of a run, as the system sees them (Linux)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """At one moment."""

    name: str
    """learner, evaluator, worker-0, or 'player of worker-0'; what helps one of them has its name"""
    cpu_s: float
    """that it has used so far, all its threads together"""
    pss: int
    """bytes: its own, and its part of what it shares with others"""


class Family(NamedTuple):
    """A run's main process and all below it."""

    time: float
    by_pid: dict[int, Process]
    shared: dict[str, int]
    """bytes of each block of shared memory that are really there"""
    machine_s: float
    """that all processors of the machine have been busy so far"""

    def cores(self, before: Family) -> dict[str, float]:
        """What each has used of a core since then, by name; of one that came meanwhile, since it came."""
        used: dict[str, float] = {}
        for pid, each in self.by_pid.items():
            old = before.by_pid.get(pid)
            spent = each.cpu_s - (old.cpu_s if old else 0.0)
            used[each.name] = used.get(each.name, 0.0) + spent / (self.time - before.time)
        return used

    def others(self, before: Family) -> float:
        """Cores that somebody else has kept busy since then."""
        busy = (self.machine_s - before.machine_s) / (self.time - before.time)
        return max(busy - sum(self.cores(before).values()), 0.0)

    def memory(self) -> dict[str, int]:
        """PSS by name."""
        sizes: dict[str, int] = {}
        for each in self.by_pid.values():
            sizes[each.name] = sizes.get(each.name, 0) + each.pss
        return sizes


def family(main: int) -> Family:
    """Of the process `main`. Whoever ends meanwhile is not in it."""
    parents = _parents()
    names, order = {main: "learner"}, [main]
    for pid in order:
        for child in sorted(each for each, parent in parents.items() if parent == pid):
            helper = "learner" if pid == main else f"player of {names[pid].removeprefix('player of ')}"
            names[child] = _name(child) or helper
            order.append(child)
    by_pid = {}
    for pid in order:
        try:
            by_pid[pid] = Process(names[pid], _cpu_s(pid), _pss(pid))
        except (OSError, ValueError, IndexError):  # it is gone, or going
            continue
    return Family(time.monotonic(), by_pid, _shared(main), _machine_s())


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat behind the name, from the third."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
            except (OSError, IndexError):
                continue
    return parents


def _name(pid: int) -> str:
    """Of a process that sharl has started, what its configuration says; of another one nothing."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return ""
    return str(json.loads(words[3])["name"]) if words[1:2] == ["-m"] and words[2].startswith("envproc.") else ""


def _cpu_s(pid: int) -> float:
    user, system = _stat(pid)[11:13]
    return (int(user) + int(system)) * _TICK_S


def _machine_s() -> float:
    user, nice, system, _, _, interrupts, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) * _TICK_S


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _shared(pid: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(file)
            if target.startswith("/memfd:sharl-"):
                name = target.removeprefix("/memfd:sharl-").partition(" ")[0]
                sizes[name] = sizes.get(name, 0) + 512 * file.stat().st_blocks
        except OSError:  # closed meanwhile
            continue
    return sizes
