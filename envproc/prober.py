"""The prober: a process that tries an environment out, or measures its speed, and writes down what it finds.

`python -m envproc.prober CONFIG` is the process. It appends one JSON object a line to a file: what it is about to do
(so that a hang or a crash has a place), what it found. Environments under test may print, raise, hang and die.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

from core.types import EnvSpec, in_one_line
from envproc import EnvConfig, make_env
from envproc.contract import Broken
from envproc.env import Env, Place
from envproc.long_walk import episodes, inputs, look, rewards
from envproc.probes import Finding, contract, offers, partial_reset, seeding
from envproc.process import die_with_parent, parent_is_gone
from envproc.walk import RandomActions, call

LEAVING = "leaving"
"""what is done last; an environment may end the process before, with any exit code"""
_NAP_S = 0.002
_RELAUNCHED = 1
"""index of a player that is started beside the first"""


@dataclass(frozen=True)
class ProberConfig:
    """All that a prober is told; it travels as JSON."""

    name: str
    env: EnvConfig
    out: str
    """the file to append to"""
    index: int = 0
    """of its process among those that have an environment"""
    seconds: float = 0.0
    """measure the speed for so long, when the file `go` is there; 0: try the environment out"""
    go: str = ""


class Began(msgspec.Struct, tag=True, frozen=True):
    """What is being done from here on."""

    what: str


class Offers(msgspec.Struct, tag=True, frozen=True):
    """The environment is up and offers this."""

    spec: EnvSpec


class Refused(msgspec.Struct, tag=True, frozen=True):
    """There is no such environment."""

    why: str


class Walked(msgspec.Struct, tag=True, frozen=True):
    """What the long walk says about evaluations."""

    mean_length: float
    """decisions of an episode; 0: none ended"""


class Speed(msgspec.Struct, tag=True, frozen=True):
    """How fast one process was."""

    steps: int
    agent_steps: int
    seconds: float
    memory: int
    """bytes, of this process and all that it started"""


Line = Began | Offers | Refused | Finding | Walked | Speed
Tell = Callable[[Line], None]


def examine(config: EnvConfig, tell: Tell) -> None:
    """All probes, one after the other, until one finds something that leaves nothing to go on with."""
    tell(Began("starting it"))
    with contextlib.ExitStack() as opened:
        try:
            env = _open(config, Place(seed=1))
            opened.callback(_close, env)
            _probe(env, config, tell)
        except Broken as broken:
            tell(Finding("BAD", str(broken)))
            tell(Finding("note", "what comes after that was not looked at"))
        except ValueError as error:
            tell(Refused(in_one_line(error)))
            return
        tell(Began("closing it"))


def _probe(env: Env, config: EnvConfig, tell: Tell) -> None:
    def each(what: str, probe: Callable[[], list[Finding]]) -> None:
        tell(Began(what))
        for finding in probe():
            tell(finding)

    each("reading its spec", lambda: offers(env))
    tell(Offers(env.spec))
    each("its first steps", lambda: contract(env))
    if config.name == "unity:editor":
        tell(Finding("note", "seeds: the Editor takes one when Play is pressed, so two walks cannot be compared"))
    else:
        each("the same seed twice", lambda: seeding(_fresh(env, config)))
    each("the reset of a single agent", lambda: partial_reset(env))
    tell(Began("a long walk"))
    seen = look(env)
    tell(Walked(float(seen.lengths.mean()) if len(seen.lengths) else 0.0))
    for finding in [*episodes(seen), *inputs(seen), *rewards(seen)]:
        tell(finding)


def _fresh(env: Env, config: EnvConfig) -> Callable[[int], AbstractContextManager[Env]]:
    """A Unity player takes its seed at launch alone; all else takes it in reset()."""
    if not config.name.startswith("unity:"):
        return lambda seed: contextlib.nullcontext(env)

    @contextlib.contextmanager
    def launch(seed: int) -> Iterator[Env]:
        player = _open(config, Place(_RELAUNCHED, seed))
        try:
            yield player
        finally:
            _close(player)

    return launch


def _open(config: EnvConfig, where: Place) -> Env:
    """Raises ValueError for what the user can mend on the command line, else Broken."""
    refusals: list[ValueError] = []

    def make() -> Env | None:
        try:
            return make_env(config, where)
        except ValueError as error:
            refusals.append(error)
            return None

    env = call("to make it", make)
    if env is None:
        raise refusals[0]
    return env


def _close(env: Env) -> None:
    call("close()", env.close)


def measure(config: ProberConfig, tell: Tell) -> None:
    """Steps a second with random actions: the environment and what draws them, no policy."""
    tell(Began("starting it"))
    env = _open(config.env, Place(config.index, config.index + 1))
    try:
        step, choose = call("reset()", env.reset, config.index + 1), RandomActions(env.spec)
        tell(Offers(env.spec))  # all start at once
        while not os.path.exists(config.go):
            if parent_is_gone():
                return
            time.sleep(_NAP_S)
        tell(Began("measuring its speed"))
        steps = agent_steps = 0
        start = time.perf_counter()
        while time.perf_counter() - start < config.seconds:
            agent_steps += len(step.agent)
            step = call("step()", env.step, choose(step))
            steps += 1
        tell(Speed(steps, agent_steps, time.perf_counter() - start, _memory()))
    finally:
        _close(env)


def _memory() -> int:
    """Bytes that this process and its descendants hold; 0 where nobody says."""
    held: dict[int, tuple[int, int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            # the name in parentheses may hold anything
            stat = (directory / "stat").read_text().rpartition(")")[2].split()
            pages = int((directory / "statm").read_text().split()[1])
        except (OSError, IndexError):  # it is gone
            continue
        held[int(directory.name)] = (int(stat[1]), pages * os.sysconf("SC_PAGE_SIZE"))
    mine, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, (parent, _) in held.items() if parent in mine} - mine
        mine |= more
        grown = bool(more)
    return sum(held[pid][1] for pid in mine if pid in held)


def main() -> NoReturn:
    die_with_parent()
    config = msgspec.json.decode(sys.argv[1], type=ProberConfig)
    encoder = msgspec.json.Encoder()
    code = 0
    with open(config.out, "ab", buffering=0) as file:

        def tell(line: Line) -> None:
            file.write(encoder.encode(line) + b"\n")

        try:
            if config.seconds:
                measure(config, tell)
            else:
                examine(config.env, tell)
        except Broken as broken:
            tell(Finding("BAD", str(broken)))
        except BaseException:  # noqa: BLE001 - in the log, whose end is shown
            traceback.print_exc()
            code = 1
        if not code:
            tell(Began(LEAVING))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread of theirs would keep the process alive


if __name__ == "__main__":
    main()
