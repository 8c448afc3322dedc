"""make rename: what changes in a copy, what does not, and that the copy still passes its checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.rename import rename

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}


@pytest.fixture
def copy(copied: Callable[[Path], Path], tmp_path: Path) -> Path:
    folder = copied(tmp_path / "copy")
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode("utf-8", errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and not {".git", ".venv", "__pycache__"} & set(path.relative_to(folder).parts)
    }


def test_the_name_stands_in_every_place_a_person_sees(copy: Path) -> None:
    rename(copy, "press-line")
    after = texts(copy)
    assert after["README.md"].startswith("# Press Line\n")
    assert '\nname = "press-line"\n' in after["pyproject.toml"]
    assert "\nIMAGE ?= press-line:dev\n" in after["Makefile"]
    assert "${IMAGE:-press-line:dev}" in after["compose.yaml"]
    manifests = "".join(text for name, text in after.items() if name.startswith("k8s/") and name.endswith(".yaml"))
    assert "image: press-line\n" in manifests
    assert re.findall(r"(?:name|namespace|image): closedloop$", manifests, re.MULTILINE) == []


def test_no_code_changes_but_its_title(copy: Path) -> None:
    before = texts(copy)
    rename(copy, "press-line")
    after = texts(copy)
    changed = {name for name in before if before[name] != after[name] and name.endswith(".py")}
    python = {name for name in changed if not name.startswith("tests/e2e/")}
    assert python == {"score/pages/openapi.py", ".ci/dev/rename.py"}
    assert before["LICENSE"] == after["LICENSE"]


def test_it_can_be_done_again_and_leaves_nothing_of_the_name_before(copy: Path) -> None:
    for name in ("press-mill", "mill"):
        command = [sys.executable, "-m", "dev.rename", name]
        environment = ENVIRONMENT | {"PYTHONPATH": str(copy / ".ci"), "PYTHONSAFEPATH": "1"}
        assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    assert {name for name, text in texts(copy).items() if "press-mill" in text} == {"tests/repo/test_rename.py"}


@pytest.mark.parametrize(
    "name", ["", "Press", "press_line", "-a", "a-", "a--b", "1a", "a" * 41, "model", "closedloop", "é"]
)
def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(copy: Path, name: str) -> None:
    before = texts(copy)
    with pytest.raises(ValueError, match="choose 2 to 40"):
        rename(copy, name)
    assert before == texts(copy)


def test_a_place_that_has_moved_is_said_and_nothing_is_written(copy: Path) -> None:
    (copy / "compose.yaml").write_text("services: {}\n")
    before = texts(copy)
    with pytest.raises(ValueError, match=r"compose\.yaml does not contain the name"):
        rename(copy, "press-line")
    assert before == texts(copy)


def test_a_renamed_copy_passes_its_own_checks(copy: Path) -> None:
    rename(copy, "press-line")
    names = ("make", "text", "manifests", "workflows", "files", "release")
    tools = copy / ".venv/bin"
    for command in (
        [tools / "ruff", "check", "--quiet", "."],
        [tools / "ruff", "format", "--quiet", "--check", "."],
        [tools / "yamllint", "--strict", "."],
        [tools / "hadolint", "docker/Dockerfile"],
        [tools / "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/repo/test_{name}.py" for name in names)],
    ):
        done = subprocess.run(command, cwd=copy, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
