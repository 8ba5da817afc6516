"""A Unity player as an environment: any ML-Agents build, or the Editor, one behaviour of its scene."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from core.ring import Word
from core.stopwatch import Stopwatch
from core.types import Action, EnvSpec, FloatArray, IntArray, Obs
from envproc.env import CannotReset, CannotSet, Ended, Place, Step
from envproc.unity.columns import Columns
from envproc.unity.fields import Fields, bare_name
from envproc.unity.launch import Launched, PlayerHangs, PlayerRefused
from envproc.unity.link import Link
from envproc.unity.options import UnityOptions
from envproc.unity.others import Others
from envproc.unity.reset_channel import ResetChannel

# isort: split
from mlagents_envs.base_env import ActionTuple, DecisionSteps, TerminalSteps
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel

Recorded = Mapping[str, list[tuple[float, Any]]]
"""name -> values, and how each is to be aggregated, as StatsSideChannel has it"""
_LARGEST = 3.4e38  # about a float32's
_MOST_EXCHANGES = 100
"""of one step, while nobody of the behaviour asks for an action; then whoever steps gets a word in"""


class UnityEnv:
    """The agents of one behaviour in one player; those of others do nothing, or what a saved policy says.

    Each sensor is an observation field by its name. Actions lie in [-1, 1], as ML-Agents has them.
    """

    def __init__(
        self,
        where: str,
        areas: int,
        behavior: str,
        options: UnityOptions,
        place: Place,
        parameters: Mapping[str, float] = MappingProxyType({}),
        launched: Launched | None = None,
    ) -> None:
        """Start the player at the path `where`, or wait for the Editor, or take the one `launched`, and reset it.

        `areas` is for scenes with a TrainingAreaReplicator. The player takes its seed at launch, from `place`. Raises
        ValueError for what the user can mend; PlayerDied or PlayerHangs as every later call may.
        """
        self._engine, self._parameters = EngineConfigurationChannel(), EnvironmentParametersChannel()
        self._resets, self._stats = ResetChannel(), StatsSideChannel()
        # ML-Agents' own defaults for training
        self._engine.set_configuration_parameters(84, 84, 5, options.time_scale, -1, 60)
        for name, value in parameters.items():
            self.set_parameter(name, value)
        self._others = Others(options.policies())
        with contextlib.ExitStack() as opened:
            launched = launched or Launched(where, options, place)
            opened.callback(launched.close)
            self._link = Link(
                launched.server,
                launched.player,
                seed=place.seed % 2**31,  # ML-Agents' has a sign
                areas=areas,
                channels=(self._engine, self._parameters, self._resets, self._stats),
                launch_s=options.launch_s,
                answer_s=options.answer_s,
            )
            opened.callback(self._link.close)
            self._link.reset()
            self._behavior = self._find(behavior)
            self._others.check(self._link.behavior_specs, self._behavior)
            self._steps: tuple[DecisionSteps, TerminalSteps] = self._link.get_steps(self._behavior)
            self._fields = Fields(self._link.behavior_specs[self._behavior], options.image_bytes)
            num = options.max_agents * areas or len(self._steps[0])
            self.spec = self._fields.env_spec(num)
            self._columns = Columns(num)
            self._ends: list[tuple[IntArray, Obs, FloatArray, Any]] = []  # that no Step has told yet
            self._fresh, self._at_work = True, False
            self._exchanges = 0
            self._alone_s, self._patience_s = 0.0, options.answer_s
            self.time_by(Stopwatch(np.zeros(Word.WORDS, np.int64)))  # nobody looks
            self._opened = opened.pop_all()

    def reset(self, seed: int) -> Step:
        """Everybody from scratch. The seed is not used: a player takes its own at launch, once."""
        self._stopwatch.start()
        if self._at_work:
            self._link.receive()
        if not self._fresh:
            self._link.reset()
            self._steps = self._link.get_steps(self._behavior)
        self._fresh = self._at_work = False
        self._columns.end_all()
        self._ends = []  # whose end was still on its way, ended before the reset
        return self._tell()

    def step(self, action: Action) -> Step:
        """Let the player go on until somebody asks for an action. Exchanges in which agents only end stay in here."""
        self.send(action)
        while (step := self.receive()) is None:
            pass
        return step

    def send(self, action: Action) -> None:
        """The first half of step(): the player goes on by itself."""
        self._stopwatch.start()
        self._link.set_actions(self._behavior, ActionTuple(action.continuous, action.discrete.astype(np.int32)))
        self._exchanges = 0
        self._let_go_on()

    def receive(self) -> Step | None:
        """The second half: what came of it. None while nobody asks for an action: the player goes on already."""
        self._stopwatch.start()
        started = time.monotonic()
        if len(self._steps[0]):
            self._alone_s = 0.0
        self._link.receive()
        self._at_work = False
        self._steps = self._link.get_steps(self._behavior)
        terminals = self._steps[1]
        if len(terminals):
            columns, which = self._columns.end(terminals.agent_id.tolist())
            seen = {name: values[which] for name, values in self._fields.see(terminals).items()}
            self._ends.append((columns, seen, _reward(terminals)[which], ~terminals.interrupted[which]))
        self._exchanges += 1
        if len(self._steps[0]) or self._exchanges >= _MOST_EXCHANGES:
            self._alone_s += time.monotonic() - started
            step = self._tell()
            self._stopwatch.lap(Word.DECODE_NS)
            return step
        self._let_go_on()
        self._alone_s += time.monotonic() - started  # not what passes before: whoever steps may have been paused
        if self._alone_s > self._patience_s:
            raise PlayerHangs(
                f"nobody of {self._behavior} has asked for an action for {self._patience_s:g} s, though the scene "
                f"goes on (--unity.answer-s allows more)"
            )
        return None

    def _let_go_on(self) -> None:
        self._others.act(self._link)
        self._link.send()
        self._fresh, self._at_work = False, True

    def reset_agents(self, agents: IntArray) -> None:
        """Ask the player to end these agents' episodes with the next step. Raises CannotReset if it is not able to."""
        refuse_unknown(agents, self.spec)
        ids, strangers = self.ids_of(agents)
        refuse_strangers(strangers)
        self.end(ids)

    def ids_of(self, agents: IntArray) -> tuple[list[int], list[int]]:
        """On the wire, of those of these agents that can be reset now; and who of them the scene cannot reset."""
        ids, strangers = [], []
        for agent in set(agents.tolist()):
            its_id = self._columns.id_of(agent)
            if its_id in self._resets.here:
                ids.append(its_id)
            elif self._columns.is_open(agent) or not self._resets.here:
                strangers.append(agent)
            # else it ended and its id with it: whoever comes next begins a new episode anyway
        return ids, strangers

    def end(self, ids: list[int]) -> None:
        """The episodes of the agents with these ids, with what is sent next."""
        if ids:
            self._resets.reset(ids)

    def set_parameter(self, name: str, value: float) -> None:
        """The scene reads it, or not: it does not say. It is told at the next exchange."""
        if not (name and name.isascii() and abs(value) <= _LARGEST):
            raise CannotSet(f"env.{name} = {value:g}: Unity's parameters have names in ASCII and float32 values")
        self._parameters.set_float_parameter(name, value)

    def set_time_scale(self, value: float) -> None:
        """From the next exchange on."""
        self._engine.set_configuration_parameters(time_scale=value)

    def time_by(self, stopwatch: Stopwatch) -> None:
        """Nearly all of a step is one or the other: waiting for the player, or from its message to arrays and back."""
        self._stopwatch = stopwatch
        self._link.time_by(stopwatch)

    def stats(self) -> dict[str, float]:
        """What the scene recorded with StatsRecorder since the last call, each name aggregated as the scene asked."""
        return aggregate([self.recorded()])

    def recorded(self) -> Recorded:
        """The same as it was recorded."""
        recorded: Recorded = self._stats.get_and_reset_stats()
        return recorded

    def quit(self) -> None:
        """Tell the player to quit, and do not wait."""
        self._link.close()

    def close(self) -> None:
        """Tell the player to quit; kill it if it does not."""
        self._opened.close()

    def _find(self, wanted: str) -> str:
        """The full name, as in '3DBall?team=0', of the behaviour that is meant: `wanted`, or the only one."""
        known: list[str] = []
        for _ in range(_MOST_EXCHANGES):
            known = list(self._link.behavior_specs)
            named = [each for each in known if not wanted or wanted in (each, bare_name(each))]
            if len(named) == 1 and len(self._link.get_steps(named[0])[0]):
                return named[0]
            if len(named) > 1:
                break
            self._link.step()
        bare = [bare_name(each) for each in known]
        names = " or ".join(known if len(set(bare)) < len(bare) else bare)
        if not known:
            raise PlayerRefused(f"nobody in this scene has asked for an action in {_MOST_EXCHANGES} exchanges")
        if wanted:
            raise PlayerRefused(f"no behaviour {wanted!r} that asks for actions in this scene; there is {names}")
        raise PlayerRefused(f"{len(known)} behaviours in this scene; name the one to train: --behavior {names}")

    def _tell(self) -> Step:
        decisions, ends = self._steps[0], self._ends
        self._ends = []
        agents = self._columns.decide(decisions.agent_id.tolist())
        return Step(agents, self._fields.see(decisions), _reward(decisions), self._join(ends))

    def _join(self, ends: list[tuple[IntArray, Obs, FloatArray, Any]]) -> Ended:
        if len(ends) == 1:
            return Ended(*ends[0])
        nobody = {name: np.zeros((0, *field.shape), field.dtype) for name, field in self.spec.obs.items()}
        parts = [(np.zeros(0, np.int64), nobody, np.zeros(0, np.float32), np.zeros(0, np.bool_)), *ends]
        columns, obs, reward, terminated = zip(*parts, strict=True)
        return Ended(
            np.concatenate(columns),
            {name: np.concatenate([each[name] for each in obs]) for name in nobody},
            np.concatenate(reward),
            np.concatenate(terminated),
        )


