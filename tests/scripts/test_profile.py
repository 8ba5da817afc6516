"""What `python -m scripts.profile` measures and shows; the figures themselves are no test's business."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.net import Net
from core.replay import Sampler
from core.ring import Ring
from core.types import Recording
from scripts.profile import report as reports
from scripts.profile.__main__ import PARTS, main
from scripts.profile.act import in_torch, policies
from scripts.profile.another import Another
from scripts.profile.copies import copy_steps, memory
from scripts.profile.measure import in_rounds, times
from scripts.profile.products import Watched
from scripts.profile.report import Table, shown
from scripts.profile.shapes import IMAGE, SHAPES, Steps

Captured = pytest.CaptureFixture[str]


def measured(part: str, *options: str, file: Path) -> dict[str, Any]:
    """What the part writes, quickly."""
    assert main([part, "--quick", "--json", str(file), *options]) == 0
    found: dict[str, Any] = json.loads(file.read_text(), parse_constant=lambda constant: pytest.fail(constant))
    assert found["part"] == part and found["machine"]["commit"] and found["machine"]["cores"] >= 1
    return found


@pytest.mark.parametrize(
    ("part", "options", "lines"),
    [
        ("ring", ["--rows", "3DBall", "--writers", "1"], 1 + 4 + 1 + 1),
        ("ring", ["--rows", "images", "--only", "append", "sample"], 1 + 1),
        ("act", ["--agents", "1"], 3),
        pytest.param(
            "learner", ["--only", "td3", "vtrace", "--width", "8", "--batch", "8"], 2, marks=pytest.mark.thorough
        ),
        ("worker", [], 7),
        pytest.param("joined", [], 3, marks=pytest.mark.thorough),
        pytest.param("link", [], 4, marks=pytest.mark.slow),  # starts players, ...
        pytest.param("control", [], 8, marks=pytest.mark.slow),  # ... and a run
        pytest.param("group", [], 7, marks=pytest.mark.slow),
    ],
)
def test_each_part_measures_all_that_it_names(part: str, options: list[str], lines: int, tmp_path: Path) -> None:
    rows = [row for table in measured(part, *options, file=tmp_path / "found.json")["tables"] for row in table["rows"]]
    assert len(rows) == lines
    firsts = [next(value for name, value in row.items() if name != "what") for row in rows]
    assert all(first > 0 for first in firsts), rows


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(capsys: Captured) -> None:
    assert main(["bench"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "'bench'" in told and all(part in told for part in PARTS)


@pytest.mark.parametrize(
    "options", [["act", "--agents", "0"], ["learner", "--sb3", "no-such-python"], ["worker", "--json", "not/there"]]
)
def test_what_cannot_be_meant_is_told_in_one_line_before_anything_is_measured(
    options: list[str], capsys: Captured
) -> None:
    assert main([options[0], "--quick", *options[1:]]) == 2
    out, told = capsys.readouterr()
    assert told.startswith("error: ") and told.count("\n") == 1 and "\n\n" not in out.replace("Updates a second", "")


def test_a_library_that_is_not_installed_is_left_out_and_named(tmp_path: Path) -> None:
    options = ["--only", "append", "--rows", "3DBall", "--buffers", sys.executable, "--libraries", "tianshou"]
    found = measured("ring", *options, file=tmp_path / "found.json")
    assert found["tables"][0]["rows"][0]["tianshou"] is None
    assert "tianshou is left out" in found["notes"]


_figures = st.none() | st.integers(-(10**6), 10**6) | st.floats(0, 1e7) | st.sampled_from(["by numba", ""])


@given(st.lists(st.tuples(st.text("abc 1,", max_size=20), _figures, _figures), max_size=5))
def test_the_columns_of_a_table_end_where_their_headings_end(rows: list[tuple[str, Any, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text="", **_: lines.append(text))
        table = Table("a title", 20, ("microseconds", "times"))
        for row in rows:
            table.row(*row)
    heads, *shown_rows = lines[1:]
    end, last = heads.index("microseconds") + len("microseconds"), len(heads)
    for line, (what, one, other) in zip(shown_rows, rows, strict=True):
        padded = f"{line:{last}}"
        assert len(padded) == last <= reports.WIDTH, "nothing stands out"
        assert padded[:20].rstrip() == what.rstrip()
        assert padded[:end].endswith(shown(one)) and padded.endswith(shown(other))


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (None, "-"),
        (7, "7"),
        (12345, "12,345"),
        (0.123, "0.12"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (1234567, "1.23M"),
    ],
)
def test_a_figure_has_three_digits_that_count(figure: float | None, text: str) -> None:
    assert shown(figure) == text


def test_things_are_measured_in_turns() -> None:
    calls: list[str] = []

    def call(name: str) -> float:
        calls.append(name)
        return len(calls)

    sides = {name: partial(call, name) for name in ("one", "other")}
    assert in_rounds(sides, 3) == {"one": [1, 3, 5], "other": [2, 4, 6]}
    calls.clear()
    times(sides, 0.001)
    assert calls == ["one", "other"] * (len(calls) // 2)


@pytest.mark.parametrize("name", policies())
def test_torch_says_what_the_numpy_policy_that_it_stands_beside_says(name: str) -> None:
    acting = policies()[name]
    ((field, spec),) = acting.obs.items()
    seen = np.random.default_rng(0).integers(0, 255, (3, *spec.shape)).astype(spec.dtype)
    with torch.inference_mode():
        said = in_torch(acting.spec.net, acting.parameters)(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(said, Net(acting.spec.net, acting.parameters)({field: seen}), atol=1e-6)


def test_what_an_update_multiplies_and_how_it_steps_is_kept_and_nothing_else() -> None:
    x, weight, bias = torch.ones(5, 3), torch.ones(3, 2, requires_grad=True), torch.ones(2)
    watched = Watched()
    with watched:
        torch.autograd.backward(torch.addmm(bias, x, weight).relu().sum())  # one product there, one back to the weights
        weight.detach().mul_(2)
        weight.detach().lerp_(torch.zeros(3, 2), 0.5)  # as a target network follows
    assert len(watched.works) == 3
    before = weight.detach().clone()
    watched.again()
    assert torch.equal(weight, before), "it works on arrays of its own"


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_that_is_measured_makes_rows_as_a_worker_does(name: str) -> None:
    shape = SHAPES[name]
    with Ring.create(shape.spec, Recording(), 1, 400) as ring:
        steps = Steps(ring, ring.writer(0, 0))
        for _ in range(1000 // shape.spec.num_agents):
            steps.append()
        rows = Sampler(ring, 32, 0).sample()
        if name == "images":
            numbers, following = rows["obs"][IMAGE], rows["next_obs"][IMAGE]
            assert (np.diff(numbers) == shape.spec.num_agents).all() and (numbers[:, 1:] == following[:, :-1]).all()
        places = memory(steps, 400)
        copy_steps(steps, places)()
        assert all(place[: len(rows)].tobytes() != b"\1" * place[: len(rows)].nbytes for place in places)
        assert steps.nbytes == sum(place.itemsize * shape.spec.num_agents for place in places)


def test_another_interpreter_answers_question_by_question_and_leaves_nobody_behind() -> None:
    case = {"work": "append", "obs": [8], "dtype": "float32", "stack": 1, "continuous": 2, "choices": 0}
    with Another(sys.executable, "scripts.profile.buffers", "sb3") as another:
        answers = [another.ask({**case, "seconds": seconds}) for seconds in (0.01, 0.02)]
    assert answers == [{"us": None, "version": "", "refused": "is not installed"}] * 2
    assert another._process.poll() is not None
    assert not any(math.isnan(each["us"] or 0) for each in answers)
