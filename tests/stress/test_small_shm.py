"""A /dev/shm of 64 MiB, as containers have it: a ring that is larger has nothing to do with it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.ring import ring_size
from core.types import Recording
from envproc.ball3d import Ball3D
from tests.process.runs import ROOT
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SMALL_MIB, CAPACITY, WORKERS = 64, 1_000_000, 2
SCRIPT = f'mount -t tmpfs -o size={SMALL_MIB}m none /dev/shm && "$@"; code=$?; ls -A /dev/shm; exit $code'
CPPRB = f"""
import numpy as np, cpprb
buffer = cpprb.MPReplayBuffer({CAPACITY}, {{"row": {{"shape": 32}}}}, backend="SharedMemory")
for _ in range({CAPACITY // 1000}):
    buffer.add(row=np.ones((1000, 32), np.float32))
"""


def there(*command: object) -> subprocess.CompletedProcess[str]:
    """What becomes of a command whose /dev/shm is small; on stdout, last, what it leaves there."""
    wrapped = ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", *map(str, command)]
    return subprocess.run(wrapped, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(autouse=True)
def mounting_is_permitted() -> None:
    try:
        refused = there("true").returncode
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if refused:
        pytest.skip("mounting is not permitted here")


def test_a_run_whose_ring_is_larger_than_dev_shm_runs_and_leaves_nothing_there(tmp_path: Path) -> None:
    begun = time.monotonic()
    ring_mib = ring_size(Ball3D(areas=1).spec, Recording(), WORKERS, CAPACITY) // 2**20
    assert ring_mib > SMALL_MIB
    options = ("--workers", WORKERS, "--steps", 3000, "--eval-every", 10**6, "--algo.capacity", CAPACITY)
    ended = there(sys.executable, "-m", "scripts.train", "ddpg", "--runs-dir", tmp_path, "--run", "run", *options)
    assert ended.returncode == 0, ended.stderr
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("run: "), f"{last} is in /dev/shm"
    tell("C1 small /dev/shm", begun, faults=1, violations=0, figure=ring_mib, unit="MiB of ring", dev_shm_mib=SMALL_MIB)


@pytest.mark.skipif(importlib.util.find_spec("cpprb") is None, reason="cpprb is not installed")
def test_another_library_there() -> None:
    begun = time.monotonic()
    ended = there(sys.executable, "-c", CPPRB)
    died = ended.returncode == 128 + signal.SIGBUS
    left = len(ended.stdout.splitlines())
    tell(
        "C1 small /dev/shm, cpprb with SharedMemory", begun, faults=1, violations=int(died), figure=ended.returncode,
        unit="exit code", files_left=left, says=(ended.stderr.splitlines() or [""])[-1][:100],
    )  # fmt: skip
