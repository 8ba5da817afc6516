from __future__ import annotations

import tracemalloc
from pathlib import Path

from core.supervisor import _end_of


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
