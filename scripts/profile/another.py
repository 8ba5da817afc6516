"""What is measured in another interpreter, which has packages that this one has not: a process that waits on its stdin
while others are measured, one question a line, one answer a line, both JSON."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from typing import Any

from scripts.command_line import UsageError
from scripts.profile.report import ROOT


def command_of(python: str, module: str, *arguments: str) -> list[str]:
    """What runs this module of ours, in the project's directory. Raises UsageError if there is no such interpreter."""
    found = shutil.which(os.path.expanduser(python))
    if not found:
        raise UsageError(f"{python} cannot be run; give the path of an interpreter")
    return [os.path.abspath(found), "-W", "ignore", "-m", module, *arguments]


class Another:
    """`python -m module arguments...` in that interpreter, with this project's directory to import from."""

    def __init__(self, python: str, module: str, *arguments: str, seconds: float = 300) -> None:
        """`seconds`: how long an answer may take. Raises UsageError if there is no such interpreter."""
        self._command, self._seconds = command_of(python, module, *arguments), seconds
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Another:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # it holds nothing that would have to be put away
        self._process.communicate(timeout=10)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Its answer. Raises UsageError if it has ended, or is silent; it has said why on stderr."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            answers, _, _ = select.select([self._process.stdout], [], [], self._seconds)
        except BrokenPipeError:
            answers = [self._process.stdout]
        line = self._process.stdout.readline() if answers else b""
        if not line:
            raise UsageError(f"{' '.join(self._command)} gives no answer; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer
