"""The repository as its own tests see it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """What is committed or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [path for name in sorted(set(names)) if name and (path := ROOT / name).is_file()]


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


@pytest.fixture(autouse=True)
def as_make_runs_them(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line's programs import each other from their folder, which tests of the wheel keep off the path."""
    if "wheel" not in request.fixturenames:
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
