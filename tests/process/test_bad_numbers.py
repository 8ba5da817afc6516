"""Real workers whose environments give bad numbers: none is in any row of the ring, and nobody else notices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.control import Failed
from core.ring import FOREVER, Word
from core.types import Rows
from tests.process.bad_toys import EVERY, HEALTHY, spoilt
from tests.process.counting import AGENTS
from tests.process.lane import Lane
from tests.process.runs import wait_until

TOYS = "tests/process/bad_toys.py"
GAMMA = float(np.float32(0.99))
STEPS = 100 * EVERY


def test_a_bad_number_costs_its_agent_the_episode_and_is_in_no_row(tmp_path: Path) -> None:
    """A model of the toy knows every row there must be."""
    expected: list[list[tuple[float, ...]]] = [[] for _ in range(AGENTS)]
    episode, count, is_blind = [0] * AGENTS, [0] * AGENTS, [False] * AGENTS
    refused = 0
    for number in range(1, STEPS + 1):
        sick, in_end, _, _ = spoilt(number)
        for agent in range(AGENTS):
            if is_blind[agent]:  # the environment ends its episode in this step
                episode[agent], count[agent], is_blind[agent] = episode[agent] + 1, 0, False
                is_blind[agent] = sick == agent and not in_end
                refused += is_blind[agent]
                continue
            seen, before = count[agent], episode[agent]
            count[agent] += 1
            discount, is_over = GAMMA, count[agent] == 7 + agent % 5
            if is_over:
                discount = GAMMA if agent % 2 else 0.0
                episode[agent], count[agent] = episode[agent] + 1, 0
            is_bad = sick == agent and (is_over or not in_end)
            refused += is_bad
            is_blind[agent] = is_bad and not in_end
            if not is_bad or (is_over and not in_end):
                expected[agent].append((agent, before, seen, agent, before, seen + 1, discount))
    rows, count_refused = rows_of(f"{TOYS}:Sick", tmp_path)
    assert count_refused == refused > 60
    for agent in range(AGENTS):
        own = rows[rows["agent"] == agent]
        found = [(*row["obs"]["vector"], *row["next_obs"]["vector"], row["discount"]) for row in own]
        assert found == expected[agent], agent
    assert_finite(rows)


def test_the_other_agents_rows_are_bit_for_bit_those_of_a_world_without_bad_numbers(tmp_path: Path) -> None:
    sick, _ = rows_of(f"{TOYS}:Sick", tmp_path / "sick")
    sound, _ = rows_of("tests/process/toys.py:Counting", tmp_path / "sound")
    for agent in HEALTHY:
        one, other = (rows[rows["agent"] == agent] for rows in (sick, sound))
        assert len(one) == STEPS
        for name in ("obs", "action", "reward", "discount", "next_obs"):
            assert one[name].tobytes() == other[name].tobytes(), (agent, name)


def test_what_is_huge_and_finite_is_written_down(tmp_path: Path) -> None:
    rows, refused = rows_of(f"{TOYS}:Huge", tmp_path, steps=50)
    assert refused == 0
    assert_finite(rows)
    assert (rows["next_obs"]["vector"][:, 2] == np.float32(1e38)).any() and (rows["reward"] == -1e38).any()


FAILURES = {  # toy -> what the worker says
    "SickAndWelded": "agent 2 inf as vector[0], and cannot end that episode alone: they are welded together",
    "Rotten": "agent 3 nan as vector[2]; more than 10 agent steps were refused within 1,000",
    "OtherShape": "the environment's step 152: obs['vector'] has shape (8, 2); make it (8, 3), or change spec",
    "OtherDtype": "the environment's step 152: reward has dtype float64; make it float32, or change spec",
    "OneTooMany": "the environment's step 152 has agents [8]; spec.num_agents says 0 to 7",
    "OtherField": "the environment's step 152: obs has the fields ['vektor']; spec says ['vector']",
}


@pytest.mark.parametrize("toy", FAILURES)
def test_a_worker_whose_environment_cannot_be_helped_fails_and_says_why(toy: str, tmp_path: Path) -> None:
    with Lane(f"{TOYS}:{toy}", tmp_path) as lane:
        lane.ring.allow(FOREVER)
        failures: list[Failed] = []

        def has_failed() -> bool:
            failures.extend(report for report in lane.server.receive() if isinstance(report, Failed))
            return bool(failures)

        wait_until(has_failed, "the worker to fail")
        assert_finite(lane.rows())
    assert FAILURES[toy] in failures[0].error, failures[0]
    assert failures[0].traceback == "", "where it was noticed explains nothing"


def rows_of(toy: str, logs: Path, steps: int = STEPS) -> tuple[Rows, int]:
    """All rows of the lane after so many steps, and how many agent steps were refused."""
    logs.mkdir(exist_ok=True)
    with Lane(toy, logs) as lane:
        lane.ring.allow(steps * AGENTS)
        wait_until(lambda: bool(lane.hear()) and lane.steps == steps, "the steps")
        return lane.rows().copy(), int(lane.ring.load(Word.REFUSED)[0])


def assert_finite(rows: Rows) -> None:
    """All numbers of all rows."""
    assert len(rows)
    for side in ("obs", "next_obs"):
        assert np.isfinite(rows[side]["vector"]).all()
    for name in ("action", "reward", "discount"):
        assert np.isfinite(rows[name]).all()
