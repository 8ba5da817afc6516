"""Reading what a run wrote down: metrics.jsonl, one record a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.command_line import UsageError

Record = dict[str, Any]


def read_records(directory: Path) -> list[Record]:
    """All records of the run in `directory`; of one that is going on, or was cut off, as far as it came.

    Raises UsageError if there are none, or if a line is none.
    """
    file = directory / "metrics.jsonl"
    records: list[Record] = []
    try:
        for line in file.read_bytes().split(b"\n")[:-1]:  # the last one may be on its way
            record = json.loads(line)
            if not isinstance(record, dict) or "kind" not in record:
                raise ValueError(f"it has no kind: {line[:40]!r}")
            records.append(record)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file}, line {len(records) + 1}, is no record of a run: {error}") from error
    if not records:
        raise UsageError(f"the run {directory} has no records; one that has begun writes some every second")
    return records
