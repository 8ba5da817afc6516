"""Evaluate: `python -m scripts.evaluate RUN` plays whole episodes with a run's saved policy, without noise.

`--video FILE` shows how it plays.
"""

from __future__ import annotations

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import json
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import tyro

from core.types import require
from envproc import EnvConfig, make_env
from envproc.env import EnvFailed, HasPictures, Place
from envproc.evaluator import copies_for, play
from scripts import video
from scripts.command_line import UsageError, check_output, read_command_line
from scripts.returns import interquartile_mean, interval_of_interquartile_mean
from scripts.runs import find_run, kept_policy

_MOST_AT_ONCE = 96
"""agents that play side by side"""


@dataclass(frozen=True)
class Options:
    """Play whole episodes with a run's saved policy, without noise."""

    run: Annotated[str, tyro.conf.Positional]
    """name of the run, or its directory"""
    episodes: int = 100
    """play at least so many"""
    seed: int = 1_000_000
    """of the environment; training and its evaluations use others"""
    json: Path | None = None
    """file for the figures, with every single return and length"""
    video: Path | None = None
    """file, .mp4 or .gif, for a video of one environment copy; it is made first"""
    video_seconds: float | None = None
    """length of the video; without it, the first agent's first episode"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""

    def check(self) -> None:
        """Raises ValueError or UsageError, in one line, for the first option that cannot be meant."""
        require("--episodes", self.episodes, self.episodes >= 1, "at least 1")
        require("--seed", self.seed, 0 <= self.seed < 2**32, "at least 0, below 2**32")
        if self.json is not None:
            check_output("--json", self.json, ".json")
        if self.video is not None:
            check_output("--video", self.video, *video.ENDINGS)
            video.check_packages()
        if (seconds := self.video_seconds) is not None:
            require("--video-seconds", seconds, isfinite(seconds) and seconds > 0, "above 0")
            require("--video-seconds", seconds, self.video is not None, "left out without --video")


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage, 3 the environment failed."""
    with ExitStack() as opened:
        try:
            options = read_command_line(Options, arguments, "python -m scripts.evaluate")
            options.check()
            directory = find_run(options.run, options.runs_dir)
            saved, parameters = kept_policy(directory)
            config = msgspec.convert(saved.env, EnvConfig)
            stage = None
            if options.video is not None:
                stage = make_env(replace(config, copies=1), Place(seed=options.seed, pictures=True))
                opened.enter_context(closing(stage))
            copies = copies_for(min(options.episodes, _MOST_AT_ONCE), saved.env_spec, config.copies)
            env = make_env(replace(config, copies=copies), Place(seed=options.seed))
            opened.enter_context(closing(env))
        except (UsageError, ValueError, EnvFailed) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UsageError | ValueError) else 3
        try:
            if options.video is not None:
                assert isinstance(stage, HasPictures)
                pictures = video.film(stage, saved.policy_spec, parameters, options.seed, options.video_seconds)
                number = video.save(options.video, pictures, stage.pictures_per_s)
                print(f"video {options.video}: {number / stage.pictures_per_s:.1f} s, {number} pictures", flush=True)
            result = play(env, saved.policy_spec, parameters, options.episodes, options.seed)
        except EnvFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    assert result is not None  # nobody interrupts it
    figures = _figures(*result)
    if options.json is not None:
        about = {"run": directory.resolve().name, "env": config.name, "seed": options.seed}
        options.json.write_text(json.dumps({**about, **figures}) + "\n")
    _show(figures)
    return 0


def _figures(returns: list[float], lengths: list[int]) -> dict[str, Any]:
    each = np.array(returns)
    return {
        "episodes": len(returns),
        "return_mean": float(each.mean()),
        "return_std": float(each.std()),
        "return_iqm": interquartile_mean(each),
        "return_iqm_interval": interval_of_interquartile_mean(each) if len(each) > 1 else None,
        "return_min": float(each.min()),
        "return_max": float(each.max()),
        "length_mean": float(np.mean(lengths)),
        "returns": returns,
        "lengths": lengths,
    }


def _show(figures: dict[str, Any]) -> None:
    print("return {return_mean:.2f} +- {return_std:.2f} over {episodes} episodes".format(**figures))
    if figures["return_iqm_interval"] is not None:  # one episode tells nothing of how others go
        low, high = figures["return_iqm_interval"]
        print(f"interquartile mean {figures['return_iqm']:.2f}, with a confidence of 95 % from {low:.2f} to {high:.2f}")
    print(
        "lowest {return_min:.2f}, highest {return_max:.2f}, mean length {length_mean:.1f} decisions".format(**figures)
    )


if __name__ == "__main__":
    run_main(main)
