"""Videos: what is filmed, what comes out of the files again, and what is said where there can be none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image, ImageSequence

from core import checkpoint
from core.acting import Noise, PolicySpec
from core.checkpoint import SavedPolicy
from core.net import NetSpec, num_parameters
from core.types import Action, FloatArray
from envproc import EnvConfig, make_env
from envproc.ball3d import Ball3D
from envproc.env import Picture, Step
from envproc.evaluator import play
from scripts import evaluate, video
from scripts.command_line import UsageError
from tests.test_contracts import Walkers

POLICY = PolicySpec(NetSpec({"vector": (8,)}, hidden=(), outputs=2, normalize=False), "tanh", Noise())
NOTHING: FloatArray = np.zeros(num_parameters(POLICY.net), np.float32)
"""a policy that never turns a plate: every ball falls soon"""
STILL = Action(np.zeros((12, 2), np.float32), np.zeros((12, 0), np.int64))


def save_run(home: Path, env: str, net: NetSpec, head: Any = "tanh", **config: Any) -> list[str]:
    """A run whose policy has nothing but zeros; the command line that names it."""
    spec = make_env(EnvConfig(env, **config)).spec
    saved = SavedPolicy({"name": env, **config}, spec, PolicySpec(net, head))
    checkpoint.save(home / "run", saved, np.zeros(num_parameters(net), np.float32), {})
    return ["run", "--runs-dir", str(home)]


def grey(*shades: int, shape: tuple[int, int] = (48, 64)) -> Iterator[Picture]:
    return (np.full((*shape, 3), shade, np.uint8) for shade in shades)


def frames_of(file: Path) -> tuple[list[Picture], float]:
    """An mp4's, and how many a second."""
    with imageio.get_reader(file, format="FFMPEG", mode="I") as reader:
        film: Any = reader
        return [np.asarray(frame) for frame in film], film.get_meta_data()["fps"]


def test_an_mp4_has_every_picture_in_order_at_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    shades = [0, 50, 100, 150, 200, 250, 30]
    assert video.save(tmp_path / "a.mp4", grey(*shades), 7.5) == 7
    frames, rate = frames_of(tmp_path / "a.mp4")
    assert rate == pytest.approx(7.5)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 7
    assert [frame.mean() for frame in frames] == pytest.approx(shades, abs=4)


def test_an_odd_row_or_column_is_left_out_of_an_mp4(tmp_path: Path) -> None:
    video.save(tmp_path / "a.mp4", grey(9, 99, shape=(49, 63)), 10)
    assert [frame.shape for frame in frames_of(tmp_path / "a.mp4")[0]] == [(48, 62, 3)] * 2


def shown(file: Path) -> list[tuple[int, float]]:
    """Of each frame of a gif, how long it is shown, in milliseconds, and its mean shade."""
    with Image.open(file) as film:
        frames = ImageSequence.Iterator(film)  # the same object over and over
        return [(frame.info["duration"], float(np.asarray(frame.convert("RGB")).mean())) for frame in frames]


@pytest.mark.parametrize(("rate", "durations"), [(10.0, [100] * 6), (30.0, [30, 40, 30, 30, 40, 30])])
def test_a_gif_has_every_picture_in_order_and_lasts_as_long(tmp_path: Path, rate: float, durations: list[int]) -> None:
    shades = [0, 50, 100, 150, 200, 250]
    assert video.save(tmp_path / "a.gif", grey(*shades), rate) == 6
    assert shown(tmp_path / "a.gif") == list(zip(durations, shades, strict=True))


def test_a_gif_of_something_faster_leaves_pictures_out_and_lasts_as_long(tmp_path: Path) -> None:
    assert video.save(tmp_path / "a.gif", grey(*range(0, 250, 10)), 125.0) == 25
    durations, shades = zip(*shown(tmp_path / "a.gif"), strict=True)
    assert shades == tuple(range(0, 250, 30))
    assert sum(durations) == 220  # 9 times 3 of 125 a second, rounded


