"""What of a running job can be changed (`python -m scripts.ctl set KEY VALUE`), and what it is by now."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

import msgspec

from core.steering import Change
from core.types import changeable_fields
from scripts.options import Options

_After = Callable[[Options[Any]], Options[Any]]
"""from the options that there are to those with a change"""


class Settings:
    """The options of a run as they are now."""

    def __init__(self, options: Options[Any], changed: Callable[[], None]) -> None:
        """`changed` is called after each change, and writes it down. It may raise OSError; then there was none."""
        self.options = options
        self._changed = changed

    def refuse(self, key: str, text: str) -> Change:
        """In place of `change`, where the others would not hear of it. Raises ValueError."""
        raise ValueError(f"{key} cannot be set while several learners go on together; stop, and --resume with {text}")

    def change(self, key: str, text: str) -> Change:
        """What it would be to set `key` to what `text` says; nothing is changed yet.

        Raises ValueError if there is no such key, it is fixed for the whole run, or the value cannot be meant; OSError
        if it could not be kept.
        """
        group, _, name = key.partition(".")
        if group == "env" and name:
            return self._parameter(name, text)
        if key not in self._keys():
            close = difflib.get_close_matches(key, self._keys(), n=1)
            hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(self._keys())}, env.NAME"
            raise ValueError(f"{key} cannot be set while the run goes on; {hint}")
        kind = get_type_hints(type(getattr(self.options, group)))[name]
        try:
            value = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(f"{key} {text}: it must be a {kind.__name__}") from error

        def after(options: Options[Any]) -> Options[Any]:
            return replace(options, **{group: replace(getattr(options, group), **{name: value})})

        changed = after(self.options)
        return Change(value, changed.algo, self._keeper(after)) if group == "algo" else self._of_envs(value, after)

    def _parameter(self, name: str, text: str) -> Change:
        def after(options: Options[Any]) -> Options[Any]:
            others = [each for each in options.env_params if each.partition("=")[0] != name]
            return replace(options, env_params=(*others, f"{name}={text}"))

        return self._of_envs(after(self.options).env_config.parameters()[name], after)

    def _of_envs(self, value: Any, after: _After) -> Change:
        self._changed()  # nothing is yet; but if that cannot be written, it is known before they hear of it
        return Change(value, None, self._keeper(after))

    def _keys(self) -> list[str]:
        groups = ("algo", "unity") if self.options.env.startswith("unity:") else ("algo",)
        return [f"{group}.{name}" for group in groups for name in changeable_fields(getattr(self.options, group))]

    def _keeper(self, after: _After) -> Callable[[], None]:
        def keep() -> None:
            before, self.options = self.options, after(self.options)  # others may have been kept meanwhile
            try:
                self._changed()
            except OSError:
                self.options = before
                raise

        return keep
