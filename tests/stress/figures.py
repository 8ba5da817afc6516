"""What `make stress` prints: one JSON line for each row of the table in docs/reliability.md."""

from __future__ import annotations

import json
import time

from tests.process.runs import commit


def tell(
    name: str,
    began: float,
    *,
    faults: object,
    violations: int,
    figure: object,
    unit: str,
    seed: int | None = 1,
    **more: object,
) -> None:
    """`began`: by time.monotonic(). `seed`: None where nothing is drawn. `more`: figures beside the one that counts."""
    line = {"name": name, "seed": seed, "commit": commit(), "faults": faults, "violations": violations}
    seconds = round(time.monotonic() - began, 1)
    print("\n" + json.dumps(line | {"figure": figure, "unit": unit, **more, "seconds": seconds}))
