"""What `python -m scripts.check` makes of its measurements."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from core.types import ActionSpec, EnvSpec, FieldSpec
from envproc.prober import Speed
from envproc.unity.options import UnityOptions
from scripts import advice
from scripts.advice import Facts, commands, learners, memory, pace
from scripts.options import Options, parse

CONTINUOUS, DISCRETE = ActionSpec((-1.0,), (1.0,)), ActionSpec(branches=(3,))
MIXED = ActionSpec((-1.0,), (1.0,), (3,))
VECTOR = FieldSpec((4,))


def facts(
    action: ActionSpec = CONTINUOUS,
    obs: FieldSpec = VECTOR,
    num_agents: int = 12,
    speeds: tuple[float, ...] = (1000.0, 2000.0),
    length: float = 20.0,
    **options: Any,
) -> Facts:
    """`speeds`: agent steps a second of 1, 2, ... processes together."""
    measured = {
        num: [Speed(100, int(speed), float(num), 100 * 2**20)] * num for num, speed in enumerate(speeds, start=1)
    }
    return Facts(Options(None, **options), EnvSpec({"seen": obs}, action, num_agents), length, measured)


@pytest.mark.parametrize(
    ("action", "first"),
    [(CONTINUOUS, ["sac", "ddpg"]), (DISCRETE, ["dqn", "ppo"]), (MIXED, ["ppo", "vtrace"])],
)
def test_the_algorithms_fit_the_actions(action: ActionSpec, first: list[str]) -> None:
    assert facts(action).algorithms[:2] == first
    words = [shlex.split(command) for command in commands(facts(action))]
    assert [each[3] for each in words] == first


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (facts(), []),
        (facts(MIXED, num_agents=1), ["--copies", "8"]),
        (facts(obs=FieldSpec((3, 40, 40), "uint8")), ["--frame-stack", "4", "--algo.conv", "nature"]),
        (facts(obs=FieldSpec((1, 20, 20), "uint8"), frame_stack=6), ["--frame-stack", "6", "--algo.conv", "simple"]),
        (facts(length=1000.0), ["--eval-episodes", "24", "--eval-every", "20000"]),
        (
            facts(env="unity:a b", behavior="B", env_params=("a=1", "b=2"), unity=UnityOptions(args="--x 1")),
            ["--env", "unity:a b", "--behavior", "B", "--env-params", "a=1", "b=2", "--unity.args=--x 1"],
        ),
    ],
)  # fmt: skip
def test_the_command_says_what_this_environment_needs_and_can_be_read(given: Facts, words: list[str]) -> None:
    command = shlex.split(commands(given)[0])
    assert command[4:] == words
    parse(command[3:])


def test_images_that_no_encoder_takes_cannot_be_learned_from() -> None:
    (finding,) = learners(facts(obs=FieldSpec((1, 4, 4), "uint8")))
    assert finding.level == "BAD"


def test_processes_that_do_not_help_are_told() -> None:
    assert pace(facts(speeds=(1000.0, 2000.0))) == []
    (finding,) = pace(facts(speeds=(1000.0, 1100.0)))
    assert finding.what == "2 processes do 1.10 times what one does" and "--workers 1" in finding.advice


def test_a_slow_environment_is_told_with_the_time_that_a_run_takes() -> None:
    (finding,) = pace(facts(speeds=(100.0, 200.0), length=0.0))
    assert "200 agent steps/s are few: the 60,000 of a run (--steps) take 5 min" in finding.what
    assert "--copies" in finding.advice


def test_long_evaluations_are_told() -> None:
    (finding,) = pace(facts(length=1000.0))
    assert "96 episodes takes about 96 s" in finding.what and "--eval-episodes 24" in finding.advice


def test_a_ring_that_does_not_fit_gets_a_capacity_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    small = facts(obs=FieldSpec((1000,)))
    monkeypatch.setattr(advice, "free_memory", lambda: 20 * 2**30)
    assert [each.level for each in memory(small)] == ["ok"]
    monkeypatch.setattr(advice, "free_memory", lambda: 2**30)
    (finding,) = memory(small)
    assert (
        finding.level == "note" and "a run takes 2.0 GiB and 1.0 GiB are free: --algo.capacity 50000" in finding.advice
    )
    assert commands(small)[0].endswith(" --algo.capacity 50000")


def test_cameras_of_unity_scenes_may_be_kept_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "free_memory", lambda: 2**40)
    camera = FieldSpec((3, 24, 24))
    (finding,) = memory(facts(obs=camera, env="unity:x"))
    assert "--unity.image-bytes" in finding.advice
    (finding,) = memory(facts(obs=camera, env="x.py:X"))
    assert finding.level == "ok"
