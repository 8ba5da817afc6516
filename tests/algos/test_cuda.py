"""On a GPU, where there is one: graphs and mirrors do what their counterparts on the way without them do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from core.gather import Gather
from core.mirror import Mirror
from core.replay import Sampler
from core.ring import Ring
from core.types import Recording
from tests.algos.test_graphs import CASES, Place, make, rows_for, update
from tests.core.known_rows import known, spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CUDA = "cuda"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_a_graph_does_what_its_kernels_do_one_after_the_other(
    name: str, options: dict[str, Any], precision: str
) -> None:
    one, other = make(name, options, CUDA), make(name, options, CUDA)
    other.graphs.recorder = None
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    place = Place(rows_for(one, 0), CUDA)
    # some sums are made in any order, and bfloat16 rounds what differs in the last bit
    rtol, atol = (1e-4, 1e-6) if precision == "float32" else (2e-2, 1e-2)
    with torch.autocast(CUDA, torch.bfloat16, enabled=precision == "bfloat16"):
        for number in range(30):
            for its, expected in zip(update(one, number, place), update(other, number, None), strict=True):
                torch.testing.assert_close(its, expected, rtol=rtol, atol=atol, equal_nan=True)
    parts = one.graphs._known.values()
    assert len(parts) == (2 if name == "td3" else 1) and all(each.again for each in parts), "nothing was recorded"


def test_what_is_drawn_from_the_mirror_is_what_is_gathered_and_sent() -> None:
    device = torch.device(CUDA)
    with Ring.create(spec(), Recording(), 2, 4000) as ring:
        gathered = Sampler(ring, 64, 7, Gather(ring, 64, device))
        mirrored = Sampler(ring, 64, 7, Mirror(ring, 64, device))
        for number in range(50):
            writer = ring.writer(number % 2, number)
            writer.append(known(ring.layout, 90, writer.published))
            for sampler in (gathered, mirrored):
                sampler.draw()
            one, other = gathered.batch(device), mirrored.batch(device)
            for name in ("reward", "discount", "action", "weight"):
                assert torch.equal(getattr(one, name), getattr(other, name))
            assert np.array_equal(gathered.gather.rows["index"], mirrored.gather.rows["index"])
            assert one is gathered.batch(device)
