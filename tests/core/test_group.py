"""Several learners are one with a larger batch; and whoever is missing is named."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch

from core.group import Group
from tests.algos.ranks import BOTH, Gradients, learn
from tests.process.runs import PATIENCE_S, ROOT, free_port


def start_ranks(module: str, *arguments: list[str], size: int = 2) -> list[subprocess.Popen[str]]:
    """`python -m module` with torchrun's variables; each has its own list of arguments."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    shared |= {"LOCAL_WORLD_SIZE": str(size), "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_RUN_ID": "a test"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments[rank]],
            cwd=ROOT,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Gradients]:
    home = tmp_path_factory.mktemp("ranks")
    files = [home / f"{rank}.pt" for rank in range(2)]
    for process in start_ranks("tests.algos.ranks", *([str(file)] for file in files)):
        _, error = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, error
    return [torch.load(file) for file in files]


@pytest.mark.parametrize("algorithm", ["ddpg", "sac", "dqn", "ppo"])
def test_two_ranks_go_down_the_gradient_of_one_learner_with_both_batches(
    algorithm: str, of_ranks: list[Gradients]
) -> None:
    one, (first, second) = learn(BOTH)[algorithm], of_ranks
    for number, expected in enumerate(one):
        for place, gradient in enumerate(expected):
            here, there = first[algorithm][number][place], second[algorithm][number][place]
            assert torch.equal(here, there), "the same bits"
            assert gradient.abs().max() > 1e-3
            torch.testing.assert_close(here, gradient, rtol=1e-6, atol=1e-6)


class _JustAfter:
    """A collective that is over a moment after a wait for it was."""

    def __init__(self) -> None:
        self._looks = 0

    def wait(self, timeout: timedelta = timedelta(0), /) -> bool:
        self._looks += 1
        if self._looks == 1:
            raise RuntimeError("Operation timed out!")
        return True

    def is_completed(self) -> bool:
        return self._looks > 0


def test_who_comes_just_after_one_has_looked_is_not_lost() -> None:
    group = object.__new__(Group)
    group._count, group._longest_s, group.interrupted = 0, 60.0, lambda: False
    group._wait(_JustAfter(), torch.device("cpu"))


@pytest.mark.thorough
def test_the_rank_that_differs_is_named_by_all() -> None:
    for process in start_ranks("tests.core.apart", ["00"], ["00"], ["11"], size=3):
        _, error = process.communicate(timeout=PATIENCE_S)
        assert "Differs: after 500 updates rank 2 has not the parameters" in error
