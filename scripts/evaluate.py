"""Evaluate: `python -m scripts.evaluate RUN` plays whole episodes with a run's saved policy, without noise."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import tyro

from core import checkpoint
from core.types import require
from envproc import EnvConfig, make_env
from envproc.env import EnvFailed, Place
from envproc.evaluator import copies_for, play
from scripts.command_line import UsageError, read_command_line
from scripts.runs import find_run

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
    runs_dir: Path = Path("runs")
    """where runs are kept"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage, 3 the environment failed."""
    try:
        options = read_command_line(Options, arguments, "python -m scripts.evaluate")
        require("--episodes", options.episodes, options.episodes >= 1, "at least 1")
        saved, parameters = checkpoint.load_policy(find_run(options.run, options.runs_dir))
        config = msgspec.convert(saved.env, EnvConfig)
        copies = copies_for(min(options.episodes, _MOST_AT_ONCE), saved.env_spec, config.copies)
        env = make_env(replace(config, copies=copies), Place(seed=options.seed))
    except (UsageError, ValueError, EnvFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | ValueError) else 3
    try:
        result = play(env, saved.policy_spec, parameters, options.episodes, options.seed)
    except EnvFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    finally:
        env.close()
    assert result is not None  # nobody interrupts it
    returns, lengths = (np.array(each) for each in result)
    print(f"return {returns.mean():.2f} +- {returns.std():.2f} over {len(returns)} episodes")
    print(f"lowest {returns.min():.2f}, highest {returns.max():.2f}, mean length {lengths.mean():.1f} decisions")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
