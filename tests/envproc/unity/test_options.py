"""What a user may ask of a player, and what is said to one who asks for something else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from envproc.unity.options import UnityOptions


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", []),
        ("  ", []),
        ("-screen-width 640", ["-screen-width", "640"]),
        ("--say 'two words' \"and 'three'\" x\\ y", ["--say", "two words", "and 'three'", "x y"]),
        ("--level=$HOME *", ["--level=$HOME", "*"]),
    ],
)
def test_args_are_split_as_a_shell_does_without_being_one(args: str, expected: list[str]) -> None:
    assert UnityOptions(args=args).arguments() == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time_scale": 0.5}, "--unity.time-scale 0.5; it must be from 1 to 100"),
        ({"time_scale": 101}, "--unity.time-scale 101"),
        ({"time_scale": float("nan")}, "--unity.time-scale nan"),
        ({"base_port": -1}, "--unity.base-port -1"),
        ({"base_port": 65_000}, "--unity.base-port 65000"),
        ({"max_agents": -1}, "--unity.max-agents -1"),
        ({"launch_s": 0}, "--unity.launch-s 0; it must be seconds above 0"),
        ({"launch_s": float("inf")}, "--unity.launch-s inf"),
        ({"launch_s": float("nan")}, "--unity.launch-s nan"),
        ({"answer_s": -3}, "--unity.answer-s -3"),
        ({"args": "--say 'two"}, '--unity.args "--say \'two": No closing quotation'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_at_construction(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as raised:
        UnityOptions(**options)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"time_scale": 1},
        {"time_scale": 100},
        {"base_port": 64_999},
        {"launch_s": 0.1, "answer_s": 9e5},
        {"max_agents": 1},
    ],
)
def test_the_ends_of_what_can_be_are_accepted(options: dict[str, Any]) -> None:
    UnityOptions(**options)


def test_options_are_read_without_ml_agents() -> None:
    code = "import sys, envproc.unity.options; print([each for each in sys.modules if each.startswith('mlagents')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
