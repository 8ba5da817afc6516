"""A Unity player as an environment: any ML-Agents build, or the Editor, one behaviour of its scene."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from core.ring import Word
from core.stopwatch import Stopwatch
from core.types import Action, FloatArray, IntArray, Obs
from envproc.env import CannotReset, CannotSet, Ended, Place, Step
from envproc.unity.columns import Columns
from envproc.unity.fields import Fields, bare_name
from envproc.unity.launch import Player, PlayerHangs, PlayerRefused, find_player
from envproc.unity.link import Link
from envproc.unity.options import UnityOptions
from envproc.unity.others import Others
from envproc.unity.reset_channel import ResetChannel
from envproc.unity.rpc import PlayerServer

# isort: split
from mlagents_envs.base_env import ActionTuple, DecisionSteps, TerminalSteps
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel

EDITOR = "editor"
_EDITOR_PORT = 5004
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
    ) -> None:
        """Start the player at the path `where`, or wait for the Editor, and reset it.

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
        program = None if where == EDITOR else find_player(where)
        with contextlib.ExitStack() as opened:
            server = opened.enter_context(contextlib.closing(_listen(program is None, options.base_port, place.index)))
            player = None
            if program is not None:
                player = Player(program, server.port, place.index, place.logs, options.no_graphics, options.arguments())
                opened.callback(player.close)
                opened.callback(server.close)  # before it is waited for: it may not have been told to quit
            self._link = Link(
                server,
                player,
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
            self._fresh = True
            self._alone_since, self._patience_s = 0.0, options.answer_s
            self.time_by(Stopwatch(np.zeros(Word.WORDS, np.int64)))  # nobody looks
            self._opened = opened.pop_all()

    def reset(self, seed: int) -> Step:
        """Everybody from scratch. The seed is not used: a player takes its own at launch, once."""
        self._stopwatch.start()
        if not self._fresh:
            self._link.reset()
            self._steps = self._link.get_steps(self._behavior)
        self._fresh = False
        self._columns.end_all()
        return self._decide([])  # whose end was still on its way, ended before the reset

    def step(self, action: Action) -> Step:
        """Let the player go on until somebody asks for an action. Exchanges in which agents only end stay in here."""
        self._stopwatch.start()
        self._fresh = False
        actions = ActionTuple(action.continuous, action.discrete.astype(np.int32))
        self._link.set_actions(self._behavior, actions)
        ends: list[tuple[IntArray, Obs, FloatArray, Any]] = []
        if len(self._steps[0]):
            self._alone_since = time.monotonic()
        for _ in range(_MOST_EXCHANGES):
            if time.monotonic() > self._alone_since + self._patience_s:
                raise PlayerHangs(
                    f"nobody of {self._behavior} has asked for an action for {self._patience_s:g} s, though the scene "
                    f"goes on (--unity.answer-s allows more)"
                )
            self._others.act(self._link)
            self._link.step()
            self._steps = self._link.get_steps(self._behavior)
            terminals = self._steps[1]
            if len(terminals):
                columns, which = self._columns.end(terminals.agent_id.tolist())
                seen = {name: values[which] for name, values in self._fields.see(terminals).items()}
                ends.append((columns, seen, _reward(terminals)[which], ~terminals.interrupted[which]))
            if len(self._steps[0]):
                break
        step = self._decide(ends)
        self._stopwatch.lap(Word.DECODE_NS)
        return step

    def reset_agents(self, agents: IntArray) -> None:
        """Ask the player to end these agents' episodes with the next step. Raises CannotReset if it is not able to."""
        wrong = sorted(set(agents.tolist()) - set(range(self.spec.num_agents)))
        if wrong:
            raise ValueError(f"no agents {wrong}; there are 0 to {self.spec.num_agents - 1}")
        ids, strangers = [], []
        for agent in set(agents.tolist()):
            its_id = self._columns.id_of(agent)
            if its_id in self._resets.here:
                ids.append(its_id)
            elif self._columns.is_open(agent) or not self._resets.here:
                strangers.append(agent)
            # else it ended and its id with it: whoever comes next begins a new episode anyway
        if strangers:
            raise CannotReset(
                f"agents {sorted(strangers)} have no SharlAgent component in this scene; docs/unity_reset.md says how "
                f"to add it"
            )
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
        found = {}
        for name, recorded in self._stats.get_and_reset_stats().items():
            values = [value for value, _ in recorded]
            match recorded[-1][1]:
                case StatsAggregationMethod.MOST_RECENT:
                    found[name] = values[-1]
                case StatsAggregationMethod.SUM:
                    found[name] = float(np.sum(values))
                case _:
                    found[name] = float(np.mean(values))
        return found

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

    def _decide(self, ends: list[tuple[IntArray, Obs, FloatArray, Any]]) -> Step:
        decisions = self._steps[0]
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


def _listen(editor: bool, base_port: int, index: int) -> PlayerServer:
    port = base_port + index if base_port else _EDITOR_PORT if editor else 0
    try:
        return PlayerServer(port)
    except OSError as error:
        raise PlayerRefused(f"port {port} cannot be had; somebody has it: give another --unity.base-port") from error


def _reward(steps: DecisionSteps | TerminalSteps) -> FloatArray:
    reward: FloatArray = steps.reward + steps.group_reward
    return reward
