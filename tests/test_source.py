"""The project's own source waits for nothing without a limit, and runs no code that it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.source import findings

ROOT = Path(__file__).parents[1]
SOURCE = [file for folder in ("core", "algos", "envproc", "scripts") for file in sorted((ROOT / folder).rglob("*.py"))]

FORBIDDEN = [
    "process.wait()",
    "process.wait(timeout=None)",
    "event.wait(None)",
    "os.wait()",
    "thread.join()",
    "future.result()",
    "lock.acquire()",
    "unsent.get()",
    "unsent.get(True)",
    "unsent.get(block=True, timeout=None)",
    "process.communicate()",
    "process.communicate(b'')",
    "subprocess.run(['ls'])",
    "subprocess.run(['ls'], timeout=None)",
    "from subprocess import check_output\ncheck_output(['ls'])",
    "socket.poll()",
    "self._poller.poll(None)",
    "connection.poll(-1)",
    "epoll.poll()",
    "selector.select()",
    "select.select([a], [], [])",
    "select.select([a], [], [], None)",
    "socket.recv()",
    "socket.recv_multipart()",
    "listener.accept()",
    "def one():\n    socket.poll(10)\ndef other():\n    socket.recv()",
    "def one():\n    first.poll(10)\n    second.recv()",
    "def one():\n    socket.poll()  # no limit: the next line is meant\n    socket.recv()",
    "socket.settimeout(None)\nsocket.recv(1)",
    "while True:\n    step()",
    "while 1:\n    for each in steps:\n        break",
    "while True:\n    def leave():\n        return 1",
    "import pickle",
    "from cloudpickle import loads",
    "def late():\n    import marshal",
    "import shelve as shelf",
    "socket.recv_pyobj(zmq.NOBLOCK)",
    "import torch\ntorch.load(file)",
    "import torch\ntorch.load(file, weights_only=False)",
    "from torch import load\nload(file)",
    "import numpy as np\nnp.load(file)",
    "import numpy as np\nnp.load(file, allow_pickle=True)",
    "import yaml\nyaml.load(text, Loader)",
    "import yaml\nyaml.unsafe_load(text)",
    "eval(text)",
    "exec(text)",
    "os.system('ls')",
    "subprocess.Popen('ls', shell=True)",
    "try:\n    step()\nexcept:\n    raise",
    "try:\n    step()\nexcept Exception:\n    pass",
    "try:\n    step()\nexcept (OSError, BaseException):\n    pass",
    "try:\n    step()\nexcept Exception:  # noqa: BLE001\n    pass",
    "process.wait()  # no limit:",
    "step()  # no limit: an allowance that is not needed any more",
]

ALLOWED = [
    "process.wait(5)",
    "process.wait(timeout=limit_s)",
    "thread.join(2)",
    "', '.join(names)",
    "unsent.get(timeout=1)",
    "unsent.get(block=False)",
    "words.get('key')",
    "words.get(key, None)",
    "lock.acquire(False)",
    "process.communicate(b'', 5)",
    "subprocess.run(['ls'], timeout=5)",
    "process.poll()",
    "socket.poll(0)",
    "selector.select(0.1)",
    "select.select([a], [], [], 0.1)",
    "socket.recv(zmq.NOBLOCK)",
    "def one():\n    return socket.recv() if socket.poll(10) else None",
    "class A:\n    def open(self):\n        self.s.settimeout(1)\n    def read(self):\n        self.s.recv(9)",
    "while True:\n    if done():\n        break",
    "while True:\n    yield step()",
    "def one():\n    while True:\n        for each in steps:\n            return each",
    "while not done():\n    step()",
    "import torch\ntorch.load(file, map_location='cpu', weights_only=True)",
    "import numpy as np\nnp.load(file, allow_pickle=False)",
    "import json\njson.load(file)",
    "import yaml\nyaml.safe_load(text)",
    "spec.loader.exec_module(module)",
    "network.eval()",
    "try:\n    step()\nexcept OSError:\n    pass",
    "try:\n    step()\nexcept BaseException:\n    close()\n    raise",
    "try:\n    step()\nexcept Exception as error:\n    raise ValueError('told') from error",
    "try:\n    step()\nexcept BaseException:  # noqa: BLE001 - told in the log\n    tell()",
    "process.wait()  # no limit: it was killed",
    "while True:  # no limit: an exception ends it\n    step()",
]


@pytest.mark.parametrize("source", FORBIDDEN)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert len(findings(source)) == 1


@pytest.mark.parametrize("source", ALLOWED)
def test_what_is_right_is_let_pass(source: str) -> None:
    assert findings(source) == []


def test_a_finding_names_its_line_and_what_is_wrong() -> None:
    (finding,) = findings("import os\n\nos.wait()")
    assert finding == (3, "os.wait() without a limit")


def test_nothing_in_the_source_waits_for_ever_or_runs_what_it_reads() -> None:
    assert len(SOURCE) > 80
    found = [
        f"{file.relative_to(ROOT)}:{each.line}: {each.what}" for file in SOURCE for each in findings(file.read_text())
    ]
    assert not found, "\n".join(found)
