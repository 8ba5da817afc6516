"""Several players of one worker: each plays as it would alone, and none waits for another."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from core.control import Reset
from core.types import Action, ActionSpec
from envproc import EnvConfig, make_env
from envproc.env import CannotReset, HasStats, Place, Step, TakesTurns, change
from envproc.unity import several
from envproc.unity.env import UnityEnv, aggregate
from envproc.unity.launch import Launched, PlayerDied, PlayerRefused
from envproc.unity.options import UnityOptions
from envproc.unity.several import Several
from tests.envproc.unity.test_env import PLAYERS
from tests.process.lane import Lane
from tests.process.runs import free_port, wait_until

SEED = 5
Told = list[list[npt.NDArray[np.generic]]]
"""The arrays of a player's Steps, with columns of its own"""


def players(scene: str, num: int, args: str = "", max_agents: int = 0, base_port: int = 0, index: int = 0) -> Several:
    options = UnityOptions(players_per_worker=num, args=args, max_agents=max_agents, base_port=base_port, answer_s=10)
    return Several(str(PLAYERS / scene), 1, "", options, Place(index, SEED), {})


def decide(step: Step, actions: ActionSpec, turn: int) -> Action:
    """What depends on nothing but what each agent sees, and on how often its player was told."""
    seen = next(values for values in step.obs.values() if values.dtype == np.float32)
    mark = np.sin(seen.reshape(len(step.agent), -1).sum(axis=1, keepdims=True) * 7 + turn)
    n, branches = len(step.agent), len(actions.branches)
    return Action(np.repeat(mark, actions.num_continuous, axis=1).astype(np.float32), np.zeros((n, branches), np.int64))


def arrays(step: Step, first: int) -> list[npt.NDArray[np.generic]]:
    ended = step.ended
    columns = [step.agent - first, ended.agent - first]
    return [*columns, *step.obs.values(), step.reward, *ended.obs.values(), ended.reward, ended.terminated]


def alone(scene: str, k: int, turns: int, max_agents: int) -> Told:
    options = UnityOptions(max_agents=max_agents)
    with closing(UnityEnv(str(PLAYERS / scene), 1, "", options, Place(seed=SEED + k))) as env:
        step, told = env.reset(0), []
        for turn in range(turns):
            told.append([each.copy() for each in arrays(step, 0)])
            step = env.step(decide(step, env.spec.action, turn))
    return told


