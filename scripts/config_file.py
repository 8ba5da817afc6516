"""Options as a TOML file: `--config FILE` reads it, `--save-config FILE` writes it.

The keys are those of the command line with underscores, the tables [algo] and [unity]:

    env = "unity:path/to/Build"
    workers = 4

    [algo]
    hidden = [128, 128]
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import sys
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from scripts.command_line import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Filled = TypeVar("Filled")
_WIDTH = 118


def read(file: Path) -> dict[str, Any]:
    """What stands in a TOML file. Raises UsageError."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # tomllib's own error is a ValueError
        raise UsageError(f"--config {file} cannot be read: {' '.join(str(error).split())}") from error


def fill_in(default: Filled, table: dict[str, Any], file: Path) -> Filled:
    """`default`, a dataclass of options, with what `table` says instead. Raises UsageError, naming file and key."""
    try:
        return _fill_in(default, table, "", list(_keys(default)))
    except (UsageError, ValueError) as error:
        raise UsageError(f"{file}: {error}") from error


def _fill_in(default: Filled, table: dict[str, Any], prefix: str, known: list[str]) -> Filled:
    hints = typing.get_type_hints(type(default))
    found: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + name
        if not any(each == key or each.startswith(f"{key}.") for each in known):
            raise UsageError(f"there is no option {key!r}; did you mean {_nearest(key, known)!r}?")
        old = getattr(default, name)
        if not is_dataclass(old):
            found[name] = _typed(key, value, hints[name])
        elif isinstance(value, dict):
            found[name] = _fill_in(old, value, f"{key}.", known)
        else:
            raise UsageError(f"{key} = {value!r}; it must be a table, [{key}]")
    return replace(default, **found)  # type: ignore[type-var]


def _keys(options: Any, prefix: str = "") -> Iterator[str]:
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{each.name}.")
        else:
            yield prefix + each.name


def _nearest(key: str, known: list[str]) -> str:
    """By its whole name, or because it stands in the wrong table."""
    same = [each for each in known if each.rpartition(".")[2] == key.rpartition(".")[2]]
    return (same or difflib.get_close_matches(key, known, n=1, cutoff=0.0))[0]


def _typed(key: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind, dec_hook=lambda wanted, given: wanted(given))
    except msgspec.ValidationError as error:
        wish = str(error).replace("`", "")
        if typing.get_origin(kind) is Literal:
            wish = f"there is {', '.join(typing.get_args(kind))}"
        raise UsageError(f"{key} = {value!r}: {wish[0].lower() + wish[1:]}") from error


def write(options: Any, file: Path, title: str) -> None:
    """All options with their help, as `read` and `fill_in` take them. Raises UsageError, and never overwrites."""
    text = "\n".join([f"# {title}", "", *_lines(options, "")])
    try:
        with open(file, "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise UsageError(f"there is a file {file} already; give another --save-config") from error
    except OSError as error:
        raise UsageError(f"--save-config {file} cannot be written: {error}") from error


def _lines(options: Any, table: str) -> Iterator[str]:
    means = _help(type(options))
    tables = []
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            tables.append(each.name)  # below: what follows a table's head is its own
            continue
        yield from textwrap.wrap(means.get(each.name, ""), _WIDTH, initial_indent="# ", subsequent_indent="# ")
        yield f"# {each.name} is not set" if value is None else f"{each.name} = {_as_toml(value)}"
        yield ""
    for name in tables:
        yield f"[{table}{name}]"
        yield from _lines(getattr(options, name), f"{table}{name}.")


def _as_toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case tuple():
            return f"[{', '.join(map(_as_toml, value))}]"
    # a TOML string is a JSON string but for one letter
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _help(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, on one line; a subclass's is the one that counts."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if is_dataclass(each):
            (definition,) = ast.parse(inspect.getsource(each)).body
            assert isinstance(definition, ast.ClassDef)
            for field, below in pairwise(definition.body):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                        found[name] = " ".join(text.split())
    return found
