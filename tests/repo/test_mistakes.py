"""Mistakes planted into copies of the workflows, and which tool finds each: zizmor, actionlint, or our own rules.

mistakes.yaml is the table. Where actionlint is not on PATH the others must find the mistake, and one that only it finds
is skipped by name.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from .test_workflows import faults

ACTIONLINT = shutil.which("actionlint")
TOOLS = ("zizmor", "actionlint", "ours")
MISTAKES: list[dict[str, str]] = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text(encoding="utf-8"))
PIN = re.compile(r"([\w-]+/[\w-]+)@PIN")


def zizmor(folder: Path) -> set[str]:
    """The audits that report something in a folder, or the error where a file is not a valid workflow."""
    words = [
        "--offline",
        "--strict-collection",
        "--persona",
        "auditor",
        "--no-progress",
        "--quiet",
        "--no-exit-codes",
        "--format",
        "json",
    ]
    program = Path(sys.executable).with_name("zizmor")
    done = subprocess.run([program, *words, "."], cwd=folder, capture_output=True, text=True, check=False)
    return {one["ident"] for one in json.loads(done.stdout)} if done.returncode == 0 else {done.stderr.splitlines()[0]}


def actionlint(folder: Path) -> set[str]:
    """The kinds of errors that actionlint reports in the workflows of a folder."""
    assert ACTIONLINT is not None
    files = [str(path) for path in sorted(folder.glob(".github/workflows/*.yml"))]
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))
    (config,) = yaml.safe_load((Path(__file__).parents[2] / ".github/actionlint.yaml").read_text(encoding="utf-8"))[
        "paths"
    ].values()
    ignored = [word for one in config["ignore"] for word in ("-ignore", one)]
    words = ["-shellcheck", shellcheck, *ignored, "-format", "{{json .}}", *files]
    done = subprocess.run([ACTIONLINT, *words], cwd=folder, capture_output=True, text=True, check=False)
    return {one["kind"] for one in json.loads(done.stdout)}


def edit(mistake: dict[str, str]) -> tuple[str, str, str]:
    """The file, the text in it, and the text that replaces it."""
    if "file" in mistake:
        return mistake["file"], mistake["good"], mistake["bad"]
    after, more = ("      - run: make check\n", "step") if "step" in mistake else ("    timeout-minutes: 20\n", "job")
    lines = textwrap.indent(mistake[more], "        " if more == "step" else "    ")
    return "check.yml", after, after + (f"      - {lines.lstrip()}" if more == "step" else lines)


def plant(root: Path, folder: Path, name: str, good: str, bad: str) -> str:
    """Write the file with its mistake into a folder; return its text."""
    path = Path(".github", name if name == "dependabot.yml" else f"workflows/{name}")
    text = (root / path).read_text(encoding="utf-8")
    every = "".join(one.read_text(encoding="utf-8") for one in (root / ".github/workflows").iterdir())
    good, bad = (PIN.sub(lambda found: re.search(f"{found[1]}@.+", every)[0], one) for one in (good, bad))  # type: ignore[index]
    assert good in text, f"the text to replace is no longer in {path}"
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_text(text.replace(good, bad, 1), encoding="utf-8")
    return (folder / path).read_text(encoding="utf-8")


def found(root: Path, folder: Path, targets: dict[str, str], name: str, good: str, bad: str) -> dict[str, set[str]]:
    """What each installed tool reports."""
    text = plant(root, folder, name, good, bad)
    workflow = name != "dependabot.yml"
    return {
        "zizmor": zizmor(folder),
        "ours": set(faults(text, set(targets))) if workflow else set(),
        **({"actionlint": actionlint(folder) if workflow else set()} if ACTIONLINT else {}),
    }


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["name"])
def test_a_planted_mistake_is_found_by_each_tool_that_the_table_names(
    root: Path, tmp_path: Path, targets: dict[str, str], mistake: dict[str, str]
) -> None:
    said = found(root, tmp_path, targets, *edit(mistake))
    finders = {tool for tool in TOOLS if tool in mistake and tool in said}
    if not finders:
        pytest.skip("actionlint is not on PATH, and nothing else finds this")
    for tool in finders:
        assert any(mistake[tool] in fault for fault in said[tool]), said


def test_the_table_is_long_enough_and_repeats_nothing() -> None:
    """At least 50 different ones, each found by something."""
    assert len(MISTAKES) >= 50
    assert len(MISTAKES) == len({mistake["name"] for mistake in MISTAKES}) == len({edit(one) for one in MISTAKES})
    assert [mistake["name"] for mistake in MISTAKES if not set(TOOLS) & set(mistake)] == []


def test_the_tools_find_nothing_where_nothing_is_planted(root: Path, targets: dict[str, str], tmp_path: Path) -> None:
    """Else their findings of a mistake would prove nothing."""
    for name in sorted({edit(mistake)[0] for mistake in MISTAKES}):
        said = found(root, tmp_path / name, targets, name, "\n", "\n")
        assert [] == [fault for faults in said.values() for fault in faults], name
