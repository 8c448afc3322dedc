"""Every make command that a text names exists, and the help lists what people run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CODE_SPAN = re.compile(r"`+([^`\n]+)`+")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|[;&|] *)\$? ?make ([a-z][a-z0-9-]*)", re.MULTILINE)


# These tests may themselves run below make, whose flags are not theirs.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}


def commands(text: str, code_only: bool) -> set[str]:
    """The make targets that a text names; in Markdown those in code, elsewhere those in backticks."""
    pieces = CODE_SPAN.findall(text) + (FENCE.findall(text) if code_only else [])
    return {target for piece in pieces for target in COMMAND.findall(piece)}


def test_commands_are_found_where_a_text_names_them() -> None:
    text = "Use `make run && make test`, then make merry.\n\n```\nmake serve # here\n$ make ci\n```\n"
    assert {"run", "test", "serve", "ci"} == commands(text, code_only=True)


def test_every_make_command_that_a_text_names_exists(root: Path, files: list[Path], targets: dict[str, str]) -> None:
    told = {
        (str(path.relative_to(root)), target)
        for path in files
        if path.suffix in {".md", ".py", ".yaml", ".yml", ".html"} and path != Path(__file__)
        for target in commands(path.read_text(encoding="utf-8", errors="replace"), path.suffix == ".md")
    }
    assert ("README.md", "run") in told
    assert sorted((path, target) for path, target in told if target not in targets) == []


@pytest.mark.parametrize("name", ["Makefile", ".ci/steps.mk"])
def test_every_target_has_a_help_text_and_is_phony(root: Path, targets: dict[str, str], name: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split()  # type: ignore[index]
    assert sorted(rules) == sorted(phony)
    assert set(rules) <= set(targets)


def of_the_makefile(root: Path) -> set[str]:
    text = (root / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE))


def test_help_shows_what_people_run_and_no_step_of_a_workflow(root: Path, targets: dict[str, str]) -> None:
    command = ["make", "help"]
    shown = subprocess.run(command, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    listed = dict(re.findall(r"^  ([a-z-]+) +(.+)$", shown, re.MULTILINE))
    assert listed == {target: targets[target] for target in of_the_makefile(root)}
    assert len(listed) <= 44


def test_a_target_that_only_workflows_call_is_a_step(root: Path, files: list[Path], targets: dict[str, str]) -> None:
    """What steps.mk has is called by a workflow or by another target, so that nothing in it is left over."""
    steps = set(targets) - of_the_makefile(root)
    flows = "".join(path.read_text(encoding="utf-8") for path in (root / ".github").glob("*/**/*.yml"))
    called = set(re.findall(r"\brun: make ([a-z0-9-]+)", flows))
    made = "".join((root / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/steps.mk"))
    needed = set(re.findall(r"(?<=: )([a-z-]+)(?= )", made)) | {"lint", "types", "lock-check", "policy"}
    by_hand = {"image-same"}  # the help has no room for them
    by_hand |= {"azure", "azure-down"}
    by_hand |= {"automl"}
    by_hand |= {"aci"}
    by_hand |= {"minutes", "retention", "template"}
    assert steps - called - needed == by_hand


@pytest.mark.parametrize(("told", "passed"), [("CHAMPION_COMMIT", "c1 c1"), ("OTHER", "none none")])
def test_code_from_before_the_rename_is_told_the_champion_too(
    root: Path, tmp_path: Path, told: str, passed: str
) -> None:
    """A rollback may restore a model.evaluate that asks for REFERENCE_COMMIT; without it, it would meet the base."""
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in ("CHAMPION_COMMIT", "REFERENCE_COMMIT")}
    script = 'echo "${CHAMPION_COMMIT-none} ${REFERENCE_COMMIT-none}" > seen'
    make_with(script, root, tmp_path, ["run"], environment | {told: "c1"})
    assert (tmp_path / "seen").read_text().strip() == passed


TYPED = {
    "run": "DATA PROFILE PARAMS",
    "data-check": "DATA PARAMS TIME MACHINE SENSORS FAILURES MAINT TIME_ZONE TIME_FORMAT SEPARATOR DECIMAL MISSING",
    "adopt": "DATA PLACE PROFILE PARAMS TIME MACHINE SENSORS EPOCH THOUSANDS ENCODING SKIP_LINES",
    "data-pin": "DATA FROM UNTIL UNPIN",
    "drift": "DATA",
    "monitor": "LOG_SINK PROMISED",
    "retrain": "VERSIONS TRAINED",
    "accept": "WHY DECISION",
    "register": "RUN",
    "batch": "DATA OUT",
    "compare": "RUN",
    "sweep": "SWEEP",
    "automl": "TRIALS SEED PROCESSES PARAMS",
    "log-expire": "DAYS",
    "log-erase": "MACHINE CALLER CONFIRM",
    "log-repair": "LOG_SINK SPOOL CONFIRM",
    "rename": "NAME",
}


@pytest.mark.parametrize("said", ["words", "environment"])
@pytest.mark.parametrize("target", TYPED)
def test_what_a_person_types_reaches_the_program_as_it_is(root: Path, tmp_path: Path, target: str, said: str) -> None:
    """A folder may be called ``a$b`` or ``it's "new"``; make and the shell must not read in it."""
    only_typed = {"TIME", "MACHINE", "SENSORS", "FROM", "UNTIL"} if target != "log-erase" else set()
    names = [name for name in TYPED[target].split() if said == "words" or name not in only_typed]
    if said == "environment" and target in ("data-check", "adopt"):
        names = [name for name in names if name in ("DATA", "PLACE", "PROFILE", "PARAMS")]
    space = "" if target == "log-repair" else "  "  # SPOOL names several folders
    hostile = f"""a$b${space}$(shell{space}touch$IFS"x")`touch${{IFS}}y`{space}it's"new"\\\\ü#"""
    values = {name: f"{name}={hostile}" for name in names}
    words = [f"{name}={value}" for name, value in values.items()] if said == "words" else []
    environment = ENVIRONMENT | (values if said == "environment" else {})
    make_with('printf "%s\\n" "$@" >> seen', root, tmp_path, [target, *words], environment)
    seen = (tmp_path / "seen").read_text()
    assert [name for name, value in values.items() if value not in seen] == []
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", ".ci", "bin", "build", "seen"}


def test_tables_to_be_scored_train_no_model(root: Path, tmp_path: Path) -> None:
    """Without a bundle ``make batch`` trains one first, of the copy's own fleet."""
    make_with('printf "%s\\n" "$*" >> seen; touch build/bundle/manifest.json', root, tmp_path, ["batch", "DATA=mine"],
              ENVIRONMENT, bundle=False)  # fmt: skip
    seen = (tmp_path / "seen").read_text().splitlines()
    assert "-m model.train" in seen
    assert [line for line in seen if "mine" in line] == ["-m model.batch --data mine"]


def make_with(
    script: str, root: Path, folder: Path, words: list[str], environment: dict[str, str], *, bundle: bool = True
) -> None:
    """Run make in a folder that holds only the makefiles, with a shell script in the place of Python."""
    (folder / "bin").mkdir()
    (folder / "build/bundle").mkdir(parents=True)
    if bundle:
        (folder / "build/bundle/manifest.json").touch()
    python = folder / "bin/python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    for name in ("Makefile", ".ci/steps.mk"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, folder / name)
    command = ["make", *words, f"BIN={folder}/bin", "INSTALLED=", "OPTUNA="]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)


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
