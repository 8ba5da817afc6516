"""One agent's fall or reset never touches another: a real worker process, seen through the rows that it wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from core.control import Reset
from core.ring import FOREVER
from core.types import Rows
from tests.process.counting import AGENTS
from tests.process.lane import Lane
from tests.process.runs import TOYS, wait_until

GAMMA = float(np.float32(0.99))


def test_a_reset_costs_each_agent_it_names_one_row_and_the_others_nothing(tmp_path: Path) -> None:
    """Counting's observations are (agent, episode, step), so a model of it knows every row there must be."""
    random = np.random.default_rng(5)
    expected: list[list[tuple[float, ...]]] = [[] for _ in range(AGENTS)]
    episode, count = [0] * AGENTS, [0] * AGENTS
    requests = 0
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        for _ in range(300):
            unlucky = []
            if random.random() < 0.3:
                unlucky = random.choice(AGENTS, random.integers(1, AGENTS), replace=False).tolist()
                requests += 1
                lane.deliver(Reset(requests, unlucky))
            lane.step()
            if unlucky:
                wait_until(lambda: lane.answers[-1].request == requests, "the answer")  # noqa: B023
                assert lane.answers[-1].done
            for agent in range(AGENTS):
                if agent in unlucky:
                    episode[agent], count[agent] = episode[agent] + 1, 0
                    continue
                seen, count[agent] = count[agent], count[agent] + 1
                discount = GAMMA
                before = episode[agent]
                if count[agent] == 7 + agent % 5:
                    discount = GAMMA if agent % 2 else 0.0
                    episode[agent], count[agent] = episode[agent] + 1, 0
                expected[agent].append((agent, before, seen, agent, before, seen + 1, discount))
        rows = lane.rows()
        assert (rows["index"] == np.arange(len(rows))).all()
        for agent in range(AGENTS):
            own = rows[rows["agent"] == agent]
            found = [(*row["obs"]["vector"], *row["next_obs"]["vector"], row["discount"]) for row in own]
            assert found == expected[agent]
    assert requests > 50


def test_rows_form_chains_broken_only_where_that_agent_fell_or_was_reset(tmp_path: Path) -> None:
    """3DBall at full speed, with resets of random agents in between."""
    random = np.random.default_rng(6)
    with Lane("3dball", tmp_path) as lane:
        agents = lane.spec.num_agents
        lane.ring.allow(FOREVER)
        asked = [random.choice(agents, random.integers(1, 4), replace=False).tolist() for _ in range(150)]
        for request, chosen in enumerate(asked):
            lane.send(Reset(request, chosen))
            # so that two requests never meet in one step, where they would be one reset
            wait_until(lambda: len(lane.answers) > request, "the answer")  # noqa: B023 - called before it changes
            begun = lane.steps
            wait_until(lambda: lane.steps >= begun + 2, "two steps")  # noqa: B023
        lane.ring.allow(0)
        wait_until(lambda: not _grows(lane), "the worker to pause")
        rows = lane.rows().copy()
        ends = sum(map(len, asked)) + int((rows["discount"] == 0).sum())
        wait_until(lambda: len(lane.episodes) >= ends, "all episodes to be reported")

        assert [answer.request for answer in lane.answers] == list(range(len(asked))), "an answer each, in order"
        assert all(answer.done for answer in lane.answers)
        cut = [each for each in lane.episodes if each.end == "reset"]
        assert Counter(each.agent for each in cut) == Counter(agent for chosen in asked for agent in chosen)
        for agent in range(agents):
            own = rows[rows["agent"] == agent]
            fell = own["discount"] == 0
            # a reset in an episode's first decision leaves no row at all of that episode
            visible = sum(each.length > 1 for each in cut if each.agent == agent)
            assert _breaks(own, fell) == visible, f"agent {agent}"
            assert (own["discount"][~fell] == GAMMA).all()
            lengths = sum(each.length - (each.end == "reset") for each in lane.episodes if each.agent == agent)
            falls = sum(each.end == "terminated" for each in lane.episodes if each.agent == agent)
            assert falls == int(fell.sum()) > 5, "every fall is a row with discount 0, and is reported"
            assert 0 <= len(own) - lengths <= 1000, "a row for each decision, but for the one that a reset cuts"


def test_a_request_with_an_unknown_agent_is_refused_and_resets_nobody(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.step(3)
        for wrong in ([0, AGENTS], [-1], [2**40, 1], [2**64 - 1]):
            answer = lane.ask(Reset(1, wrong))
            assert not answer.done and f"{max(wrong, key=abs)}" in answer.what and f"0 to {AGENTS - 1}" in answer.what
        lane.step(3)
        assert (lane.rows()["obs"]["vector"][:, 2] == np.repeat(np.arange(6), AGENTS)).all()
        assert lane.episodes == []


def test_an_agent_named_twice_is_reset_once(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.step(3)
        lane.deliver(Reset(1, [2, 2]))
        lane.deliver(Reset(2, [2]))
        lane.step(20)
        wait_until(lambda: len(lane.episodes) > 0, "episodes")
        assert [each.agent for each in lane.episodes if each.end == "reset"] == [2]
        assert [(each.request, each.done) for each in lane.answers if each.request] == [(1, True), (2, True)]


def test_a_reset_is_answered_when_the_step_that_did_it_is_over(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Counting", tmp_path) as lane:
        lane.step(3)
        lane.deliver(Reset(1, [2]))
        assert [each.request for each in lane.answers] == [0], "it may not step yet"
        lane.step()
        wait_until(lambda: lane.answers[-1].request == 1, "the answer")
        assert lane.answers[-1].done and "[2]" in lane.answers[-1].what


def test_a_reset_that_the_environment_does_not_carry_out_is_answered_as_failed(tmp_path: Path) -> None:
    with Lane(f"{TOYS}:Deaf", tmp_path) as lane:
        lane.step(3)
        lane.deliver(Reset(1, [2]))
        lane.step()
        wait_until(lambda: lane.answers[-1].request == 1, "the answer")
        assert not lane.answers[-1].done and "did not end" in lane.answers[-1].what
        refused = lane.ask(Reset(2, [3]))
        assert not refused.done and refused.what == "agent 3 is out of reach"
        lane.step(3)


def _breaks(rows: Rows, fell: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """How often an agent's row does not go on where its last one, which was no end, had led."""
    goes_on = (rows["next_obs"]["vector"][:-1] == rows["obs"]["vector"][1:]).all(axis=1)
    assert not goes_on[fell[:-1]].any(), "after a fall there is a fresh episode"
    return int((~goes_on & ~fell[:-1]).sum())


def _grows(lane: Lane) -> bool:
    before, turns = lane.steps, lane.turns
    wait_until(lambda: lane.turns > turns + 2, "two turns")
    return lane.steps > before
