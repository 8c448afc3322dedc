"""Azure behind its own SDK, without a network; in the environment of requirements/azureml.txt: `make azureml-test`."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

IMAGE = "ghcr.io/someone/fleet@sha256:" + "a" * 64
SENSORS = ["volt", "rotate"]


def there() -> bool:
    """Whether Azure's SDK is installed here."""
    return bool(importlib.util.find_spec("azure")) and bool(importlib.util.find_spec("azure.ai.ml"))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what imports the SDK where it is not installed; test_environment.py says so."""
    return (
        True if collection_path.name in ("test_deploy.py", "test_files.py", "test_mlflow.py") and not there() else None
    )


def release(folder: Path, model: str = "1", image: str = IMAGE) -> None:
    """Write the files of a release that the deployment reads."""
    files = folder / "build/release"
    files.mkdir(parents=True, exist_ok=True)
    digest = "sha256:" + hashlib.sha256(model.encode()).hexdigest()
    manifest = json.dumps({"bundle_digest": digest, "schema": {"sensors": SENSORS}}).encode()
    with tarfile.open(files / "bundle.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("bundle/manifest.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    with zipfile.ZipFile(files / "closedloop-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("score/score.py", f"MODEL = {model!r}\n")
    facts: dict[str, Any] = {"image": image, "commit": model * 40, "bundle_digest": digest}
    (files / "facts.json").write_text(json.dumps(facts | {"model_digest": f"model {model}"}))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a release."""
    release(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
