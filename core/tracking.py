"""Tracking: a run's numbers over its agent steps, under the tags that people know from other trainers.

One table says what each number is called. TensorBoard gets the same as Weights & Biases (core/to_wandb.py).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from core.appended import Appended

TAGS = {
    "progress": {
        "return_mean": "charts/episodic_return",
        "length_mean": "charts/episodic_length",
        "episodes": "charts/episodes",
        "agent_steps_per_s": "charts/SPS",
        "updates": "charts/updates",
        "updates_per_s": "charts/updates_per_s",
        "replay_ratio_held": "charts/replay_ratio",
        "row_age": "charts/row_age",
        "rows_lapped": "charts/rows_lapped",
        "rollouts": "charts/rollouts",
        "workers": "charts/workers",
        "weights_lag": "charts/weights_lag",
        "publications_refused": "charts/publications_refused",
        "updates_skipped": "charts/updates_skipped",
        "rows_refused": "charts/rows_refused",
        "learner_waits": "charts/learner_waits",
        "learner_sample": "charts/learner_sample",
        "learner_update": "charts/learner_update",
        "learner_publish": "charts/learner_publish",
        "learner_checkpoint": "charts/learner_checkpoint",
        "workers_wait": "charts/workers_wait",
        "workers_fetch": "charts/workers_fetch",
        "workers_act": "charts/workers_act",
        "workers_env": "charts/workers_env",
        "workers_record": "charts/workers_record",
        "workers_exchange": "charts/workers_exchange",
        "workers_decode": "charts/workers_decode",
    },
    "eval": {
        "return_mean": "eval/episodic_return",
        "return_std": "eval/episodic_return_std",
        "return_min": "eval/episodic_return_min",
        "length_mean": "eval/episodic_length",
    },
}
"""kind of record, its field, the tag; docs/metrics.md says what each is"""


def tagged(record: dict[str, Any], losses: Iterable[str] = ()) -> dict[str, float]:
    """The numbers of a record by their tags, without those that are None; `losses`: the fields that are the
    algorithm's own. Nothing, for a kind that nobody draws."""
    kind = record["kind"]
    if kind == "env":
        found = {f"env/{name}": value for name, value in record["values"].items()}
    else:
        tags = {**TAGS.get(kind, {}), **{name: f"losses/{name}" for name in losses}}
        found = {tag: record.get(name) for name, tag in tags.items()}
    return {tag: value for tag, value in found.items() if value is not None}


class Tracker(Protocol):
    """Keeps numbers for people to look at."""

    def write(self, numbers: dict[str, float], step: int) -> None:
        """These, by their tags, after so many agent steps."""

    def close(self) -> None:
        """That was all."""


class TensorBoard:
    """An event file in the run's directory."""

    # not its EventFileWriter, whose thread ends at the first error and opens the file by its name for each record
    def __init__(self, directory: Path) -> None:
        self._file = Appended(directory / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}")
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, numbers: dict[str, float], step: int) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._file.close()

    def _add(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
