"""The checkers that are no Python packages: locked by digest, built in the jobs that use them, and red where absent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

LOCKS = ".ci/tools"
MAKEFILE = """\
include {0}/Makefile
here:
\t$(call if-there,{1},{1} -version)
"""


def locked(root: Path) -> list[str]:
    return sorted(folder.name for folder in (root / LOCKS).iterdir())


def test_each_is_locked_with_the_digest_of_all_that_it_is_built_from(root):
    assert {"actionlint", "gitleaks"} <= set(locked(root))
    for name in locked(root):
        mod = (root / LOCKS / name / "go.mod").read_text()
        (tool,) = re.findall(r"^tool (\S+)$", mod, re.MULTILINE)
        assert name in tool
        sums = (root / LOCKS / name / "go.sum").read_text()
        for module, version in re.findall(r"^\t(\S+) (v\S+)", mod, re.MULTILINE):
            assert re.search(rf"^{re.escape(module)} {re.escape(version)} h1:\S+=$", sums, re.MULTILINE), module


def test_every_hosted_job_that_calls_one_builds_them_first(root):
    """A checker that is only skipped would be a green nobody looked at."""
    seen = set()
    for path in sorted((root / ".github/workflows").glob("*.yml")):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            steps = job.get("steps", [])
            runs = [step.get("run", "") for step in steps]
            for target in ("make check", "make manifests"):
                if target in runs:
                    assert "make checkers" in runs[: runs.index(target)], f"{path.name}: {target}"
                    seen.add(target)
    assert "make check" in seen


@pytest.mark.skipif(os.environ.get("GITHUB_ACTIONS") != "true" or "ACT" in os.environ, reason="no hosted run")
def test_in_a_hosted_run_each_is_there(root):
    assert [] == [name for name in locked(root) if shutil.which(name) is None]


@pytest.mark.parametrize(
    ("name", "hosted", "code", "said"),
    [
        ("gitleaks", "true", 2, "gitleaks is not on PATH; run: make checkers"),
        ("gitleaks", "", 0, "skipped: gitleaks is not on PATH"),
        ("act-run", "true", 0, "skipped: act-run is not on PATH"),  # nothing locks it
    ],
)
def test_a_locked_checker_that_is_absent_is_skipped_on_a_laptop_and_red_in_a_hosted_run(
    root, tmp_path, name, hosted, code, said
):
    (tmp_path / "Makefile").write_text(MAKEFILE.format(root, name))
    (tmp_path / "path").mkdir()
    for program in ("make", "sh", "bash", "git", "uname", "python3"):
        if found := shutil.which(program):
            (tmp_path / "path" / program).symlink_to(found)
    environment = {"PATH": str(tmp_path / "path"), "HOME": str(tmp_path), "GITHUB_ACTIONS": hosted}
    done = subprocess.run(
        ["make", "-f", tmp_path / "Makefile", "here"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert code == done.returncode, done.stderr
    assert said in done.stdout + done.stderr


def test_what_is_built_as_its_lock_has_it_is_not_built_again(root: Path, tmp_path: Path) -> None:
    """A pull request restores build/checkers from main's cache; a lock that it changes is built."""
    (tmp_path / "bin").mkdir()
    tool = "\n".join(
        ["#!/bin/sh", f'echo "$@" >> {tmp_path}/calls', 'touch "$GOBIN/${2##*/}"', 'chmod +x "$GOBIN/${2##*/}"']
    )
    (tmp_path / "bin/go").write_text(f"{tool}\n")
    (tmp_path / "bin/go").chmod(0o755)
    for program in ("make", "sh", "bash", "git", "uname", "python3", "cmp", "cp", "mkdir", "touch", "chmod"):
        if found := shutil.which(program):
            (tmp_path / "bin" / program).symlink_to(found)
    for name in locked(root):
        shutil.copytree(root / LOCKS / name, tmp_path / LOCKS / name)
    (tmp_path / "Makefile").write_text(f"include {root}/Makefile\n")

    def built() -> list[str]:
        (tmp_path / "calls").write_text("")
        environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
        words = ["make", "-C", tmp_path, "-I", root, "checkers"]
        subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        return re.findall(rf"{LOCKS}/(\S+) install", (tmp_path / "calls").read_text())

    assert locked(root) == sorted(built())
    assert [] == built()
    (tmp_path / LOCKS / "gitleaks/go.sum").write_text("newer\n")
    assert ["gitleaks"] == built()
    (tmp_path / "build/checkers/actionlint").unlink()
    assert ["actionlint"] == built()
