"""What a run's numbers are called."""

from __future__ import annotations

from pathlib import Path

from core.tracking import TAGS, tagged

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


def test_where_no_episode_ended_there_is_no_return_to_draw() -> None:
    record = {"kind": "progress", "agent_steps": 7, "return_mean": None, "length_mean": None, "updates_per_s": 3.0}
    assert tagged(record) == {"charts/updates_per_s": 3.0}
    assert tagged({**record, "return_mean": 5.0})["charts/episodic_return"] == 5.0


def test_what_the_algorithm_measures_is_among_the_losses() -> None:
    record = {"kind": "progress", "agent_steps": 7, "updates": 2, "q": 1.5, "entropy": None}
    assert tagged(record, ["q", "entropy"]) == {"charts/updates": 2, "losses/q": 1.5}


def test_what_a_scene_records_keeps_its_names() -> None:
    record = {"kind": "env", "agent_steps": 7, "worker": "worker-0", "values": {"Pole/angle": 0.5, "broken": None}}
    assert tagged(record) == {"env/Pole/angle": 0.5}


def test_a_record_that_is_no_measurement_is_not_drawn() -> None:
    assert tagged({"kind": "checkpoint", "agent_steps": 7, "updates": 2}) == {}


def test_the_page_about_metrics_has_every_tag() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    for tags in TAGS.values():
        for field, tag in tags.items():
            assert any(f"`{field}`" in row and f"`{tag}`" in row for row in rows), tag
