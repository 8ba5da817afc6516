"""Weights: whole or not at all, never older than what one had, never anything but numbers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from core.shm import Layout, Segment
from core.types import FloatArray
from core.weights import Follower, Weights
from tests.stress.figures import tell

NUM_READERS = 4

READER = """
import os, sys
import numpy as np
from core.shm import Segment
from core.weights import Follower, Weights

address, size, table, place = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
told = Segment.attach(table, {"told": (np.int64, (4, 16))}, writable=True)["told"][place]
follower, parent = Follower(Weights.attach(address, size)), os.getppid()
while follower.update >= 0 and os.getppid() == parent:
    before = follower.version
    told[0] += follower.fetch()
    told[1] += bool((follower.parameters != follower.version).any())
    told[1] += follower.update not in (2 * follower.version, -1)
    told[2] += follower.version < before
    told[3] = follower.num_lapped
"""
"""It tells how often it fetched, got a mixed version, an older one, and was lapped. An update of -1: leave."""


def filled(size: int, version: int) -> FloatArray:
    """All parameters say which version they are; float32 can, up to 2**24."""
    return np.full(size, version, np.float32)


def publish_while_others_fetch(size: int, fetches: int) -> None:
    """Until each of the others has got so many versions."""
    began = time.monotonic()
    table: Layout = {"told": (np.int64, (NUM_READERS, 16))}
    with Weights.create(size) as weights, Segment.create("test", table) as segment:
        told = segment["told"]
        command = [sys.executable, "-c", READER, weights.address, str(size), segment.address]
        readers = [subprocess.Popen([*command, str(place)]) for place in range(NUM_READERS)]
        try:
            version, parameters, deadline = 0, filled(size, 0), time.monotonic() + 100
            while told[:, 0].min() < fetches:
                assert time.monotonic() < deadline, f"the readers got just {told[:, 0]} versions"
                version += 1
                parameters[:] = version
                assert weights.publish(parameters, 2 * version)
            assert weights.publish(filled(size, version + 1), -1)
            for reader in readers:
                assert reader.wait(timeout=20) == 0
        finally:
            for reader in readers:
                reader.kill()
                reader.wait(timeout=10)
        counts = dict(zip(("fetched", "mixed", "back", "lapped"), told.T[:4].tolist(), strict=True))
    wrong, fetched = sum(counts["mixed"]) + sum(counts["back"]), sum(counts["fetched"])
    name = f"A8 weights of {size} parameters"
    tell(name, began, faults=version, violations=wrong, figure=fetched, unit="versions fetched", seed=None, **counts)
    assert not any(counts["mixed"]) and not any(counts["back"])


def test_while_versions_are_published_at_full_speed_nobody_gets_a_mixed_or_an_older_one() -> None:
    publish_while_others_fetch(20_000, fetches=50)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "fetches"), [(100, 10_000), (5_000, 100_000), (1_000_000, 1_000)])
def test_in_a_long_run_too_nobody_gets_a_mixed_or_an_older_one(size: int, fetches: int) -> None:
    publish_while_others_fetch(size, fetches)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_not_finite_are_not_published(wrong: float) -> None:
    with Weights.create(8) as weights:
        follower = Follower(weights)
        assert weights.publish(filled(8, 1), 10)
        broken = filled(8, 2)
        broken[5] = wrong
        assert not weights.publish(broken, 11)
        assert weights.version == 1
        assert follower.fetch() and (follower.parameters == 1).all() and follower.update == 10


def test_a_reader_has_nothing_before_the_first_version_and_fetches_each_only_once() -> None:
    with Weights.create(8) as weights:
        follower = Follower(weights)
        assert not follower.fetch() and follower.version == 0 and not follower.parameters.any()
        same = follower.parameters
        for version in range(1, 9):
            assert weights.publish(filled(8, version), 3 * version)
            assert follower.fetch() and not follower.fetch()
            assert (follower.version, follower.update) == (version, 3 * version) and (same == version).all()


def test_a_reader_takes_the_newest_version_whatever_it_missed() -> None:
    with Weights.create(8) as weights:
        follower = Follower(Weights.attach(weights.address, 8))
        for version in range(1, 8):
            weights.publish(filled(8, version), version)
        assert follower.fetch() and (follower.parameters == 7).all() and follower.num_lapped == 0


class Slots:
    """In place of the slots that a reader copies from: something happens halfway through its next copy."""

    def __init__(self, weights: Weights, meanwhile: Callable[[], None]) -> None:
        self._weights, self._slots, self._meanwhile = weights, weights._slots, meanwhile
        weights._slots = self  # type: ignore[assignment]

    def __getitem__(self, slot: int) -> FloatArray:
        self._weights._slots = self._slots
        copy: FloatArray = self._slots[slot].copy()
        self._meanwhile()
        half = len(copy) // 2
        copy[half:] = self._slots[slot][half:]
        return copy


@pytest.mark.parametrize(("published_meanwhile", "taken"), [(2, True), (3, False), (4, False)])
def test_a_reader_that_is_lapped_keeps_what_it_had(published_meanwhile: int, taken: bool) -> None:
    with Weights.create(8) as weights:
        follower = Follower(weights)
        weights.publish(filled(8, 1), 1)
        assert follower.fetch()
        weights.publish(filled(8, 2), 2)

        def publish() -> None:
            for version in range(3, 3 + published_meanwhile):
                weights.publish(filled(8, version), version)

        Slots(weights, publish)
        assert follower.fetch() == taken
        kept = 2 if taken else 1
        assert (follower.parameters == kept).all() and follower.version == follower.update == kept
        assert follower.num_lapped == (not taken)
        assert follower.fetch()  # the next try is a step away
        assert (follower.parameters == 2 + published_meanwhile).all()


@pytest.mark.parametrize("size", [7, 9])
def test_a_reader_of_another_size_is_refused(size: int) -> None:
    with Weights.create(8) as weights, pytest.raises(ValueError, match="another layout"):
        Weights.attach(weights.address, size)
