"""Watch: `python -m scripts.watch` shows the newest policy of a running job at play, in the terminal, at real time.

It plays in an environment of its own, with the weights that the job's workers act with. It only reads them, and goes
behind the job where both want the same core: training does not notice it.
"""

from __future__ import annotations

import os
import sys

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    # before the slow imports: numpy counts its threads once
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    end_at_once()

import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from core.acting import Policy, PolicySpec
from core.checkpoint import SavedPolicy
from core.net import num_parameters
from core.types import require
from core.weights import Follower, Published, Weights
from envproc import EnvConfig, make_env
from envproc.env import Env, EnvFailed, HasPictures, Place, Step, refuse_bad_numbers
from scripts.cells import draw, in_cells
from scripts.command_line import UsageError, read_command_line
from scripts.running import ANSWER_S, ask, find_running

_SEED = 2_000_000
"""of the environment; training and its evaluations use others"""
_NICE = 10
"""how far training goes before watching where the cores are too few for both"""
_MOST_SHOWN_PER_S = 16.0
"""an environment with more pictures keeps its speed, and not all of them are shown"""
_LAST = 20
"""episodes whose mean return is shown"""
_NAP_S = 0.05


@dataclass(frozen=True)
class Options:
    """Show the newest policy of a running job at play."""

    run: str = ""
    """name of the run, or its directory; without it, the newest that is going on"""
    episodes: int = 0
    """end after so many of agent 0; 0: when the run ends"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 the run or the episodes have ended, 2 usage, 3 the environment failed."""
    console = Console()
    with ExitStack() as opened:
        try:
            options = read_command_line(Options, arguments, "python -m scripts.watch")
            require("--episodes", options.episodes, options.episodes >= 0, "at least 0")
            run = find_running(options.run, options.runs_dir)[0]
            published = _ask_for_policy(run.address)
            weights = opened.enter_context(_attach(published))
            if hasattr(os, "nice"):
                os.nice(_NICE)  # now: a Unity player inherits it
            env = opened.enter_context(closing(make_stage(published.policy)))
        except (UsageError, ValueError, EnvFailed) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UsageError | ValueError) else 3
        follower = Follower(weights)
        if not follower.fetch():
            _say(console, f"{run.directory.name} has no policy yet; its first update makes one")
        while _goes_on(published) and not follower.version:
            follower.fetch()
            time.sleep(_NAP_S)
        screen = opened.enter_context(_Screen(console, env)) if console.color_system is not None else None
        returns = Returns(env.spec.num_agents)
        episodes = 0
        try:
            for step in play(env, published.policy.policy_spec, follower):
                ended = returns.add(step)
                if screen is not None:
                    screen.show(f"{run.directory.name}  {follower.update:,} updates  {returns}")
                else:
                    for agent, ret in ended:
                        _say(console, f"agent {agent}: return {ret:.2f}, {follower.update:,} updates")
                episodes += any(agent == 0 for agent, _ in ended)
                if episodes >= options.episodes > 0 or not _goes_on(published):
                    break
        except EnvFailed as error:
            opened.close()  # the terminal first
            print(f"error: {error}", file=sys.stderr)
            return 3
    if not _goes_on(published):
        _say(console, f"{run.directory.name} has ended")
    return 0


def _ask_for_policy(address: str) -> Published:
    reply = ask(address, ["policy"])
    if reply is None:
        raise UsageError(f"the run has not answered for {ANSWER_S} s")
    if not reply.done:
        raise UsageError(reply.what)
    return msgspec.json.decode(reply.what, type=Published)


def _attach(published: Published) -> Weights:
    try:
        return Weights.attach(published.address, num_parameters(published.policy.policy_spec.net))
    except OSError as error:
        raise UsageError(f"the run's weights cannot be read: {error}") from error


def _goes_on(published: Published) -> bool:
    """Whether the job is there: the kernel takes the address of its weights away with it."""
    return os.path.exists(published.address)


def make_stage(policy: SavedPolicy) -> Env:
    """One copy of the policy's environment, to be looked at. Raises as make_env does, and UsageError for the Editor."""
    config = replace(msgspec.convert(policy.env, EnvConfig), copies=1)
    if config.name == "unity:editor":
        raise UsageError("there is one Editor, and it is the run's: look there")
    if config.name.startswith("unity:"):  # which draws by itself, into a window of its own
        unity = replace(config.unity, time_scale=1.0, no_graphics=False, base_port=0)
        return make_env(replace(config, unity=unity), Place(seed=_SEED))
    return make_env(config, Place(seed=_SEED, pictures=True))


def play(env: Env, policy_spec: PolicySpec, follower: Follower) -> Iterator[Step]:
    """Each step of the newest policy without exploration, at the environment's own speed: what is late stays late."""
    policy = Policy(policy_spec, env.spec.action, env.spec.num_agents, follower.parameters, seed=0)
    lasts_s = 1 / env.pictures_per_s if isinstance(env, HasPictures) else 0.0  # a Unity player has its own clock
    due = time.monotonic()
    step = env.reset(_SEED)
    while True:
        yield step
        now = time.monotonic()
        due = max(due + lasts_s, now)
        time.sleep(due - now)
        follower.fetch()
        step = env.step(policy.to_env(policy.act(step.obs, step.agent)))
        refuse_bad_numbers(step)
        policy.restart(step.ended.agent)


class Returns:
    """Undiscounted, of each agent's running episode and of the last that ended."""

    def __init__(self, num_agents: int) -> None:
        self._running = np.zeros(num_agents)
        self._has_begun = np.zeros(num_agents, np.bool_)
        self._last: deque[float] = deque(maxlen=_LAST)

    def add(self, step: Step) -> list[tuple[int, float]]:
        """The episodes that ended in this step: whose, and their return."""
        ended = []
        for agent, reward in zip(step.ended.agent.tolist(), step.ended.reward.tolist(), strict=True):
            if self._has_begun[agent]:
                ended.append((agent, float(self._running[agent]) + reward))
            self._running[agent] = self._has_begun[agent] = 0
        going_on = self._has_begun[step.agent]  # of an episode's first decision the reward is nobody's
        self._running[step.agent[going_on]] += step.reward[going_on]
        self._has_begun[step.agent] = True
        self._last += [ret for _, ret in ended]
        return ended

    def __str__(self) -> str:
        """That of agent 0 so far, and the mean of the last ones, whosever they were."""
        mean = f"  last {len(self._last)}: {np.mean(self._last):.2f}" if self._last else ""
        return f"agent 0: {self._running[0]:.2f}{mean}"


class _Screen:
    """A terminal: the picture, if the environment draws itself, and a line under it."""

    def __init__(self, console: Console, env: Env) -> None:
        self._console = console
        self._env = env if isinstance(env, HasPictures) else None
        self._live = Live(console=console, screen=self._env is not None, auto_refresh=False)
        self._next = 0.0

    def show(self, line: str) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1 / _MOST_SHOWN_PER_S
        parts: list[RenderableType] = [Text(line, no_wrap=True, overflow="ellipsis")]
        if self._env is not None:
            columns, rows = self._console.size
            parts.insert(0, draw(in_cells(self._env.picture(), columns, rows - 1)))
        self._live.update(Group(*parts), refresh=True)

    def __enter__(self) -> _Screen:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_main(main)
