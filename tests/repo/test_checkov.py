"""Checkov's rules of the Dockerfile and the workflows: nothing found here, and a planted mistake of each kind found.

It runs in the environment of requirements/checkov.txt, which is made below build/, and asks nobody outside.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KINDS = ("dockerfile", "github_actions")
MISTAKES = {
    "CKV_DOCKER_3": ("docker/Dockerfile", "USER 65532:65532\n", ""),
    "CKV_DOCKER_7": ("docker/Dockerfile", "FROM ${PYTHON_IMAGE:-official}\n", "FROM python:latest\n"),
    "CKV_GHA_1": (
        ".github/workflows/test.yml",
        "      - run: make test",
        "      - run: make test\n        env:\n          ACTIONS_ALLOW_UNSECURE_COMMANDS: true",
    ),
    "CKV2_GHA_1": (".github/workflows/test.yml", "permissions: {}", "permissions: write-all"),
}
Look = Callable[[Path], dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def look(locked: Callable[[str], Path]) -> Look:
    checkov = locked("checkov").with_name("checkov")

    def run(folder: Path) -> dict[str, list[dict[str, Any]]]:
        """What was found in a folder, by kind of file."""
        told = ["--directory", folder, "--framework", *KINDS, "--skip-download", "--output", "json"]
        done = subprocess.run([checkov, *told], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, 1), done.stderr
        return {one["check_type"]: one["results"]["failed_checks"] for one in json.loads(done.stdout)}

    return run


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """What it looks at, and not the environments that lie beside it."""
    for name in ("docker", ".github"):
        shutil.copytree(root / name, tmp_path / name)
    return tmp_path


def test_nothing_is_found(look: Look, copy: Path) -> None:
    found = look(copy)
    assert set(KINDS) == set(found)  # it has looked at both
    told = [f"{one['check_id']} {one['file_path']}: {one['check_name']}" for kind in found.values() for one in kind]
    assert told == []


def test_planted_mistakes_are_found(look: Look, copy: Path) -> None:
    for name, old, new in MISTAKES.values():
        path = copy / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    assert set(MISTAKES) <= {one["check_id"] for kind in look(copy).values() for one in kind}
