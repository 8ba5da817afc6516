"""Curves read from runs whose records are written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import plot
from scripts.command_line import UsageError
from scripts.curves import Curve, group_runs, over_runs, read_run, thinned

Record = dict[str, Any]


def config(**other: Any) -> Record:
    about = {"kind": "config", "wall_s": 1.0, "algorithm": "ddpg", "env": "3dball", "algo": {"tau": 0.1, "gamma": 0.9}}
    return about | {"run": "any", "runs_dir": "runs", "seed": 1, "cores": 2, "python": "3"} | other


def progress(steps: int, value: float | None, wall_s: float = 0.0) -> Record:
    figures = {"return_mean": value, "weights_lag": 2.0, "agent_steps_per_s": 5.0, "updates_per_s": 3.0}
    return {"kind": "progress", "wall_s": wall_s, "agent_steps": steps, **figures}


def evaluation(steps: int, mean: float, wall_s: float = 0.0) -> Record:
    return {"kind": "eval", "wall_s": wall_s, "agent_steps": steps, "return_mean": mean, "return_std": 1.0}


def write(home: Path, name: str, *records: Record, then: str = "") -> Path:
    (home / name).mkdir()
    (home / name / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records) + then)
    return home / name


def points(curve: Curve) -> list[tuple[float, float]]:
    return list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))


def test_a_curve_has_the_points_that_were_written_down_over_steps_or_time(tmp_path: Path) -> None:
    records = [progress(10, 1.0, 3.0), progress(20, None, 4.0), evaluation(25, 7.0, 4.5), progress(30, 2.0, 5.0)]
    run = read_run(write(tmp_path, "run", config(), *records))
    assert points(run.curve("progress", "return_mean", "steps")) == [(10, 1), (30, 2)]
    assert points(run.curve("progress", "return_mean", "time")) == [(3, 1), (5, 2)]
    assert points(run.curve("eval", "return_mean", "steps")) == [(25, 7)]
    assert points(run.curve("progress", "replay_ratio", "steps")) == []


def test_while_the_steps_stand_still_only_the_first_record_is_a_point(tmp_path: Path) -> None:
    run = read_run(write(tmp_path, "run", config(), progress(10, 1.0), progress(10, 5.0), progress(20, 2.0)))
    assert points(run.curve("progress", "return_mean", "steps")) == [(10, 1), (20, 2)]


def test_what_a_run_did_after_the_checkpoint_that_it_went_on_from_is_left_out(tmp_path: Path) -> None:
    resumed = {"kind": "resumed", "wall_s": 2.0, "agent_steps": 15}
    records = [progress(10, 1.0), progress(20, 2.0), config(steps=99), resumed, progress(18, 3.0), progress(30, 4.0)]
    run = read_run(write(tmp_path, "run", config(), *records))
    assert points(run.curve("progress", "return_mean", "steps")) == [(10, 1), (18, 3), (30, 4)]


def test_a_run_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    cut = json.dumps(progress(20, 2.0))
    for name, then in (("half", cut[:20]), ("without its end", cut)):
        run = read_run(write(tmp_path, name, config(), progress(10, 1.0), then=then))
        assert points(run.curve("progress", "return_mean", "steps")) == [(10, 1)]


def test_a_run_without_records_and_one_that_is_damaged_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "empty", write(tmp_path, "begun", config())):
        with pytest.raises(UsageError, match=f"the run .*{directory.name} .*has no records"):
            read_run(directory)
    with pytest.raises(UsageError, match=r"metrics.jsonl, line 3, is no record"):
        read_run(write(tmp_path, "damaged", config(), progress(1, 1.0), then='{"kind": \n'))


def test_runs_that_differ_in_their_seeds_only_belong_together(tmp_path: Path) -> None:
    configs = {
        "a": config(seed=1, run="a"),
        "b": config(seed=2, run="b", runs_dir="elsewhere", wandb="mine", control="tcp://*:5", cores=9, wall_s=2.0),
        "c": config(seed=1, run="c", algo={"tau": 0.2, "gamma": 0.9}),
        "d": config(seed=1, run="d", algorithm="sac"),
    }
    runs = [read_run(write(tmp_path, name, each, progress(1, 1.0))) for name, each in configs.items()]
    groups = group_runs([runs[0], runs[2], runs[1], runs[3]])
    assert [[run.name for run in group.runs] for group in groups] == [["a", "b"], ["c"], ["d"]]
    assert [group.label for group in groups] == [
        "ddpg in 3dball, algo.tau 0.1 (2 runs)",
        "ddpg in 3dball, algo.tau 0.2",
        "sac in 3dball",
    ]


def test_over_several_runs_there_is_a_mean_and_a_spread_as_far_as_all_go() -> None:
    one = Curve(np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 30.0]))
    other = Curve(np.array([5.0, 15.0, 40.0]), np.array([1.0, 3.0, 9.0]))
    band = over_runs([one, other])
    assert band.x.tolist() == [5, 10, 15, 20]
    assert band.low.tolist() == pytest.approx([1, 2, 3, 4.2])
    assert band.high.tolist() == pytest.approx([5, 10, 20, 30])
    assert band.mean.tolist() == pytest.approx([3, 6, 11.5, 17.1])


def test_a_run_alone_is_its_own_mean_and_runs_that_never_meet_have_none() -> None:
    one, later = (Curve(np.array([start, start + 1.0]), np.array([3.0, 4.0])) for start in (0.0, 5.0))
    assert points(one) == list(zip(*(each.tolist() for each in over_runs([one])[:2]), strict=True))
    assert len(over_runs([one, later]).x) == 0


def test_a_thinned_curve_has_the_means_of_neighbours() -> None:
    curve = Curve(np.array([0.0, 1.0, 2.0, 3.0, 10.0]), np.array([2.0, 4.0, 6.0, 8.0, 1.0]))
    assert points(thinned(curve, 5)) == points(curve)
    assert points(thinned(curve, 2)) == [(1.5, 5.0), (10.0, 1.0)]
    assert points(thinned(curve, 4)) == [(1.0, 4.0), (3.0, 8.0), (10.0, 1.0)]


def test_the_picture_is_a_png_and_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        records = [progress(1, 1.0), evaluation(2, 1.0), progress(3, 2.0), evaluation(4, 2.0)]
        write(tmp_path, f"run-{seed}", config(seed=seed), *records)
    out = tmp_path / "curves.png"
    home = ["--runs-dir", str(tmp_path)]
    for x in ("steps", "time"):
        assert plot.main(["run-1", "run-2", *home, "--out", str(out), "--x", x]) == 0
        assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        out.unlink()
    capsys.readouterr()
    for wrong, complaint in (
        (["run-1", "--out", str(tmp_path / "curves.doc")], r"must end in \.png"),
        (["run-1", "--out", str(tmp_path / "nowhere" / "a.png")], "no directory .*nowhere; make it first"),
        (["run-3"], "there is no run"),
        ([], "name a run"),
    ):
        assert plot.main([*wrong, *home]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert re.search(complaint, said), said


def test_a_run_with_a_single_evaluation_shows_it(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    write(tmp_path, "run", config(), evaluation(25, 7.0))
    assert plot.main(["run", "--runs-dir", str(tmp_path), "--out", str(tmp_path / "out.png")]) == 0
    picture = np.asarray(image.open(tmp_path / "out.png").convert("RGB"))
    below_the_legend = picture[50:]
    assert (below_the_legend == (0x00, 0x72, 0xB2)).all(axis=2).any(), "in the colour of the curve"


def test_a_run_that_is_named_twice_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(plot, "draw", lambda groups, *_: drawn.extend(group.label for group in groups))
    write(tmp_path, "run", config(), progress(1, 1.0))
    assert plot.main(["run", "run", "--runs-dir", str(tmp_path)]) == 0
    assert drawn == ["ddpg in 3dball"]
