"""docs/living-with-it.md says how to be rid of Kubernetes: done on a copy, which still passes its checks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .test_rename import ENVIRONMENT

# What "take out" means in each file that the text names: patterns, each found exactly so often, and what remains.
JOB_IN_A_LIST = (r', "manifests"(?=[,)}])', 1, "")
EDITS: dict[str, list[tuple[str, int, str]]] = {
    ".github/workflows/ci.yml": [
        (r"\n  manifests:\n(?:    .*\n)+", 1, ""),
        (r"(?<=image), manifests(?=\]\n    if: \$\{\{ always)", 1, ""),
    ],
    ".github/workflows/release.yml": [
        (
            r"      - uses: actions/download-artifact.*\n        with:\n          name: manifests\n(?:          .*\n)+",
            1,
            "",
        )
    ],
    "Makefile": [(r"(?<=image-same) manifests(?= test)", 1, ""), (r"\nmanifests: .*\n(?:\t.*\n)+", 1, "")],
    ".ci/dev/rename.py": [(r'    "k8s/.*\n', 2, ""), (r"NAMESPACE = .*\n", 1, "")],
    ".ci/dev/doctor.py": [(r'    "kustomize": .*\n', 1, "")],
    "README.md": [(r", \[`k8s/`\]\(k8s/README\.md\)", 1, "")],
    ".ci/README.md": [(r"\| `manifests\.py` .*\n", 1, ""), (r" and `make manifests`", 1, "")],
    ".github/README.md": [(r", `manifests\.yml`", 1, ""), (r"(?<=image), manifests", 1, "")],
    ".github/CODEOWNERS": [(r"# /k8s/ .*\n", 1, "")],
    "tests/repo/test_events.py": [JOB_IN_A_LIST],
    "tests/repo/test_pipeline.py": [JOB_IN_A_LIST],
    "tests/repo/test_runner.py": [(r'    "manifests": .*\n', 1, ""), JOB_IN_A_LIST],
    "tests/repo/mistakes.yaml": [(r"- name: .*\n  file: manifests\.yml\n(?:  .*\n)+", 1, "")],
    "tests/repo/test_workflows.py": [(r'    \("name: Render and validate the manifests".*\n', 1, "")],
    "tests/repo/test_rename.py": [
        (r'(?<="text"), "manifests"', 1, ""),
        (r"    .*\bmanifests\b.*\n", 3, ""),
        (r"import re\n", 1, ""),
    ],
    "tests/repo/test_hostile.py": [(r', "k8s"', 1, "")],
}
CHECKS = [
    "events",
    "files",
    "make",
    "mistakes",
    "pipeline",
    "rename",
    "runner",
    "text",
    "workflow_settings",
    "workflows",
]

LESS = ("-k", "not renamed_copy and not cannot_be_used and not machine_without_python")  # slow, and not about this


def told(root: Path, head: str) -> list[str]:
    """The paths in the first column of the table with that head."""
    text = (root / "docs/living-with-it.md").read_text(encoding="utf-8")
    table = re.search(rf"^\| {head} \|.*\n\| --- .*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    return [name for row in table[1].splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def take_out(folder: Path, name: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    for pattern, times, left in EDITS[name]:
        text, found = re.subn(pattern, left, text)
        assert found == times, f"{name} holds {pattern} {found} times"
    path.write_text(text, encoding="utf-8")


def checked(copy: Path) -> str:
    """What the checks of a copy say against it."""
    tools = copy / ".venv/bin"
    said = ""
    for command in (
        [tools / "ruff", "check", "--quiet", "."],
        [tools / "yamllint", "--strict", "."],
        [tools / "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/repo/test_{name}.py" for name in CHECKS), *LESS],
        ["make", "rename", "NAME=press-line"],
    ):
        done = subprocess.run(command, cwd=copy, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        said += done.stdout + done.stderr if done.returncode else ""
    return said


def test_the_text_names_the_files_that_the_copy_below_loses_something_in(root: Path) -> None:
    assert sorted(told(root, "in")) == sorted(EDITS)


def test_a_copy_without_kubernetes_passes_its_checks(
    root: Path, copied: Callable[[Path], Path], tmp_path: Path
) -> None:
    copy = copied(tmp_path / "copy")
    for name in told(root, "delete"):
        gone = copy / name
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    for name in told(root, "in"):
        take_out(copy, name)
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=copy, check=True)
    assert checked(copy) == ""
