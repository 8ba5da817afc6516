"""A long walk with random actions, and what it tells: episodes, inputs, rewards (`python -m scripts.check`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.types import ACTION_MASK, EnvSpec
from envproc.env import Env
from envproc.probes import Finding, some
from envproc.walk import walk

_STEPS, _SECONDS, _AGENT_STEPS = 20_000, 2.0, 300_000
_SUSPICIOUS_SIZE = 1e3
_LARGE_REWARD = 100.0
_SPARSE = 0.01


class Seen(NamedTuple):
    """What a long walk with random actions met."""

    spec: EnvSpec
    agent_steps: int
    lengths: npt.NDArray[np.int64]
    """decisions of each episode that ended"""
    returns: npt.NDArray[np.float64]
    terminated: int
    """episodes, of those"""
    rewards: npt.NDArray[np.float32]
    """of all decisions"""
    low: dict[str, npt.NDArray[np.float64]]
    """field -> the least of each number of an observation"""
    high: dict[str, npt.NDArray[np.float64]]


def look(env: Env) -> Seen:
    """A long walk. Raises Broken if something turns bad on the way."""
    spec = env.spec
    fields = [name for name in spec.obs if name != ACTION_MASK]
    low = {name: np.full(spec.obs[name].shape, np.inf) for name in fields}
    high = {name: np.full(spec.obs[name].shape, -np.inf) for name in fields}
    length, total = np.zeros(spec.num_agents, np.int64), np.zeros(spec.num_agents)
    lengths, returns, rewards = [], [], [np.zeros(0, np.float32)]
    terminated = agent_steps = 0
    for step in walk(env, 3, _STEPS, _SECONDS):
        for side, is_end in ((step.ended, True), (step, False)):
            agents, reward = side.agent, side.reward
            going_on = length[agents] > 0  # of an episode's first decision the reward is nobody's
            total[agents[going_on]] += reward[going_on]
            rewards.append(reward[going_on])
            if is_end:
                lengths += length[agents].tolist()
                returns += total[agents].tolist()
                total[agents] = length[agents] = 0
        terminated += int(step.ended.terminated.sum())
        length[step.agent] += 1
        agent_steps += len(step.agent)
        if len(step.agent):
            for name in fields:
                np.minimum(low[name], step.obs[name].min(axis=0), out=low[name])
                np.maximum(high[name], step.obs[name].max(axis=0), out=high[name])
        if agent_steps > _AGENT_STEPS:
            break
    every = np.concatenate(rewards)
    return Seen(spec, agent_steps, np.array(lengths, np.int64), np.array(returns), terminated, every, low, high)


def episodes(seen: Seen) -> list[Finding]:
    """How long they are and how they end."""
    num, after = len(seen.lengths), f"in {seen.agent_steps:,} decisions with random actions"
    if not num:
        return [
            Finding(
                "note",
                f"no episode ended {after}",
                "an evaluation waits for whole episodes: end them, or cut them as truncated after some decisions",
            )
        ]
    span = f"{seen.lengths.min():,} to {seen.lengths.max():,} decisions, {seen.lengths.mean():,.1f} in the mean"
    how = f"{seen.terminated:,} terminated, {num - seen.terminated:,} truncated"
    return [Finding("ok", f"{num:,} episode(s) ended {after}: {how}; {span}")]


def inputs(seen: Seen) -> list[Finding]:
    """Numbers of the observations: their range, dead ones and huge ones."""
    findings = []
    for name, low in seen.low.items():
        high, field = seen.high[name], seen.spec.obs[name]
        is_image = len(field.shape) == 3
        findings.append(Finding("ok", f"{name} lies within [{low.min():.4g}, {high.max():.4g}]"))
        size = np.maximum(np.abs(low), np.abs(high))
        huge = np.flatnonzero(size > _SUSPICIOUS_SIZE).tolist()
        if huge:
            most = f"{name} reaches {size.max():.3g} in size"
            findings.append(
                Finding(
                    "note",
                    f"{most}; {len(huge)} of its {size.size} numbers go beyond {_SUSPICIOUS_SIZE:g}: {some(huge)}",
                    f"{most}: scale it in the environment, or turn --algo.normalize on, which dqn's kind has off",
                )
            )
        elif is_image and field.dtype != "uint8" and (low.min() < 0 or high.max() > 1):
            findings.append(
                Finding(
                    "note",
                    f"{name} is an image of {field.dtype} within [{low.min():.3g}, {high.max():.3g}]",
                    f"{name} reaches {high.max():.3g}: give images as uint8, or as numbers from 0 to 1",
                )
            )
        dead = np.flatnonzero(low == high).tolist()
        # a pixel that never changes is usual, an image that never does is not
        if len(dead) == low.size or (dead and not is_image):
            findings.append(
                Finding(
                    "note",
                    f"{len(dead)} of the {low.size} numbers of {name} never changed: {some(dead)}",
                    f"{len(dead)} numbers of {name} carry nothing under random actions: leave them out if that is "
                    "so in all episodes",
                )
            )
    return findings


def rewards(seen: Seen) -> list[Finding]:
    """Their scale, and how many there are. Returns in `Seen` are those of random actions: what learning has to beat."""
    given = seen.rewards
    if not given.size:
        return [Finding("note", "no decision was rewarded yet: the walk was too short to tell")]
    nonzero = np.count_nonzero(given) / given.size
    told = f"rewards: mean {given.mean():.4g}, std {given.std():.4g}, within [{given.min():.4g}, {given.max():.4g}]"
    if given.min() == given.max():
        told = f"rewards: {given[0]:.4g} for every decision"
    if len(seen.returns):
        told += f"; random actions return {seen.returns.mean():.4g} +- {seen.returns.std():.4g} an episode"
    largest = float(np.abs(given).max())
    if not nonzero:
        advice = (
            f"no reward in {given.size:,} decisions: with random actions there is nothing to learn from; reward steps"
        )
        return [Finding("note", told, f"{advice} on the way")]
    if nonzero < _SPARSE:
        share = f"{100 * nonzero:.2g} % of the decisions have a reward"
        return [Finding("note", f"{told}; {share}", f"{share}: look further with --algo.n-step 5, or reward the way")]
    if given.min() == given.max() and not len(seen.lengths):
        return [
            Finding("note", told, f"every decision earned {given[0]:.4g} and no episode ended: all actions are alike")
        ]
    if largest > _LARGE_REWARD:
        advice = f"a reward reaches {largest:.3g}: divide it in the environment; ppo and vtrace scale it by themselves"
        return [Finding("note", told, advice)]
    return [Finding("ok", told)]
