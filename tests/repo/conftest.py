"""The repository as its own tests see it."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def targets() -> dict[str, str]:
    """The Makefile's targets with what `make help` says of them."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z-]+):.*?## (.+)$", text, re.MULTILINE))


@pytest.fixture(scope="session")
def program() -> Callable[[str], ModuleType]:
    """Load one of the line's own programs, .ci/<name>.py."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / f".ci/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # a dataclass looks itself up there
        sys.path.insert(0, str(ROOT / ".ci"))  # where python puts it when it runs one
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(ROOT / ".ci"))
        return module

    return load
