"""What of a running job was set is kept, whatever else is being set meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from scripts.options import Options, parse
from scripts.settings import Settings


def opened(changed: Callable[[], None] = lambda: None) -> Settings:
    _, options = parse(["ddpg", "--env-params", "gravity=9", "speed=1"])
    return Settings(options, changed)


def test_of_several_that_are_pending_at_once_each_is_kept() -> None:
    settings = opened()
    keys = (("env.gravity", "4"), ("env.speed", "2"), ("algo.actor_lr", "1e-4"), ("algo.tau", "0.5"))
    changes = [settings.change(*each) for each in keys]
    for change in reversed(changes):
        change.keep()
    assert sorted(settings.options.env_params) == ["gravity=4", "speed=2"]
    assert (settings.options.algo.actor_lr, settings.options.algo.tau) == (1e-4, 0.5)


def test_what_is_only_asked_for_changes_nothing() -> None:
    settings = opened()
    before = settings.options
    assert replace(before.algo, actor_lr=1e-4) == settings.change("algo.actor_lr", "1e-4").algo
    assert settings.options == before


def test_what_could_not_be_written_down_is_as_before() -> None:
    def full() -> None:
        raise OSError("no space")

    settings = opened(full)
    before: Options[object] = settings.options
    with pytest.raises(OSError, match="no space"):
        settings.change("algo.actor_lr", "1e-4").keep()
    assert settings.options == before
