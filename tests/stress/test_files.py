"""What is on disk survives a kill in the middle of saving, and a disk that is full."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from core.acting import PolicySpec
from core.checkpoint import SavedPolicy, load_policy, load_state, newest, prune, save
from core.net import NetSpec, num_parameters
from core.types import ActionSpec, EnvSpec, FieldSpec
from tests.process.runs import ROOT
from tests.stress.figures import tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KILLS = 60
DAMAGES = 500
FULL = """
mount -t tmpfs -o size=3m tmpfs {mount}
{python} -m scripts.train ddpg --steps 12000 --eval-every 100000 --checkpoint-every 1000 --algo.capacity 50000 \\
    --run full --runs-dir {mount}
code=$?
cp -r {mount}/full {out}
exit $code
"""


NET = NetSpec({"x": (64,)}, (256, 256), 2)
POLICY = SavedPolicy({}, EnvSpec({"x": FieldSpec((64,))}, ActionSpec((-1.0,), (1.0,)), 1), PolicySpec(NET, "tanh"))


def save_for_ever(run: Path, number: int, told: int) -> NoReturn:
    """Checkpoints full of their number, the next one first; each is told when it is finished."""
    while True:
        number += 1
        parameters = np.full(num_parameters(NET), number, np.float32)
        save(run, POLICY, parameters, {"number": number, "more": torch.full((100_000,), float(number))})
        os.write(told, number.to_bytes(8, "little"))
        prune(run, 2)


def test_the_newest_finished_checkpoint_loads_however_often_saving_is_killed(tmp_path: Path) -> None:
    dice, number, begun = random.Random(1), 0, time.monotonic()
    torch.set_num_threads(1)  # a fork of threads would not have them
    for _ in range(KILLS):
        read, write = os.pipe()
        child = os.fork()  # and no new interpreter: sixty imports of torch would be most of this
        if child == 0:
            save_for_ever(tmp_path, number, write)
        os.close(write)
        told = [os.read(read, 8)]  # it is at work
        time.sleep(dice.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while one := os.read(read, 8):
            told.append(one)
        os.close(read)
        finished = int.from_bytes(told[-1], "little")

        directory, rejected = newest(tmp_path)
        _, parameters = load_policy(tmp_path)
        state = load_state(directory)
        assert not rejected
        number = state["number"]
        assert number in (finished, finished + 1), "the last one may be finished without having been told"
        assert (parameters == number).all() and (state["more"] == number).all()
    tell("D1 killed while saving", begun, faults=KILLS, violations=0, figure=number, unit="checkpoints finished")


def damage(directory: Path, dice: random.Random) -> str:
    """Do something to one file, or to all of them; says what."""
    file = dice.choice(sorted(directory.iterdir()))
    whole = file.read_bytes()
    match dice.randrange(5):
        case 0 | 1:
            at = dice.randrange(len(whole))
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :])
            return f"a bit of {file.name}"
        case 2:
            file.write_bytes(whole[: dice.randrange(len(whole))])
            return f"the end of {file.name}"
        case 3:
            file.unlink()
            return file.name
    for each in directory.iterdir():
        each.unlink()
    return "everything"


def test_a_damaged_checkpoint_is_rejected_by_its_name_and_the_one_before_is_taken(tmp_path: Path) -> None:
    dice, begun, rejections = random.Random(1), time.monotonic(), 0
    run, kept = tmp_path / "run", tmp_path / "kept"
    for number in (1, 2):
        save(run, POLICY, np.full(num_parameters(NET), number, np.float32), {"number": number})
    older, last = sorted((run / "checkpoints").iterdir())
    shutil.copytree(last, kept)
    for _ in range(DAMAGES):
        what = damage(last, dice)
        directory, rejected = newest(run)
        if rejected:
            assert directory == older and len(rejected) == 1 and rejected[0].startswith(str(last)), what
            rejections += 1
        parameters, number = load_policy(run)[1], load_state(directory)["number"]
        assert number == (1 if rejected else 2) and (parameters == number).all(), f"{what} makes no difference"
        shutil.rmtree(last)
        shutil.copytree(kept, last)
    assert rejections > 0.9 * DAMAGES, "but for the sizes in the manifest, all of it is needed"
    tell(
        "D4 checkpoints damaged",
        begun,
        faults=DAMAGES,
        violations=0,
        figure=rejections,
        unit="rejected, the rest whole",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_on_a_full_disk_the_run_goes_on_says_so_and_the_checkpoints_that_fitted_stay(tmp_path: Path) -> None:
    mount, out, begun = tmp_path / "small", tmp_path / "out", time.monotonic()
    mount.mkdir()
    script = FULL.format(mount=mount, out=out, python=shlex.quote(sys.executable))
    told = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert told.returncode == 4, told.stderr
    assert "the last checkpoint could not be written" in told.stderr and "MiB left" in told.stderr
    assert "no checkpoint could be written" in told.stdout and "Traceback" not in told.stdout + told.stderr
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    failed = [record for record in records if record["kind"] == "checkpoint" and "failed" in record]
    assert failed and max(record.get("agent_steps", 0) for record in records) >= 11_000
    directory, rejected = newest(out, holding="words.npz")
    assert not rejected and load_state(directory)["learner"]
    stay = len(list((out / "checkpoints").iterdir()))
    tell("C6 disk full", begun, faults=len(failed), violations=0, figure=stay, unit="checkpoints that stay")
