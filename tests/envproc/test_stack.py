"""Stacked against a model that keeps every frame of every episode."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.types import Action, ActionSpec, EnvSpec, FieldSpec, IntArray
from envproc import EnvConfig, make_env
from envproc.ball3d import Ball3D
from envproc.env import Ended, Env, HasPictures, HasStats, Picture, Step
from envproc.stack import Stacked
from tests.contracts import check_env
from tests.test_contracts import Walkers

AGENTS = 3
SHAPE = (2, 3, 1)
NOTHING = Action(np.zeros((0, 0), np.float32), np.zeros((0, 1), np.int64))


class Moment(NamedTuple):
    """Who ends and who decides in one step, in the order in which they stand there."""

    ending: list[int]
    deciding: list[int]


class Told:
    """What happens is written down; each frame has a number of its own, in shades by channel."""

    def __init__(self, moments: list[Moment]) -> None:
        fields = {"image": FieldSpec(SHAPE, "uint8"), "vector": FieldSpec((1,)), "ready": FieldSpec((2, 1, 1), stack=2)}
        self.spec = EnvSpec(fields, ActionSpec(branches=(2,)), AGENTS)
        self._moments = moments
        self.frames = 0
        self.calls: list[Any] = []

    def reset(self, seed: int) -> Step:
        self.calls.append(seed)
        self._left = iter(self._moments)
        return self.step(NOTHING)

    def step(self, action: Action) -> Step:
        self.calls.append(action)
        ending, deciding = next(self._left)
        ended = Ended(np.array(ending, np.int64), self._see(ending), *self._rewards(ending))
        return Step(np.array(deciding, np.int64), self._see(deciding), self._rewards(deciding)[0], ended)

    def reset_agents(self, agents: IntArray) -> None:
        self.calls.append(agents.tolist())

    def close(self) -> None:
        self.calls.append("close")

    def _rewards(self, agents: list[int]) -> tuple[Any, Any]:
        return np.array(agents, np.float32), np.zeros(len(agents), np.bool_)

    def _see(self, agents: list[int]) -> dict[str, Any]:
        number = self.frames + np.arange(len(agents))
        self.frames += len(agents)
        shade = np.array([0, 100])[:, None, None]
        image = (number[:, None, None, None] + shade + np.zeros(SHAPE, np.int64)).astype(np.uint8)
        ready = np.repeat(number[:, None], 2, axis=1).reshape(-1, 2, 1, 1).astype(np.float32)
        return {"image": image, "vector": number[:, None].astype(np.float32), "ready": ready}


class Model:
    """All frames of an agent's running episode; what it sees are the newest k, before the first: the first."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.episodes: list[list[Any]] = [[] for _ in range(AGENTS)]

    def see(self, agents: list[int], images: Any) -> Any:
        for agent, image in zip(agents, images, strict=True):
            self.episodes[agent].append(image.copy())
        seen = [
            np.concatenate(([frames[0]] * self.k + frames)[-self.k :])
            for frames in map(self.episodes.__getitem__, agents)
        ]
        return np.array(seen, np.uint8).reshape(len(agents), self.k * SHAPE[0], *SHAPE[1:])

    def end(self, agents: list[int]) -> None:
        for agent in agents:
            self.episodes[agent] = []


some = st.permutations(range(AGENTS)).flatmap(
    lambda order: st.integers(0, AGENTS).map(lambda count: list(order)[:count])
)
moments = st.lists(st.builds(Moment, st.one_of(st.just([]), some), st.one_of(st.just([0, 1, 2]), some)), max_size=12)


