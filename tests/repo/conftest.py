"""What the tests of the repository itself share."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def targets() -> dict[str, str]:
    """The targets of the Makefile and of .ci/steps.mk, with their help."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/steps.mk"))
    return dict(re.findall(r"^([a-z0-9-]+):.*?## (.+)$", text, re.MULTILINE))


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings by which Azurite is reached."""
    stores = load(ROOT / "tests/chaos/stores.py")
    with stores.azure(tmp_path_factory.mktemp("azurite")) as port:
        if port is None:
            pytest.skip("Azurite cannot be installed here")
        yield stores.azure_environ(port)
