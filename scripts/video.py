"""Videos of a policy at play: one environment, a picture a step, at the environment's own speed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

from core.acting import Policy, PolicySpec
from core.types import FloatArray
from envproc.env import Env, HasPictures, Picture, refuse_bad_numbers
from scripts.command_line import UsageError

ENDINGS = (".mp4", ".gif")
_FASTEST_GIF = 50.0
"""pictures a second; players slow down whatever is faster"""


def check_packages() -> None:
    """Raises UsageError if one is missing."""
    for package in ("imageio", "imageio_ffmpeg", "PIL"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UsageError(f'--video needs {error.name}, which is missing: pip install "sharl[video]"') from error


def film(
    env: Env, policy_spec: PolicySpec, parameters: FloatArray, seed: int, seconds: float | None
) -> Iterator[Picture]:
    """Pictures of so many seconds, whatever ends or begins in them; None: of the first agent's first episode."""
    assert isinstance(env, HasPictures)
    policy = Policy(policy_spec, env.spec.action, env.spec.num_agents, parameters, seed=0)
    most = None if seconds is None else max(round(seconds * env.pictures_per_s), 1)
    watched: int | None = None
    step = env.reset(seed)
    for number in count(1):
        yield env.picture()
        if number == most:
            return
        if watched is None and len(step.agent):
            watched = int(step.agent[0])
        step = env.step(policy.to_env(policy.act(step.obs, step.agent)))
        refuse_bad_numbers(step)
        policy.restart(step.ended.agent)
        if most is None and watched in step.ended.agent.tolist():
            return


def save(file: Path, pictures: Iterator[Picture], per_s: float) -> int:
    """Write them to an .mp4 or a .gif, one after the other. Returns how many there were."""
    if file.suffix == ".gif":
        return _save_gif(file, pictures, per_s)
    import imageio.v2 as imageio

    number = 0
    # the codec takes even sizes; without the 2, imageio would scale up to multiples of 16
    writer: Any = imageio.get_writer(file, format="FFMPEG", mode="I", fps=per_s, macro_block_size=2)
    with closing(writer):
        for number, picture in enumerate(pictures, start=1):  # noqa: B007 - counted
            height, width = (size // 2 * 2 for size in picture.shape[:2])
            writer.append_data(picture[:height, :width])
    return number


def _save_gif(file: Path, pictures: Iterator[Picture], per_s: float) -> int:
    from PIL import Image

    every = ceil(per_s / _FASTEST_GIF)
    number = 0

    def frames() -> Iterator[Image.Image]:
        nonlocal number
        for number, picture in enumerate(pictures, start=1):
            kept, rest = divmod(number - 1, every)
            if rest == 0:
                frame = Image.fromarray(picture)
                # a gif counts hundredths of a second: round when a frame ends, not how long it lasts
                ends, begins = (round(100 * every * each / per_s) for each in (kept + 1, kept))
                frame.info["duration"] = 10 * (ends - begins)
                yield frame

    kept_frames = frames()
    next(kept_frames).save(file, save_all=True, append_images=kept_frames, loop=0)
    return number
