"""Fixtures for the fuzzers: their environment, which is made on first use, and how long each may run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def fuzzers(locked: Callable[[str], Path]) -> Path:
    """The interpreter of the fuzzers' environment."""
    return locked("fuzz")


@pytest.fixture(scope="session")
def seconds() -> int:
    """How long one fuzzer may run."""
    return int(os.environ.get("FUZZ_SECONDS", "30"))


@pytest.fixture(scope="session")
def site() -> str:
    """The PYTHONPATH with which another environment finds our code: the built wheel, or the checkout."""
    return os.environ.get("CLOSEDLOOP_WHEEL") or os.pathsep.join([str(ROOT / "src"), str(ROOT)])
