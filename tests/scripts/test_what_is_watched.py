"""What somebody who watches sees: which environment, which policy, which returns."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.acting import Policy, PolicySpec
from core.checkpoint import SavedPolicy
from core.net import NetSpec, num_parameters
from core.types import ActionSpec, EnvSpec, FloatArray
from core.weights import Follower, Weights
from envproc import EnvConfig
from envproc import evaluator as evaluation
from envproc.ball3d import Ball3D
from envproc.env import Ended, Place, Step
from envproc.unity.options import UnityOptions
from scripts import watch
from scripts.command_line import UsageError
from tests.process.toys import Drawn


def policy_of(inputs: int, outputs: int) -> PolicySpec:
    return PolicySpec(NetSpec({"vector": (inputs,)}, hidden=(), outputs=outputs, normalize=False), "tanh")


def saved(env: EnvConfig) -> SavedPolicy:
    return SavedPolicy(asdict(env), EnvSpec({}, ActionSpec(), 1), policy_of(1, 1))


def test_each_step_is_that_of_the_newest_policy() -> None:
    policy = policy_of(3, 1)
    parameters: FloatArray = np.zeros(num_parameters(policy.net), np.float32)
    with Weights.create(len(parameters)) as weights:
        weights.publish(parameters, 1)
        steps = watch.play(Drawn(1), policy, Follower(weights))
        next(steps)
        assert next(steps).reward.tolist() == pytest.approx([0.1] * 8)
        parameters[-1] = 10.0  # the bias: the action becomes 1 and costs as much
        weights.publish(parameters, 2)
        assert next(steps).reward.tolist() == pytest.approx([-0.9] * 8)


def test_the_returns_are_those_of_an_evaluation() -> None:
    spec = policy_of(8, 2)
    parameters: FloatArray = np.zeros(num_parameters(spec.net), np.float32)
    evaluated = evaluation.play(Ball3D(), spec, parameters, episodes=12, seed=3)
    assert evaluated is not None
    env, returns = Ball3D(), watch.Returns(12)
    policy = Policy(spec, env.spec.action, 12, parameters, seed=0)
    step = env.reset(3)
    first: dict[int, float] = {}
    while len(first) < 12:
        first = dict(returns.add(step)) | first
        step = env.step(policy.to_env(policy.act(step.obs, step.agent)))
    assert sorted(first.values()) == pytest.approx(sorted(evaluated[0]))


def happens(deciding: dict[int, float], ending: dict[int, float]) -> Step:
    """Who asks for an action and who has ended, each with a reward."""

    def rewards(of: dict[int, float]) -> tuple[Any, Any]:
        return np.array(list(of), np.int64), np.array(list(of.values()), np.float32)

    agents, earned = rewards(ending)
    return Step(rewards(deciding)[0], {}, rewards(deciding)[1], Ended(agents, {}, earned, agents >= 0))


def test_a_reward_before_the_first_decision_and_an_end_of_nothing_do_not_count() -> None:
    returns = watch.Returns(2)
    assert returns.add(happens({0: 9.0}, {})) == []
    assert returns.add(happens({0: 1.0, 1: 9.0}, {1: 9.0})) == []
    assert str(returns) == "agent 0: 1.00"
    assert returns.add(happens({0: 9.0}, {0: 2.0, 1: 5.0})) == [(0, 3.0), (1, 5.0)]
    assert str(returns) == "agent 0: 0.00  last 2: 4.00"


def test_a_unity_player_is_started_with_a_window_at_time_scale_1_and_on_a_port_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[EnvConfig, Place]] = []
    monkeypatch.setattr(watch, "make_env", lambda *what: asked.append(what))
    options = UnityOptions(time_scale=20.0, no_graphics=True, base_port=6000)
    watch.make_stage(saved(EnvConfig("unity:Build", copies=4, behavior="3DBall", unity=options, params=("gravity=4",))))
    seen = UnityOptions(time_scale=1.0, no_graphics=False, base_port=0)
    assert asked[0][0] == EnvConfig("unity:Build", copies=1, behavior="3DBall", unity=seen, params=("gravity=4",))
    assert not asked[0][1].pictures


def test_of_the_editor_there_is_one() -> None:
    with pytest.raises(UsageError, match="there is one Editor"):
        watch.make_stage(saved(EnvConfig("unity:editor")))


def test_where_nothing_goes_on_there_is_nothing_to_watch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        ([], "is going on"),
        (["--run", "nobody"], "there is no run"),
        (["--episodes=-1"], "at least 0"),
    ):
        assert watch.main([*arguments, "--runs-dir", str(tmp_path)]) == 2
        told = capsys.readouterr()
        assert says in told.err and told.err.count("\n") == 1 and not told.out
