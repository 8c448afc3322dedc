"""Every command that a person is told exists, and every target is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CODE_SPAN = re.compile(r"`+([^`\n]+)`+")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|[;&|] *)\$? ?make ([a-z][a-z-]*)", re.MULTILINE)


# These tests may themselves run below make, whose flags are not theirs.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}


def commands(text: str, code_only: bool) -> set[str]:
    """The make targets that a text tells to run; in Markdown those in code, elsewhere those in backticks."""
    pieces = CODE_SPAN.findall(text) + (FENCE.findall(text) if code_only else [])
    return {target for piece in pieces for target in COMMAND.findall(piece)}


def test_commands_are_found_where_they_are_told() -> None:
    text = "Use `make run && make test`, then make merry.\n\n```\nmake serve # here\n$ make ci\n```\n"
    assert {"run", "test", "serve", "ci"} == commands(text, code_only=True)


def test_every_make_command_that_is_told_exists(root: Path, files: list[Path], targets: dict[str, str]) -> None:
    told = {
        (str(path.relative_to(root)), target)
        for path in files
        if path.suffix in {".md", ".py", ".yaml", ".yml", ".html"} and path != Path(__file__)
        for target in commands(path.read_text(encoding="utf-8", errors="replace"), path.suffix == ".md")
    }
    assert ("README.md", "run") in told
    assert sorted((path, target) for path, target in told if target not in targets) == []


def test_every_target_is_in_the_help_and_phony(root: Path, targets: dict[str, str]) -> None:
    text = (root / "Makefile").read_text(encoding="utf-8")
    rules = set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    assert set(targets) == rules
    assert set(targets) == phony


def test_help_shows_every_target(root: Path, targets: dict[str, str]) -> None:
    command = ["make", "help"]
    shown = subprocess.run(command, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    for target, says in targets.items():
        assert re.search(rf"^  {target} +{re.escape(says)}$", shown, re.MULTILINE), target


def test_a_machine_without_python_is_told_in_one_line(root: Path, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    for program in ("make", "sh"):
        (tmp_path / program).symlink_to(
            next(p for p in map(Path, ("/usr/bin", "/bin")) if (p / program).exists()) / program
        )
    command = [tmp_path / "make", "SHELL=" + str(tmp_path / "sh"), "VENV=" + str(tmp_path / "venv"), "check"]
    done = subprocess.run(command, cwd=root, env=bare, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "Error" not in line]
    assert done.returncode == 2
    assert len([line for line in said if "no Python >= 3.11 found" in line]) == 1, done.stderr


def test_without_an_engine_the_image_says_so_before_anything_is_built(root: Path, tmp_path: Path) -> None:
    command = ["make", "image", f"DOCKER={tmp_path / 'none'}"]
    done = subprocess.run(command, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "finds no container engine" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("verdict", "code"), [("better", 0), ("worse", 0), ("refused", 2), (None, 2)])
def test_a_worse_model_is_an_answer_of_a_retraining_and_anything_else_red_is_not(
    root: Path, tmp_path: Path, verdict: str | None, code: int
) -> None:
    """None: the run stopped before its verdict, and what an earlier one left is not taken for it."""
    shutil.copy(root / "Makefile", tmp_path)
    for name in ("build/report/summary.md", "model/data.lock.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    decision = tmp_path / "build/decision.json"
    decision.write_text('{"verdict": "worse"}')
    run = tmp_path / "run"
    writes = f"echo '{json.dumps({'verdict': verdict})}' > {decision}; " if verdict else ""
    run.write_text(f"#!/bin/sh\n{writes}exit {0 if verdict == 'better' else 2}\n")
    run.chmod(0o755)
    command = ["make", "retrain", f"MAKE={run}", "INSTALLED="]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert code == done.returncode, done.stderr
    assert (tmp_path / "build/evidence/decision.json").exists() == (code == 0)