@given(first=some, then=moments, again=st.booleans(), k=st.integers(1, 4))
def test_everybody_sees_the_newest_frames_of_the_own_episode(
    first: list[int], then: list[Moment], again: bool, k: int
) -> None:
    all_of_it = [Moment([], first), *then]
    plain = Told(all_of_it)
    env: Env = Stacked(Told(all_of_it), k)
    for seed in range(1 + again):
        model = Model(k)
        for number, (ending, deciding) in enumerate(all_of_it):
            step, given = (each.step(NOTHING) if number else each.reset(seed) for each in (env, plain))
            assert step.ended.agent.tolist() == ending and step.agent.tolist() == deciding
            assert step.ended.reward.tolist() == ending and step.reward.tolist() == deciding
            last = model.see(ending, given.ended.obs["image"])
            model.end(ending)
            now = model.see(deciding, given.obs["image"])
            for seen, stacks, inner in ((step.ended.obs, last, given.ended.obs), (step.obs, now, given.obs)):
                assert seen["image"].dtype == np.uint8 and np.array_equal(seen["image"], stacks)
                assert np.array_equal(seen["vector"], inner["vector"]) and np.array_equal(seen["ready"], inner["ready"])


def test_the_spec_says_what_is_stacked() -> None:
    fields = {
        "image": FieldSpec((8, 3, 1), "uint8", stack=4),
        "vector": FieldSpec((1,)),
        "ready": FieldSpec((2, 1, 1), stack=2),
    }
    assert Stacked(Told([]), 4).spec == EnvSpec(fields, ActionSpec(branches=(2,)), AGENTS)


def test_all_else_goes_to_the_inner_environment() -> None:
    told = Told([Moment([], [0])] * 2)
    env = Stacked(told, 2)
    env.reset(7)
    env.reset_agents(np.array([1, 2]))
    action = Action(np.zeros((1, 0), np.float32), np.ones((1, 1), np.int64))
    env.step(action)
    env.close()
    assert told.calls == [7, NOTHING, [1, 2], action, "close"]


class WithStats(Told):
    def stats(self) -> dict[str, float]:
        return {"frames": float(self.frames)}


def test_it_has_figures_to_show_if_the_inner_environment_has() -> None:
    assert not isinstance(Stacked(Told([]), 2), HasStats)
    env: Env = Stacked(WithStats([]), 2)
    assert isinstance(env, HasStats) and env.stats() == {"frames": 0.0}


class Drawn(Told):
    pictures_per_s = 7.0

    def picture(self) -> Picture:
        return np.full((1, 1, 3), self.frames, np.uint8)


def test_it_draws_itself_if_the_inner_environment_does() -> None:
    assert not isinstance(Stacked(Told([]), 2), HasPictures)
    env: Env = Stacked(Drawn([Moment([], [0, 1])]), 2)
    env.reset(0)
    assert isinstance(env, HasPictures) and env.pictures_per_s == 7
    assert env.picture().tolist() == [[[2, 2, 2]]]


class Filmed(Walkers):
    """Walkers that come and go, seen by a camera of two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = EnvSpec({"image": FieldSpec((1, 1, 2))}, self.spec.action, self.num)

    def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
        step = super().tell(ends)
        now, last = ({"image": obs["vector"].reshape(-1, 1, 1, 2)} for obs in (step.obs, step.ended.obs))
        return step._replace(obs=now, ended=step.ended._replace(obs=last))


def test_the_contract_holds_and_a_forced_reset_of_one_touches_nobody_else() -> None:
    check_env(Stacked(Filmed(), 3), steps=100)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (0, "--frame-stack 0; it must be at least 1"),
        (-2, "--frame-stack -2; it must be at least 1"),
        (2, "--frame-stack 2, but there is no image to stack among .*'vector'.*leave it at 1"),
    ],
)
def test_a_stack_that_makes_no_sense_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, stack: int, message: str
) -> None:
    still_open: set[Ball3D] = set()

    class Watched(Ball3D):
        def __init__(self, areas: int) -> None:
            super().__init__(areas)
            still_open.add(self)

        def close(self) -> None:
            still_open.remove(self)

    monkeypatch.setattr("envproc.Ball3D", Watched)
    with pytest.raises(ValueError, match=message) as caught:
        make_env(EnvConfig("3dball", frame_stack=stack))
    assert "\n" not in str(caught.value)
    assert not still_open


def test_one_frame_is_the_environment_itself() -> None:
    assert type(make_env(EnvConfig("3dball", frame_stack=1))) is Ball3D
