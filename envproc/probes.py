"""Probes: each looks at one side of an environment and says what it found (`python -m scripts.check`).

A finding is "ok", a "note" or "BAD". What makes it impossible to go on is raised as contract.Broken.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from core.types import ACTION_MASK
from envproc.env import CannotReset, Env
from envproc.walk import Event, call, events_of, shown, spec_of, walk

_FIRST_STEPS, _FIRST_S = 40, 1.0
_NAMED = 6
"""numbers of a list that are named; the others are counted"""


class Finding(msgspec.Struct, tag=True, frozen=True):
    """One line of the report."""

    level: Literal["ok", "note", "BAD"]
    what: str
    advice: str = ""
    """what can be done about it, with the number that asks for it"""


class Events(NamedTuple):
    """What each agent met, in its own order."""

    of: dict[int, list[Event]]

    def parts_from(self, other: Events, agents: list[int]) -> str:
        """Where the first of these agents' lives differs in the two, as far as both go; empty: nowhere."""
        for agent in agents:
            for number, (one, two) in enumerate(zip(self.of.get(agent, []), other.of.get(agent, []), strict=False)):
                if one != two:
                    what = "kind" if one.kind != two.kind else "reward" if one.reward != two.reward else "observation"
                    return f"agent {agent}, event {number}: another {what}"
        return ""


def offers(env: Env) -> list[Finding]:
    """What the spec says."""
    spec = spec_of(env)
    fields = ", ".join(f"{name} {shown(each)}" for name, each in spec.obs.items())
    actions = []
    if spec.action.num_continuous:
        low, high = min(spec.action.low), max(spec.action.high)
        actions.append(f"{spec.action.num_continuous} continuous, within [{low:g}, {high:g}]")
    if spec.action.branches:
        actions.append(f"{len(spec.action.branches)} discrete, of {', '.join(map(str, spec.action.branches))} choices")
    masked = ", masked" if ACTION_MASK in spec.obs else ""
    return [
        Finding("ok", f"{spec.num_agents} agent(s); each observes {fields}"),
        Finding("ok", f"actions: {' and '.join(actions)}{masked}"),
    ]


def contract(env: Env) -> list[Finding]:
    """The first steps: shapes, dtypes, finite numbers, who is asked and who ends, actions at the bounds."""
    asked = steps = 0
    for step in walk(env, 1, _FIRST_STEPS, _FIRST_S):
        asked += len(step.agent)
        steps += 1
    if not asked:
        return [Finding("BAD", f"nobody asked for an action in {steps} steps", "put agents into Step.agent")]
    return [Finding("ok", f"{steps} steps keep the contract: shapes, dtypes, finite numbers, actions at their bounds")]


def seeding(fresh: Callable[[int], AbstractContextManager[Env]]) -> list[Finding]:
    """The same seed must give the same first steps; another one should not.

    `fresh(seed)` opens an environment that takes this seed: one for all, or a new one each where only a launch does.
    """
    walks = []
    for seed in (1, 1, 2):
        with fresh(seed) as env:
            walks.append(_events(env, seed))
    first, again, other = walks
    agents = sorted(first.of)
    if parting := first.parts_from(again, agents):
        return [
            Finding(
                "note",
                f"the same seed twice gave different first steps ({parting})",
                "runs of --mode sync will not repeat: draw all random numbers from generators that reset(seed) seeds, "
                "and clear all state there",
            )
        ]
    if not first.parts_from(other, agents):
        return [
            Finding(
                "note",
                "seeds 1 and 2 gave the same first steps",
                "if there is any chance in it, draw it from what reset(seed) seeds, or all workers see the same",
            )
        ]
    return [Finding("ok", "the same seed gives the same first steps, another seed gives others")]


def partial_reset(env: Env) -> list[Finding]:
    """reset_agents([one]): that one is truncated at the next step, and the others do not notice."""
    plain, again = _events(env, 1), _events(env, 1)
    try:
        forced, victim, ended, seen = _with_a_reset(env, 1)
    except CannotReset as error:
        return [Finding("note", f"single agents cannot be reset: {' '.join(str(error).split())}")]
    if victim < 0:
        return [Finding("note", "single agents: the walk was too short to reset one")]
    if (victim, False) not in ended:
        return [
            Finding(
                "BAD",
                f"after reset_agents([{victim}]) the next step does not report agent {victim} as truncated",
                "put it into ended at the very next step, terminated False, whatever its action leads to",
            )
        ]
    others = sorted(set(plain.of) - {victim})
    if not others:
        return [Finding("ok", f"agent {victim} was reset: truncated at once; there is no other")]
    if plain.parts_from(again, others):
        return [Finding("note", f"agent {victim} was reset alone; if others notice cannot be told: no walk repeats")]
    if parting := plain.parts_from(forced, others):
        dragged = sorted(agent for agent, _ in ended if agent != victim and not seen(plain, agent))
        if dragged:
            return [
                Finding(
                    "BAD",
                    f"reset_agents([{victim}]) ended agents {some(dragged)} too",
                    "end the named agents alone: the learner goes on with the others' episodes",
                )
            ]
        return [
            Finding(
                "note",
                f"reset_agents([{victim}]) was noticed by others ({parting})",
                "right if they share a world; if not, give each agent state and random numbers of its own",
            )
        ]
    return [Finding("ok", f"agent {victim} was reset alone: truncated at once, {len(others)} other(s) did not notice")]


def _events(env: Env, seed: int) -> Events:
    found: dict[int, list[Event]] = {}
    for step in walk(env, seed, _FIRST_STEPS, _FIRST_S):
        for agent, event in events_of(step):
            found.setdefault(agent, []).append(event)
    return Events(found)


def _with_a_reset(env: Env, seed: int) -> tuple[Events, int, list[tuple[int, bool]], Callable[[Events, int], bool]]:
    """A walk in which one agent is reset once.

    Returns what was met; who was reset (-1: nobody); agents that ended in that step, and if truly; and whether an
    agent ends there in another walk, too.
    """
    found: dict[int, list[Event]] = {}
    victim, ended = -1, []
    at: dict[int, int] = {}
    for number, step in enumerate(walk(env, seed, _FIRST_STEPS, 2 * _FIRST_S)):
        if victim >= 0 and not at:
            at = {agent: len(events) for agent, events in found.items()}
            ended = list(zip(step.ended.agent.tolist(), step.ended.terminated.tolist(), strict=True))
        for agent, event in events_of(step):
            found.setdefault(agent, []).append(event)
        if victim < 0 and number >= 3 and len(step.agent):
            victim = int(step.agent[len(step.agent) // 2])
            call(f"reset_agents([{victim}])", env.reset_agents, np.array([victim]))
    if not at:  # time was over before the step that counts
        victim = -1

    def ended_anyway(plain: Events, agent: int) -> bool:
        events = plain.of.get(agent, [])
        return at[agent] < len(events) and events[at[agent]].kind != "decided"

    return Events(found), victim, ended, ended_anyway


def some(numbers: list[int]) -> str:
    more = len(numbers) - _NAMED
    return ", ".join(map(str, numbers[:_NAMED])) + (f" and {more} more" if more > 0 else "")
