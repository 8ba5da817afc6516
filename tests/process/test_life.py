"""A whole run, from the command line to what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.checkpoint import load_policy, newest
from core.ring import FOREVER
from tests.process.lane import Lane
from tests.process.runs import TOYS, Record, Run, Start, wait_until

PROGRESS = [
    "wall_s",
    "env_steps",
    "agent_steps",
    "updates",
    "env_steps_per_s",
    "agent_steps_per_s",
    "updates_per_s",
    "replay_ratio",
    "replay_ratio_held",
    "return_mean",
    "length_mean",
    "weights_lag",
    "row_age",
    "rows_lapped",
    "waiting",
]
SUMMARY = ["wall_s", "reason", "agent_steps", "updates", "eval_return", "weights_sha256", "exit_code"]
MOST_WORKER_PSS = 60 * 1024 * 1024


@pytest.fixture(scope="module")
def life(start_once: Start) -> Run:
    """A run that is over."""
    run = start_once("--workers", 2, "--steps", 6000, "--eval-every", 3000)
    assert run.wait() == 0, run.stderr
    return run


def test_a_run_ends_by_itself_with_exit_code_0_and_leaves_nothing_but_its_directory(life: Run) -> None:
    assert life.stderr == ""
    assert life.left() == []
    names = sorted(path.name for path in life.directory.iterdir())
    assert [name for name in names if "tfevents" not in name] == [
        ".lock",
        "checkpoints",
        "config.json",
        "logs",
        "metrics.jsonl",
    ]
    assert sorted(path.name for path in (life.directory / "logs").iterdir()) == [
        "evaluator.log",
        "worker-0.log",
        "worker-1.log",
    ]


def test_the_config_says_what_was_asked_for_and_what_was_not(life: Run) -> None:
    config = json.loads((life.directory / "config.json").read_text())
    assert (config["algorithm"], config["env"], config["workers"], config["steps"]) == ("ddpg", "3dball", 2, 6000)
    assert (config["mode"], config["seed"], config["algo"]["gamma"]) == ("async", 1, 0.99)
    first = life.records()[0]
    assert first["kind"] == "config"
    assert config.items() <= first.items()


def test_every_line_of_the_metrics_is_strict_json_with_a_kind_and_a_time(life: Run) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    records: list[Record] = [
        json.loads(line, parse_constant=refuse) for line in (life.directory / "metrics.jsonl").read_text().splitlines()
    ]
    assert {record["kind"] for record in records} == {"checkpoint", "config", "worker", "progress", "eval", "summary"}
    times = [record["wall_s"] for record in records]
    assert times == sorted(times) and times[0] > 0
    ready = {record["worker"] for record in records if record["kind"] == "worker" and record["event"] == "ready"}
    assert ready == {"worker-0", "worker-1", "evaluator"}


def test_progress_is_recorded_at_least_once_a_second_with_every_figure(life: Run) -> None:
    progress = life.records("progress")
    assert len(progress) > progress[-1]["wall_s"] - life.records("worker")[0]["wall_s"]
    for record in progress:
        assert set(PROGRESS) <= set(record), set(PROGRESS) - set(record)
        assert re.search(r"wait", record["waiting"])
    for name in ("env_steps", "agent_steps", "updates"):
        counts = [record[name] for record in progress]
        assert counts == sorted(counts) and counts[-1] > 0
    assert progress[-1]["env_steps"] * 12 == progress[-1]["agent_steps"], "12 agents, each with a row a step"


def test_return_and_length_of_the_episodes_that_ended_are_told_and_nothing_where_none_did(life: Run) -> None:
    progress = life.records("progress")
    assert any(record["episodes"] for record in progress)
    for record in progress:
        if record["episodes"]:
            assert record["return_mean"] <= 0.1 * record["length_mean"] + 1e-3, (
                "a decision is rewarded with at most 0.1"
            )
        else:
            assert record["return_mean"] is record["length_mean"] is None


def test_the_summary_is_the_last_record_and_tells_the_best_evaluation(life: Run) -> None:
    summary = life.summary
    assert set(SUMMARY) <= set(summary)
    assert (summary["reason"], summary["exit_code"]) == ("steps", 0)
    assert summary["agent_steps"] >= 6000 and summary["updates"] > 1000
    assert re.fullmatch("[0-9a-f]{64}", summary["weights_sha256"])
    evaluations = life.records("eval")
    best = max(evaluations, key=lambda record: float(record["return_mean"]))
    assert (summary["eval_return"], summary["eval_update"]) == (best["return_mean"], best["updates"])
    assert all(record["episodes"] >= 24 for record in evaluations)
    updates = [record["updates"] for record in evaluations]
    assert len(updates) >= 2 and updates[-1] == summary["updates"], "the policy after the last update is evaluated too"
    assert len(set(updates)) == len(updates), "and none is evaluated twice: the better of two is no fair figure"


@pytest.mark.parametrize(
    ("tag", "kind", "name"),
    [
        ("charts/updates", "progress", "updates"),
        ("charts/episodic_return", "progress", "return_mean"),
        ("charts/SPS", "progress", "agent_steps_per_s"),
        ("charts/replay_ratio", "progress", "replay_ratio_held"),
        ("losses/critic_loss", "progress", "critic_loss"),
        ("eval/episodic_return", "eval", "return_mean"),
    ],
)
def test_tensorboard_reads_the_same_figures_by_their_tags(tag: str, kind: str, name: str, life: Run) -> None:
    events = EventAccumulator(str(life.directory))
    events.Reload()
    records = [record for record in life.records(kind) if record.get(name) is not None]
    assert [scalar.step for scalar in events.Scalars(tag)] == [record["agent_steps"] for record in records] != []
    assert [scalar.value for scalar in events.Scalars(tag)] == pytest.approx([record[name] for record in records])


def test_the_checkpoint_loads_and_its_manifest_is_true(life: Run) -> None:
    policy, parameters = load_policy(life.directory)
    directory, rejected = newest(life.directory)
    assert directory.name == "000001" and not rejected
    assert policy.env["name"] == "3dball" and policy.env_spec.num_agents == 12 and parameters.any()
    manifest = json.loads((directory / "manifest.json").read_text())
    assert set(manifest) == {path.name for path in directory.iterdir()} - {"manifest.json"}
    for name, entry in manifest.items():
        assert entry["sha256"] == hashlib.sha256((directory / name).read_bytes()).hexdigest()


def test_a_worker_is_small_and_has_no_torch(tmp_path: Path) -> None:
    with Lane("3dball", tmp_path, capacity=20_000) as lane:
        lane.ring.allow(FOREVER)
        wait_until(lambda: lane.published > 25_000, "the whole lane to be written")
        proc = Path(f"/proc/{lane.pid}")
        (pss,) = re.findall(r"^Pss: +(\d+) kB$", (proc / "smaps_rollup").read_text(), re.MULTILINE)
        assert int(pss) * 1024 < MOST_WORKER_PSS
        assert "libtorch" not in (proc / "maps").read_text()


def test_a_worker_imports_nothing_that_only_others_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_MARKS", str(tmp_path))
    with Lane(f"{TOYS}:TellsModules", tmp_path) as lane:
        lane.step(3)
    modules = {name.partition(".")[0] for name in (tmp_path / "modules").read_text().split()}
    assert "numpy" in modules
    assert not modules & {"torch", "numba", "gymnasium", "tensorboard", "rich", "tyro", "algos", "scripts"}


@pytest.mark.thorough
def test_collecting_only_runs_no_update_and_ends(start: Start) -> None:
    run = start("--workers", 2, "--steps", 6000, "--algo.replay-ratio", 0)
    assert run.wait() == 0, run.stderr
    summary = run.summary
    assert summary["agent_steps"] >= 6000
    assert (summary["updates"], summary["eval_return"], summary["replay_ratio_held"]) == (0, None, 0)
    load_policy(run.directory)
    run.assert_nothing_left()
