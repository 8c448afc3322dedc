"""What the tests of the repository itself share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def targets() -> dict[str, str]:
    """The targets of the Makefile and of .ci/steps.mk, with their help."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/steps.mk"))
    return dict(re.findall(r"^([a-z0-9-]+):.*?## (.+)$", text, re.MULTILINE))
