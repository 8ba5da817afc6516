"""Several learners: what it takes to sum numbers over all of them, to meet, and to update together.

By itself it starts two of them on this machine. Over several machines torchrun starts them, as it does a job's:
torchrun --nnodes 2 --rdzv-endpoint HOST:29400 --rdzv-backend c10d -m -- scripts.profile group

"alone": the same update beside the others, before they learn together. All on one core each.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from core.group import Group
from core.learner import fit_process
from core.meetings import Said
from scripts.command_line import UsageError
from scripts.profile.cases import CASES, ours
from scripts.profile.report import ROOT, Report, option_parser, positive, read_options

SIZES = (100, 10_000, 100_000, 1_000_000)
"""numbers"""
UPDATES = [replace(CASES[1], capacity=10_000), replace(CASES[2], capacity=10_000, config={})]
"""DDPG with 256 and with 64 units, normalising"""
_PATIENCE_S = 60.0


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = option_parser("group", __doc__)
    parser.add_argument("--ranks", type=positive, default=2, help="learners that it starts by itself")
    options = read_options(parser, arguments)
    if "RANK" not in os.environ:
        return _start(options.ranks, arguments)
    torch.set_num_threads(1)
    fit_process()
    calls = 20 if options.quick else 300
    group = Group()
    with ours(UPDATES[0]) as wide, ours(UPDATES[1]) as narrow:
        alone = [_median_us(each.update, calls) for each in (wide, narrow)]
        group.connect(torch.device("cpu"), _PATIENCE_S, _PATIENCE_S)
        meeting = torch.zeros(len(Said), dtype=torch.float64)
        works: dict[str, Callable[[], object]] = {"a meeting": lambda: group.gather(meeting)}
        for size in SIZES:
            works[f"a sum of {size:,} numbers"] = partial(group.sum, torch.zeros(size))
        shared = {name: _median_us(work, calls) for name, work in works.items()}
        together = [_median_us(each.update, calls) for each in (wide, narrow)]
    if not group.leads:
        return 0
    report = Report("group", options.json)
    table = report.table(f"Among {group.size} learners, {group.local_size} on a machine", 44, "us")
    for name, figure in shared.items():
        table.row(name, figure)
    table = report.table("An update", 44, "alone us", "together us", "times")
    for case, one, all_ in zip(UPDATES, alone, together, strict=True):
        table.row(str(case), one, all_, all_ / one)
    report.write()
    return 0


def _median_us(work: Callable[[], object], calls: int) -> float:
    """Of so many calls: all ranks make equally many."""
    taken = []
    for _ in range(calls + calls // 10):
        before = time.perf_counter_ns()
        work()
        taken.append(time.perf_counter_ns() - before)
    return median(taken[calls // 10 :]) / 1000


def _start(ranks: int, arguments: list[str]) -> int:
    """As torchrun would, on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    shared |= {"LOCAL_WORLD_SIZE": str(ranks), "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_RUN_ID": "profile"}
    command = [sys.executable, "-m", "scripts.profile", "group", *arguments]
    started = []
    for rank in range(ranks):
        environment = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    try:
        codes = [each.wait(10 * _PATIENCE_S) for each in started]
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"the learners have not ended within {error.timeout:.0f} s") from error
    finally:
        for each in started:
            each.kill()
    return max(codes)
