"""The environment of the fuzzers, which is made where it is not there yet, and how long each may take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def fuzzers(locked: Callable[[str], Path]) -> Path:
    """Its interpreter."""
    return locked("fuzz")


@pytest.fixture(scope="session")
def seconds() -> int:
    """What one fuzzer may take."""
    return int(os.environ.get("FUZZ_SECONDS", "30"))


@pytest.fixture(scope="session")
def site() -> str:
    """Where another environment finds our code: the built wheel, or the checkout."""
    return os.environ.get("CLOSEDLOOP_WHEEL") or os.pathsep.join([str(ROOT / "src"), str(ROOT)])
