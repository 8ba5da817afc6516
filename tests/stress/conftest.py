"""Whole runs, as in tests/process."""

from tests.process.conftest import start as start
