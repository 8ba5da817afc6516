from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

from core.supervisor import Supervisor, _end_of
from tests.process.runs import wait_until


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.log"
    with open(log, "wb") as file:
        file.truncate(2**24)
        file.seek(0, 2)
        file.write("\n".join(f"ünd {line}" for line in range(20)).encode())
    tracemalloc.start()
    try:
        assert _end_of(log) == "\n".join(f"ünd {line}" for line in range(10, 20))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_of_a_short_log_all_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo\n")
    assert _end_of(tmp_path / "log") == "one\ntwo"


def test_a_log_that_is_gone_is_empty_and_its_directory_is_made_again(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        for _ in range(2):
            supervisor.start("worker-0", "no.such.module", {})
            shutil.rmtree(tmp_path / "logs")
            wait_until(lambda: [each.log for each in supervisor.deaths()] == [""], "its death")
