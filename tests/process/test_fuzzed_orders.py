"""Whatever words an operator sends: one answer, and the job is as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.process.callers import Operator
from tests.process.runs import Run, Start, wait_until


@pytest.fixture(scope="module")
def paused(start_once: Start) -> Run:
    """A run in which nothing changes by itself."""
    run = start_once("--workers", 1, "--steps", 10**9, "--eval-every", 10**8, "--checkpoint-every", 0, run="paused")
    run.wait_for_record(lambda record: record.get("updates", 0) > 0)
    with Operator(address_of(run)) as operator:
        assert operator.ask("pause").done
        wait_until(lambda: operator.ask("status").what == operator.ask("status").what, "everybody to stand still")
    return run


def address_of(run: Run) -> str:
    address: str = json.loads((run.directory / "control.json").read_text())["address"]
    return address


def may_be_obeyed(words: list[str]) -> bool:
    """What the random words must not be by chance."""
    match words:
        case ["status" | "pause" | "resume" | "snapshot" | "stop" | "policy"]:
            return True
        case ["reset" | "set" | "workers", *rest]:
            return any(any(map(str.isdecimal, each)) for each in rest)
    return False


VERBS = ["status", "pause", "resume", "snapshot", "stop", "policy", "reset", "set", "workers", "help", ""]
KEYS = ["algo.actor_lr", "algo.hidden", "env.gravity", "env.", "unity.time_scale", "workers"]
long = st.characters(codec="utf-8").map(lambda letter: letter * 15_000)  # an order holds 64 KiB
words = (
    st.lists(st.sampled_from(VERBS + KEYS) | st.text(), max_size=5)
    | st.tuples(st.sampled_from(VERBS), st.sampled_from(KEYS), st.text()).map(list)
    | st.tuples(st.sampled_from(VERBS), long).map(list)
    | long.map(lambda word: [word])
)


@settings(max_examples=50, deadline=None)
@given(orders=st.lists(words.filter(lambda words: not may_be_obeyed(words)), max_size=10))
@pytest.mark.thorough
def test_random_words_get_one_answer_each_and_change_nothing(orders: list[list[str]], paused: Run) -> None:
    with Operator(address_of(paused)) as operator:
        before = operator.ask("status")
        config = (paused.directory / "config.json").read_bytes()
        numbers = [operator.order(*words) for words in orders]
        after = operator.ask("status")  # answered after all those that were refused
        assert not any(operator.reply(number).done for number in numbers)
        assert len(operator.replies()) == len(orders) + 2
        assert after.what == before.what
        assert (paused.directory / "config.json").read_bytes() == config
        assert not (paused.directory / "checkpoints").exists() and paused.process.poll() is None
