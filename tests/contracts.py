"""check_env: does an environment keep the contract of envproc/env.py?

Call it on an environment of your own, once, before the first training run:

    check_env(MyEnv(copies=4))

It walks three times under the same actions: plainly, with a forced reset of one agent, and plainly again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.types import ACTION_MASK, Action, EnvSpec, IntArray, Obs
from envproc.env import Env, Step

PATIENCE = 20
"""env steps within which an agent that ended must be back"""


class Event(NamedTuple):
    """What an agent met: a decision or an end."""

    kind: str
    """decision, termination or truncation"""
    obs: dict[str, npt.NDArray[Any]]
    reward: float


def check_env(env: Env, steps: int = 200, seed: int = 0, *, independent: bool = True) -> None:
    """Return, or raise an AssertionError that says what is wrong with `env` and what to do.

    `steps`: env steps of one walk, best enough for some episodes to end. `independent=False` if the agents share a
    world and may feel each other's resets. The environment is left open.
    """
    _insist(steps >= 4, f"{steps} steps are too few to reset an agent among them", "take at least 4")
    _insist(env.spec.num_agents >= 1, f"spec.num_agents is {env.spec.num_agents}", "have at least one agent")
    _insist(len(env.spec.obs) >= 1, "spec.obs is empty", "name at least one observation field")

    plain = Walk(env, steps, seed)
    forced = Walk(env, steps, seed, force_from=steps // 2)
    again = Walk(env, steps, seed)  # last: a reset must also undo what the forced one left behind

    for agent in range(env.spec.num_agents):
        where = _parting(plain.events[agent], again.events[agent], lag=0)
        _insist(
            where is None,
            f"the same seed {seed} and the same actions gave agent {agent} another {where}",
            "draw all random numbers from generators that reset(seed) seeds, and clear all state there",
        )
        if independent and agent != forced.victim:
            where = _parting(plain.events[agent], forced.events[agent], lag=PATIENCE)
            _insist(
                where is None,
                f"reset_agents([{forced.victim}]) gave agent {agent} another {where}",
                "touch that agent alone and give each agent random numbers of its own; "
                "if agents share a world, check with independent=False",
            )


class Walk:
    """`steps` steps from reset(seed), each checked by itself; `events` keeps what each agent met, in its own order.

    From step `force_from` on, the first agent found that decides is reset once: the `victim`.
    """

    def __init__(self, env: Env, steps: int, seed: int, force_from: int | None = None) -> None:
        self._spec: EnvSpec = env.spec
        num, action = self._spec.num_agents, self._spec.action
        self.events: list[list[Event]] = [[] for _ in range(num)]
        self.victim = -1
        self._open = np.zeros(num, np.bool_)
        self._ended_at = np.zeros(num, np.int64)
        # A row for each decision of each agent: what it does must not depend on when the others decide.
        width = action.num_continuous + len(action.branches)
        self._dice = np.random.default_rng(seed).random((num, steps, width), np.float32)
        self._decisions = np.zeros(num, np.int64)

        where = f"reset({seed})"
        step = env.reset(seed)
        self._note(where, 0, step)
        for t in range(1, steps + 1):
            decided = self._act(step.agent, step.obs.get(ACTION_MASK))
            asked = force_from is not None and self.victim < 0 and t >= force_from and len(step.agent) > 0
            if asked:
                self.victim = int(step.agent[len(step.agent) // 2])
                env.reset_agents(np.array([self.victim]))
            step = env.step(decided)
            self._note(f"step {t}", t, step)
            _insist(
                not asked or self.victim in step.ended.agent[~step.ended.terminated],
                f"step {t} after reset_agents([{self.victim}]) does not report agent {self.victim} as truncated",
                "put it into ended at the very next step(), with terminated False, whatever its action leads to",
            )
        _insist(self._decisions.any(), f"nobody asked for an action in {steps} steps", "put agents into Step.agent")
        lost = np.flatnonzero(~self._open & (self._decisions > 0) & (self._ended_at < steps - PATIENCE))
        _insist(
            lost.size == 0,
            f"agents {lost} ended at steps {self._ended_at[lost]} and were not seen again up to step {steps}",
            f"start the next episode by yourself, within {PATIENCE} steps",
        )

    def _act(self, agents: IntArray, allowed: npt.NDArray[np.bool_] | None) -> Action:
        """Uniform within the bounds and among what is allowed."""
        spec = self._spec.action
        dice = self._dice[agents, self._decisions[agents]]
        self._decisions[agents] += 1
        low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
        continuous = low + (high - low) * dice[:, : spec.num_continuous]
        discrete = (dice[:, spec.num_continuous :] * np.array(spec.branches)).astype(np.int64)
        if allowed is not None:
            for branch, mask in enumerate(np.split(allowed, np.cumsum(spec.branches)[:-1], axis=1)):
                which = (dice[:, spec.num_continuous + branch] * mask.sum(axis=1)).astype(np.int64)
                discrete[:, branch] = (np.cumsum(mask, axis=1) > which[:, None]).argmax(axis=1)
        return Action(np.clip(continuous, low, high), discrete)

    def _note(self, where: str, t: int, step: Step) -> None:
        ended, terminated = step.ended.agent, step.ended.terminated
        self._check(f"{where}: Step.ended", ended, step.ended.obs, step.ended.reward)
        _check_array(f"{where}: Step.ended.terminated", terminated, (len(ended),), "bool")
        self._check(f"{where}: Step", step.agent, step.obs, step.reward)

        _insist(t > 0 or not len(ended), f"{where} reports the end of agents {ended}", "start with nobody in ended")
        strangers = ended[~self._open[ended]]
        _insist(
            strangers.size == 0,
            f"{where} reports the end of agents {strangers}, which have no open episode",
            "report an end once, and only of agents that have decided since their last end",
        )
        self._open[ended] = False
        self._ended_at[ended] = t
        self._open[step.agent] = True
        # copies: the arrays of a Step may be reused by the next one
        for i, agent in enumerate(ended.tolist()):
            obs = {name: rows[i].copy() for name, rows in step.ended.obs.items()}
            kind = "termination" if terminated[i] else "truncation"
            self.events[agent].append(Event(kind, obs, float(step.ended.reward[i])))
        for i, agent in enumerate(step.agent.tolist()):
            obs = {name: rows[i].copy() for name, rows in step.obs.items()}
            self.events[agent].append(Event("decision", obs, float(step.reward[i])))

    def _check(self, where: str, agents: IntArray, obs: Obs, reward: npt.NDArray[Any]) -> None:
        """Shapes, dtypes and ranges of one side of a Step."""
        num, fields = self._spec.num_agents, self._spec.obs
        _check_array(f"{where}.agent", agents, (np.size(agents),), "int64")
        wrong = agents[(agents < 0) | (agents >= num)]
        _insist(wrong.size == 0, f"{where}.agent has columns {wrong}", f"stay within 0..{num - 1}, or raise num_agents")
        twice = agents[np.bincount(agents, minlength=num)[agents] > 1]
        _insist(twice.size == 0, f"{where}.agent has columns {twice} more than once", "give an agent one row")
        _check_array(f"{where}.reward", reward, (len(agents),), "float32")
        same = set(obs) == set(fields)
        _insist(same, f"{where}.obs has the fields {sorted(obs)}", f"give those of spec, {sorted(fields)}")
        for name, field in fields.items():
            _check_array(f"{where}.obs[{name!r}]", obs[name], (len(agents), *field.shape), field.dtype)


def _check_array(where: str, array: object, shape: tuple[int, ...], dtype: str) -> None:
    _insist(isinstance(array, np.ndarray), f"{where} is a {type(array).__name__}", "give a numpy array")
    assert isinstance(array, np.ndarray)
    _insist(array.dtype == np.dtype(dtype), f"{where} has dtype {array.dtype}", f"make it {dtype}, or change spec")
    _insist(array.shape == shape, f"{where} has shape {array.shape}", f"make it {shape}, or change spec")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = np.argwhere(~np.isfinite(array))[0].tolist()
        raise AssertionError(f"{where}{at} is {array[tuple(at)]}; every number must be finite: find where it is made")


def _parting(one: list[Event], other: list[Event], lag: int) -> str | None:
    """Where two lives of an agent part, bit for bit; one may end up to `lag` events before the other."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a.kind != b.kind:
            return f"event {number}: a {a.kind} in one walk, a {b.kind} in the other"
        if a.reward != b.reward:
            return f"reward at event {number}: {a.reward} in one walk, {b.reward} in the other"
        for name, values in a.obs.items():
            if not np.array_equal(values, b.obs[name]):
                return f"obs[{name!r}] at event {number}: {values} in one walk, {b.obs[name]} in the other"
    if abs(len(one) - len(other)) > lag:
        return f"number of events: {len(one)} in one walk, {len(other)} in the other"
    return None


def _insist(holds: bool | np.bool_, wrong: str, way_out: str) -> None:
    if not holds:
        raise AssertionError(f"{wrong}; {way_out}")