def test_the_film_ends_with_the_first_agents_first_episode_or_when_its_time_is_up() -> None:
    env, steps = Ball3D(), 1
    env.reset(3)
    while 0 not in env.step(STILL).ended.agent:
        steps += 1
    whole = list(video.film(Ball3D(), POLICY, NOTHING, 3, None))
    assert len(whole) == steps < 40
    longer = list(video.film(Ball3D(), POLICY, NOTHING, 3, 4.44))
    assert len(longer) == 44
    assert all(np.array_equal(a, b) for a, b in zip(whole, longer, strict=False))
    assert len(list(video.film(Ball3D(), POLICY, NOTHING, 3, 1e-3))) == 1


class LateWalkers(Walkers):
    """Nobody is asked for anything at first. Draws the time."""

    pictures_per_s = 10.0

    def tell(self, ends: list[tuple[int, list[float], bool]]) -> Step:
        step = super().tell(ends)
        if self.time:
            return step
        self.deciding = self.deciding[:0]
        return step._replace(agent=step.agent[:0], obs={"vector": step.obs["vector"][:0]}, reward=step.reward[:0])

    def picture(self) -> Picture:
        return np.full((2, 2, 3), self.time, np.uint8)


def test_the_first_agent_is_the_first_that_is_asked_for_an_action() -> None:
    env = LateWalkers()
    net = NetSpec({"vector": (2,)}, hidden=(), outputs=6, normalize=False)
    pictures = video.film(env, PolicySpec(net, "stochastic"), np.zeros(num_parameters(net), np.float32), 1, None)
    times = [int(picture[0, 0, 0]) for picture in pictures]
    assert times == list(range(len(times))) and 3 <= len(times) <= 12


def test_evaluating_3dball_makes_a_video_at_ten_pictures_a_second_and_a_file_of_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path, "3dball", POLICY.net)
    file, figures = tmp_path / "ball.mp4", tmp_path / "ball.json"
    assert evaluate.main([*run, "--video", str(file), "--json", str(figures), "--episodes", "30"]) == 0
    frames, rate = frames_of(file)
    assert rate == 10 and frames[0].shape == (480, 640, 3)
    said = capsys.readouterr().out
    assert f"video {file}: {len(frames) / 10:.1f} s, {len(frames)} pictures" in said

    found = json.loads(figures.read_text())
    returns, lengths = played = play(Ball3D(areas=3), POLICY, NOTHING, 30, 1_000_000) or ([], [])
    assert (found["returns"], found["lengths"]) == played and found["episodes"] == len(returns) == 36
    assert (found["run"], found["env"], found["seed"]) == ("run", "3dball", 1_000_000)
    assert found["return_mean"] == pytest.approx(np.mean(returns)) and found["length_mean"] == np.mean(lengths)
    low, high = found["return_iqm_interval"]
    assert low < found["return_iqm"] < high
    assert f"interquartile mean {found['return_iqm']:.2f}, with a confidence of 95 % from {low:.2f} to" in said


def test_of_several_copies_of_a_gymnasium_environment_one_is_filmed_at_its_own_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pygame")
    net = NetSpec({"vector": (4,)}, hidden=(), outputs=2, normalize=False)
    run = save_run(tmp_path, "gymnasium:CartPole-v1", net, "greedy", copies=3)
    assert evaluate.main([*run, "--video", str(tmp_path / "pole.mp4"), "--episodes", "1"]) == 0
    assert "confidence" not in capsys.readouterr().out  # of one episode
    frames, rate = frames_of(tmp_path / "pole.mp4")
    assert rate == 50 and frames[0].shape == (400, 600, 3)
    assert 5 < len(frames) < 50 and np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--video a.avi", "--video a.avi: the name must end in .mp4 or .gif"),
        ("--video nowhere/a.gif", "--video nowhere/a.gif: there is no directory nowhere; make it first"),
        ("--json a.txt", "--json a.txt: the name must end in .json"),
        ("--video-seconds 3", "--video-seconds 3.0; it must be left out without --video"),
        ("--video a.gif --video-seconds 0", "--video-seconds 0.0; it must be above 0"),
        ("--video a.gif", "envproc.toys:Masked cannot draw itself; that takes pictures_per_s and picture()"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = save_run(tmp_path, "envproc.toys:Masked", NetSpec({"vector": (1,)}, (), 2), "greedy")
    assert evaluate.main([*run, *options.split()]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("package", ["imageio", "imageio_ffmpeg", "PIL"])
def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf'--video needs {package}, which is missing: pip install "sharl\[video\]"'):
        video.check_packages()