def refuse_unknown(agents: IntArray, spec: EnvSpec) -> None:
    """Raises ValueError."""
    wrong = sorted(set(agents.tolist()) - set(range(spec.num_agents)))
    if wrong:
        raise ValueError(f"no agents {wrong}; there are 0 to {spec.num_agents - 1}")


def refuse_strangers(agents: list[int]) -> None:
    """Raises CannotReset if there are any."""
    if agents:
        raise CannotReset(
            f"agents {sorted(agents)} have no SharlAgent component in this scene; docs/unity_reset.md says how "
            f"to add it"
        )


def aggregate(recorded: Iterable[Recorded]) -> dict[str, float]:
    """By name, what one or more players recorded, as the scene asked."""
    together: dict[str, list[tuple[float, Any]]] = {}
    for each in recorded:
        for name, pairs in each.items():
            together.setdefault(name, []).extend(pairs)
    found: dict[str, float] = {}
    for name, pairs in together.items():
        values = [value for value, _ in pairs]
        match pairs[-1][1]:
            case StatsAggregationMethod.MOST_RECENT:
                found[name] = values[-1]
            case StatsAggregationMethod.SUM:
                found[name] = float(np.sum(values))
            case _:
                found[name] = float(np.mean(values))
    return found


def _reward(steps: DecisionSteps | TerminalSteps) -> FloatArray:
    reward: FloatArray = steps.reward + steps.group_reward
    return reward
