"""The player's process: find it, start it so that it dies with us, say why it ended, end it."""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from envproc.env import EnvFailed, Place, Refused
from envproc.unity.options import UnityOptions
from envproc.unity.rpc import PlayerServer

EDITOR = "editor"
_EDITOR_PORT = 5004

_LOG_LINES, _LOG_BYTES = 10, 2**16
_TIED = str(Path(__file__).with_name("tied.py"))
_GRACE_S = 1.5
"""for a player to quit when it is told to"""


class PlayerDied(EnvFailed):
    """The player's process ended by itself, or closed the connection."""


class PlayerHangs(EnvFailed):
    """The player did not answer within its time."""


class PlayerRefused(Refused):
    """There is no such player, or what it says of itself does not fit what was asked for."""


def find_player(path: str) -> Path:
    """The program meant by `path`: a file, with or without its ending, or the folder of a build.

    Raises PlayerRefused, in one line, if there is none or it may not be run.
    """
    given = Path(os.path.expanduser(path))
    endings = (".x86_64", ".x86", ".exe", "")
    found = [each for each in (Path(f"{given}{ending}") for ending in endings) if each.is_file()]
    if given.is_dir() and not found:
        found = sorted(each for each in given.iterdir() if each.suffix in endings[:-1] and each.is_file())
        if len(found) > 1:
            raise PlayerRefused(f"{path} holds {', '.join(each.name for each in found)}; name the one to run")
    if not found:
        beside = [each for each in given.parent.glob("*") if each != given]
        around = [each.name for each in beside if each.is_dir()] + [e.stem for e in beside if e.suffix in endings[:-1]]
        near = difflib.get_close_matches(given.name, around, n=1)
        hint = f"did you mean {given.parent / near[0]}?" if near else "give the path of the built player"
        raise PlayerRefused(f"no Unity player at {path}; {hint}")
    if not os.access(found[0], os.X_OK | os.R_OK):
        raise PlayerRefused(f"{found[0]} may not be run; allow it with: chmod +x {found[0]}")
    return found[0].resolve()


class Player:
    """One player, and the files that it writes: <logs>/player-<index>.log (Unity's own) and .out (what it prints)."""

    def __init__(self, program: Path, port: int, index: int, logs: str, no_graphics: bool, args: Sequence[str]) -> None:
        """Start `program`, which is to call 127.0.0.1:`port`. Without `logs`, they go to a temporary directory."""
        self._temporary = None if logs else tempfile.TemporaryDirectory(prefix="sharl-player-")
        folder = Path(self._temporary.name if self._temporary else logs)
        self._log, self._out = folder / f"player-{index}.log", folder / f"player-{index}.out"
        self.name = program.name
        command = [str(program), *(["-nographics", "-batchmode"] if no_graphics else [])]
        command += ["--mlagents-port", str(port), "-logFile", str(self._log.resolve()), *args]
        if sys.platform.startswith("linux"):
            command = [sys.executable, "-IS", _TIED, str(os.getpid()), *command]
        with open(self._out, "wb") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def how_it_ended(self) -> str:
        """Exit code or signal; empty while it lives."""
        code = self._process.poll()
        if code is None:
            return ""
        names = {each.value: each.name for each in signal.Signals}  # the real-time ones have none
        return f"was killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"

    def last_words(self) -> str:
        """The last lines of its log and of what it printed."""
        texts = [_end_of(each) for each in (self._log, self._out) if each.is_file()]
        lines = [line for text in texts if text for line in text.splitlines()[-_LOG_LINES:]]
        return "its last lines:\n" + "\n".join(lines) if lines else "it wrote no log"

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return

    def close(self) -> None:
        """See it out: it was told to quit. If it does not, kill it."""
        self.wait(_GRACE_S)
        if self._process.poll() is None:
            if sys.platform == "win32":
                self._process.kill()
            else:  # all of its session: the program may be a script that has started the player as its child
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=5)
        if self._temporary is not None:
            self._temporary.cleanup()


class Launched:
    """A player that is on its way, and the server that it is going to call; of the Editor the server alone."""

    def __init__(self, where: str, options: UnityOptions, place: Place) -> None:
        """Raises PlayerRefused if there is no player at the path `where`, or no such port."""
        program = None if where == EDITOR else find_player(where)
        self.server = _listen(program is None, options.base_port, place.index)
        self.player: Player | None = None
        if program is not None:
            args = options.arguments()
            try:
                self.player = Player(program, self.server.port, place.index, place.logs, options.no_graphics, args)
            except BaseException:
                self.server.close()
                raise
            if options.players_per_worker > 1:
                self.player.name += f" (player-{place.index})"

    def close(self) -> None:
        """Kill the player if it does not quit."""
        self.server.close()  # before it is waited for: it may not have been told to quit
        if self.player is not None:
            self.player.close()


def _listen(editor: bool, base_port: int, index: int) -> PlayerServer:
    port = base_port + index if base_port else _EDITOR_PORT if editor else 0
    try:
        return PlayerServer(port)
    except OSError as error:
        raise PlayerRefused(f"port {port} cannot be had; somebody has it: give another --unity.base-port") from error


def _end_of(path: Path) -> str:
    """Of a log, which may have grown to any size."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        return file.read(_LOG_BYTES).decode(errors="replace").strip()