@pytest.mark.parametrize(
    ("scene", "max_agents"),
    [("Spawn", 8), *(pytest.param(scene, 0, marks=pytest.mark.thorough) for scene in ("3DBall", "Renew"))],
)
def test_each_player_gives_what_it_gives_alone(scene: str, max_agents: int) -> None:
    with closing(players(scene, 3, max_agents=max_agents)) as env:
        n = env.spec.num_agents // 3
        step = env.reset(0)
        told: list[Told] = [[], [], []]
        for k in range(3):
            own = step.agent // n == k
            first = step._replace(agent=step.agent[own], obs={name: each[own] for name, each in step.obs.items()})
            told[k].append([each.copy() for each in arrays(first._replace(reward=step.reward[own]), k * n)])
        step = env.step(decide(step, env.spec.action, 0))
        order = []
        for _ in range(180):
            (k,) = set((np.concatenate((step.agent, step.ended.agent)) // n).tolist())
            told[k].append([each.copy() for each in arrays(step, k * n)])
            order.append(k)
            step = env.step(decide(step, env.spec.action, len(told[k]) - 1))
    assert order[:6] == [0, 1, 2, 0, 1, 2] or scene != "3DBall"
    for k, own_told in enumerate(told):
        assert len(own_told) > 40
        for found, expected in zip(own_told, alone(scene, k, len(own_told), max_agents), strict=True):
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    own, others = (b"".join(array.tobytes() for each in told[k] for array in each) for k in (0, 1))
    assert own != others, "each has a seed of its own"


def test_one_agent_of_a_player_at_work_is_reset_when_its_turn_comes() -> None:
    with closing(players("3DBall", 3)) as env:
        assert isinstance(env, TakesTurns)
        step = env.step(still(env.reset(0)))
        assert set((step.agent // 12).tolist()) == {0}
        env.reset_agents(np.array([14, 3, 30]))  # of players 1, 0 and 2
        assert [env.on_turn(each) for each in (14, 3, 30)] == [False, True, False]
        cut = {}
        for turn in range(1, 8):
            on_turn = [each for each in (3, 14, 30) if env.on_turn(each)]
            step = env.step(still(step))
            for agent in step.ended.agent.tolist():
                assert agent in on_turn, "in the Step of the step that took its player's actions"
                cut[agent] = turn
            assert step.agent.tolist() == [step.agent[0] + each for each in range(12)], "one player a step"
    assert sorted(cut) == [3, 14, 30]


def still(step: Step) -> Action:
    return Action(np.zeros((len(step.agent), 2), np.float32), np.zeros((len(step.agent), 0), np.int64))


@pytest.mark.thorough
def test_a_reset_is_answered_after_the_step_that_did_it(tmp_path: Path) -> None:
    """A real worker, and agents of both of its players, one of which is at work."""
    random = np.random.default_rng(3)
    config = EnvConfig(f"unity:{PLAYERS}/3DBall", unity=UnityOptions(players_per_worker=2))
    with Lane(config, tmp_path) as lane:
        lane.step()
        asked = [sorted(random.choice(24, random.integers(1, 5), replace=False).tolist()) for _ in range(25)]
        for request, chosen in enumerate(asked, start=1):
            lane.deliver(Reset(request, chosen))
            for _ in range(10):  # turns; a player whose agents only end goes on at once, and lets the other go first
                lane.step()
                if any(each.request == request for each in lane.answers):
                    break
        wait_until(lambda: {each.request for each in lane.answers} == set(range(26)), "the answers")
        assert all(each.done for each in lane.answers), "the environment ended whom it was to end"

        def cut() -> Counter[int]:
            return Counter(each.agent for each in lane.episodes if each.end == "reset")

        wanted = Counter(agent for chosen in asked for agent in chosen)
        wait_until(lambda: cut().total() > 0.8 * wanted.total(), "the episodes")  # the others had none open
        assert cut() <= wanted


def test_every_player_is_told_what_is_set_and_tells_what_it_recorded() -> None:
    config = EnvConfig(f"unity:{PLAYERS}/3DBall", unity=UnityOptions(players_per_worker=2), params=("gravity=0",))
    with closing(make_env(config)) as env:
        height = env.reset(0).obs["VectorSensor_size8"][:, 3].copy()
        assert len(height) == 24
        step = env.step(still(env.reset(0)))
        for _ in range(2):
            assert (step.obs["VectorSensor_size8"][:, 3] > height[step.agent] - 0.01).all()
            step = env.step(still(step))
        change(env, "env.gravity", 9.81)
        change(env, "unity.time_scale", 5.0)
        for _ in range(200):
            step = env.step(still(step))
        assert isinstance(env, HasStats)
        alone, stats = [each.recorded() for each in env._players], env.stats()  # type: ignore[attr-defined]
        assert stats == {} and all(len(each["Ball/Fallen"]) > 5 for each in alone)
        assert aggregate(alone)["Ball/Fallen"] == sum(len(each["Ball/Fallen"]) for each in alone)


def test_after_a_reset_of_all_with_answers_on_their_way_everybody_decides() -> None:
    with closing(players("3DBall", 3)) as env:
        step = env.reset(0)
        for turns in (0, 1, 30, 31, 32, 40):
            for _ in range(turns):
                step = env.step(decide(step, env.spec.action, turns))
            env.reset_agents(np.array([4, 29]))
            step = env.reset(0)
            assert step.agent.tolist() == list(range(36)) and len(step.ended.agent) == 0
        assert len(env.step(still(step)).ended.agent) == 0, "whom it was asked to reset began anew already"


def test_a_player_that_ends_or_hangs_is_named() -> None:
    with closing(players("3DBall", 3, index=2)) as env:
        step = env.reset(0)
        victim = env._players[1]._link._talk._player
        assert victim is not None
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(PlayerDied, match=r"the player 3DBall.x86_64 \(player-7\) was killed by SIGKILL"):
            for _ in range(10):
                step = env.step(still(step))


def test_they_are_all_started_before_one_is_waited_for_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def noted(*args: Any) -> Launched:
        launched = Launched(*args)
        assert launched.player is not None
        pids.append(launched.player.pid)
        return launched

    def refuses(*args: Any) -> UnityEnv:
        assert len(pids) == 3
        raise PlayerRefused("for the test")

    monkeypatch.setattr(several, "Launched", noted)
    monkeypatch.setattr(several, "UnityEnv", refuses)
    with pytest.raises(PlayerRefused):
        players("3DBall", 3)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_players_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a scene that begins with as many agents as its seed says."""

    def uneven(*args: Any) -> UnityEnv:
        env = UnityEnv(*args)
        env.spec = replace(env.spec, num_agents=3 + args[4].seed % 2)
        return env

    monkeypatch.setattr(several, "UnityEnv", uneven)
    with pytest.raises(PlayerRefused, match=r"differ.*--unity.max-agents 4"):
        players("Renew", 2)


def test_without_our_component_nobody_is_reset() -> None:
    with closing(players("3DBall", 2, args="--no-reset-channel")) as env:
        step = env.step(still(env.reset(0)))
        with pytest.raises(CannotReset, match=r"agents \[3, 15\] have no SharlAgent"):
            env.reset_agents(np.array([3, 15]))
        with pytest.raises(ValueError, match=r"no agents \[24\]; there are 0 to 23"):
            env.reset_agents(np.array([3, 24]))
        assert len(env.step(still(step)).ended.agent) == 0


def test_ports_are_one_after_the_other_and_the_editor_is_alone() -> None:
    port = free_port()
    with closing(players("Renew", 2, base_port=port)) as env:
        assert [each._link._port for each in env._players] == [port, port + 1]
    with pytest.raises(ValueError, match=r"--unity.players-per-worker 2; it must be 1 with the Editor"):
        make_env(EnvConfig("unity:editor", unity=UnityOptions(players_per_worker=2)))
