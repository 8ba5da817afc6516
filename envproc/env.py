"""The contract between a worker and an environment.

Any number of agents live in one environment, each with an episode of its own. In one step only some of them may
ask for an action while others end; nobody's end touches anybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from core.stopwatch import Stopwatch
from core.types import Action, BoolArray, EnvSpec, FloatArray, IntArray, Obs

Picture = npt.NDArray[np.uint8]
"""(height, width, 3) red, green, blue"""


@dataclass(frozen=True)
class Place:
    """Where in a run an environment stands."""

    index: int = 0
    """of its process among those of the run that have an environment"""
    seed: int = 0
    """for what must be told at launch; all else is seeded by reset()"""
    logs: str = ""
    """the directory for what it writes; empty: nobody wants it"""
    pictures: bool = False
    """whether it will be asked for pictures; some environments must know from the start"""


HERE = Place()
"""the only environment, outside of any run"""


class CannotReset(Exception):
    """This environment cannot end single agents' episodes, or not these agents'; it says why and what to do."""


class CannotSet(Exception):
    """This environment has no such parameter, or not with such a value; it says what there is."""


class EnvFailed(Exception):
    """The environment cannot go on, and the message tells the whole story: where it was raised adds nothing."""


class Ended(NamedTuple):
    """The m agents whose episodes ended since the last step."""

    agent: IntArray
    """(m,) columns"""
    obs: Obs
    """each (m, ...): the last observation of the episode that ended, before any reset"""
    reward: FloatArray
    """(m,) since that agent's last decision"""
    terminated: BoolArray
    """(m,) True: a true end, nothing follows. False: truncated, the world would have gone on"""


class Step(NamedTuple):
    """What became of the last actions. An agent may stand in `ended` and in `agent`: it ends first, then decides."""

    agent: IntArray
    """(n,) columns that ask for an action now; n may be 0 and differs from step to step"""
    obs: Obs
    """each (n, ...)"""
    reward: FloatArray
    """(n,) since that agent's last decision; of an episode's first decision it is ignored"""
    ended: Ended


class Env(Protocol):
    """An environment. The arrays of a Step may be reused by the next call: whoever keeps them, copies them."""

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, seed: int) -> Step:
        """Everything from scratch, pending reset_agents included; nobody stands in `ended`.

        The same seed and actions give the same steps.
        """
        ...

    def step(self, action: Action) -> Step:
        """One row of `action` for each agent of the last Step, in its order."""
        ...

    def reset_agents(self, agents: IntArray) -> None:
        """End these columns' episodes at the next step, as truncated, whatever their actions there.

        Any agent may be named, whether or not the last Step asked it for an action. Its `ended` entry carries the
        observation that it had when it was cut; it comes back with a fresh episode; the others must not notice.
        Where parts take turns, it is the next step of its part: see TakesTurns.
        Raises CannotReset, and changes nothing, where that is not possible.
        """
        ...

    def close(self) -> None: ...


class Refused(EnvFailed, ValueError):
    """There is no such environment as was asked for; the message is one line that says what the user can do."""


class BadNumber(EnvFailed):
    """An observation or a reward that is NaN, infinite or beyond what a float32 holds."""


LARGEST = np.finfo(np.float32).max
"""what a number may be, and its negative: all is learned in float32"""


def refuse_bad_numbers(step: Step, largest_reward: np.float32 = LARGEST) -> None:
    """Raises BadNumber: a NaN in the ring would reach every weight of every network within one update."""
    ended = step.ended
    for agents, reward, obs in ((step.agent, step.reward, step.obs), (ended.agent, ended.reward, ended.obs)):
        if len(agents):
            for name, values in (("reward", reward), *obs.items()):
                largest = largest_reward if values is reward else LARGEST
                if values.dtype.kind != "f":
                    continue
                good = np.abs(values) <= largest  # NaN is not
                if np.count_nonzero(good) < good.size:
                    at = tuple(np.argwhere(~good)[0].tolist())
                    raise BadNumber(f"the environment gave agent {agents[at[0]]} {values[at]} as {name}{list(at[1:])}")


@runtime_checkable
class HasParameters(Protocol):
    """An environment that can be changed while it runs."""

    def set_parameter(self, name: str, value: float) -> None:
        """From now on, or from each agent's next episode on. Raises CannotSet, and changes nothing, if it cannot be."""
        ...


@runtime_checkable
class HasTimeScale(Protocol):
    """An environment with a clock of its own."""

    def set_time_scale(self, value: float) -> None:
        """How much faster than real time it is asked to run."""
        ...


def change(env: Env, key: str, value: float) -> None:
    """Set env.NAME, a parameter of it, or unity.time_scale. Raises CannotSet."""
    group, _, name = key.partition(".")
    if group == "env" and isinstance(env, HasParameters):
        env.set_parameter(name, value)
    elif key == "unity.time_scale" and isinstance(env, HasTimeScale):
        env.set_time_scale(value)
    else:
        what = "no parameters" if group == "env" else "no clock of its own: it is no Unity player"
        raise CannotSet(f"{key} = {value:g}: this environment has {what}")


@runtime_checkable
class TakesTurns(Protocol):
    """An environment of several parts: a step takes the actions of one of them, and returns what another one did."""

    def on_turn(self, agent: int) -> bool:
        """Whether the next step ends this agent's episode, if reset_agents named it; else a later one does."""
        ...


@runtime_checkable
class HasStats(Protocol):
    """An environment that has figures of its own to show."""

    def stats(self) -> dict[str, float]:
        """By name, since the last call; empty if there is nothing new."""
        ...


@runtime_checkable
class HasLink(Protocol):
    """An environment that is another process, and knows how long it waits for that."""

    def time_by(self, stopwatch: Stopwatch) -> None:
        """From now on each step starts it, laps Word.EXCHANGE_NS when an answer is there, and Word.DECODE_NS for what
        it does itself."""
        ...


@runtime_checkable
class HasPictures(Protocol):
    """An environment that can be looked at, for videos. It need not if nobody asked for pictures (see Place)."""

    @property
    def pictures_per_s(self) -> float:
        """How many play at the environment's own speed, one a step."""
        ...

    def picture(self) -> Picture:
        """The world as it is after the last reset or step; of several copies, the first. Not to be reused."""
        ...
