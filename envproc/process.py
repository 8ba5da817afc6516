"""What every process of envproc does around its work: die with its parent, and tell why it failed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import msgspec

from core.control import Answer, Client, Failed, Set
from envproc.env import CannotSet, Env, EnvFailed, Refused, change

_PARENT = int(os.environ.get("SHARL_PARENT", os.getppid()))
"""the main process. Told, not asked for: when one asks, it may be gone already and another one be the parent"""


class Config(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def control(self) -> str: ...


class Work(Protocol):
    def run(self) -> None: ...
    def close(self) -> None: ...


def serve(config_type: type[Config], work_type: Callable[[Any, Client], Work]) -> NoReturn:
    """Do the work that the command line's JSON describes, and leave: with exit code 1 if anything was raised.

    Anything: environments belong to users, and a SystemExit of theirs is as much a failure as an exception. And leave
    at once, for a thread of theirs would keep the process alive.
    """
    die_with_parent()
    config = msgspec.json.decode(sys.argv[1], type=config_type)
    client = Client(config.control, config.name)
    code = 0
    work: Work | None = None
    try:
        with contextlib.ExitStack() as opened:  # closed after the error was told: what failed may well hang in close()
            try:
                work = work_type(config, client)
                opened.callback(work.close)
                work.run()
            except BaseException as error:  # noqa: BLE001 - told to the main process, whatever it is
                client.send(_failure(config.name, error, at_birth=work is None))
                code = 1
    except BaseException:  # noqa: BLE001 - from close(), when all the work is done: told in the log
        traceback.print_exc()
        code = 1
    client.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def obey_set(order: Set, env: Env, client: Client) -> None:
    """Change the environment, and answer."""
    try:
        change(env, order.key, order.value)
    except CannotSet as error:
        client.send(Answer(client.worker, order.request, False, str(error)))
    else:
        client.send(Answer(client.worker, order.request, True, f"{order.key} = {order.value:g}"))


def _failure(name: str, error: BaseException, at_birth: bool) -> Failed:
    is_refusal = isinstance(error, ValueError | MemoryError | RuntimeError | OSError)
    if isinstance(error, EnvFailed):
        is_refusal = isinstance(error, Refused)
    said = _said(error)
    first, _, rest = said.partition("\n")
    if not isinstance(error, EnvFailed):
        rest = traceback.format_exc()
    refusal = _shorten(said, 2000) if at_birth and is_refusal else ""
    return Failed(name, _shorten(f"{type(error).__name__}: {first}", 500), _shorten(rest, 12_000), refusal)


def _said(error: BaseException) -> str:
    """What it says of itself; one that an environment made may raise another one when it is asked."""
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - whatever that is
        return f"its text cannot be had ({type(other).__name__})"


def _shorten(text: str, most: int) -> str:
    """A message has a limit; of a traceback both ends matter."""
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"


def parent_is_gone() -> bool:
    """Whether the main process has died. A worker that does not hang sees it here on every system."""
    return os.getppid() != _PARENT


def die_with_parent() -> None:
    """On Linux the kernel kills this process when its parent goes, however it goes and whatever hangs here."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if parent_is_gone():  # it went before we had asked
            sys.exit(1)
