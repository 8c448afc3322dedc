"""docs/living-with-it.md says how a copy takes the template's later changes: its commands, run as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

WHO = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *WHO, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def commit(folder: Path, **contents: str) -> str:
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", ", ".join(contents))
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def told(root: Path) -> list[str]:
    """The git commands of that section, with their comments."""
    text = (root / "docs/living-with-it.md").read_text(encoding="utf-8")
    block = re.search(r"^```\n(git remote add template.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert "make pr " in block[1].splitlines()[-1]
    return [line for line in block[1].splitlines() if line.startswith("git ")]


def follow(told: list[str], copy: Path, template: Path, began: str, again: bool = False) -> None:
    for line in told:
        command, _, comment = line.partition(" #")
        if again and comment.strip() == "once":
            continue
        words = re.findall(r"'([^']*)'|(\S+)", command)
        plain = [quoted or bare for quoted, bare in words][1:]
        git(copy, *(str(template) if "OWNER/REPO" in word else began if word == "BEGAN" else word for word in plain))


def squash(copy: Path, branch: str) -> None:
    """As `make pr` has GitHub merge: one commit on main, which knows nothing of the branch's merges."""
    git(copy, "switch", "--quiet", "main")
    git(copy, "merge", "--quiet", "--squash", branch)
    git(copy, "commit", "--quiet", "--message", "squashed")
    assert git(copy, "rev-list", "--count", "--min-parents=2", "HEAD") == "0"


LINES = "".join(f"line {number}\n" for number in range(20))


def test_a_copy_takes_later_changes_again_and_again_and_keeps_its_own(told: list[str], tmp_path: Path) -> None:
    template, copy = tmp_path / "template", tmp_path / "copy"
    for folder in (template, copy):
        folder.mkdir()
        git(folder, "init", "--quiet")
    began = commit(template, params="a: 1\n", code=LINES)
    commit(copy, params="a: 1\n", code=LINES)  # "Use this template": the files, and none of the history
    commit(copy, params="a: 2\n", code=LINES.replace("line 1\n", "ours\n"))
    commit(template, code=LINES.replace("line 18\n", "theirs\n"), new="new\n")

    follow(told, copy, template, began)
    assert (copy / "params").read_text() == "a: 2\n"
    assert (copy / "new").read_text() == "new\n"
    assert (copy / "code").read_text() == LINES.replace("line 1\n", "ours\n").replace("line 18\n", "theirs\n")

    took = git(copy, "rev-parse", "template/main")
    squash(copy, "template-update")
    commit(copy, params="a: 3\n")
    commit(template, new="newer\n", code=LINES.replace("line 18\n", "theirs again\n"))
    follow(told, copy, template, took, again=True)
    assert (copy / "new").read_text() == "newer\n"
    assert (copy / "params").read_text() == "a: 3\n"
    assert (copy / "code").read_text() == LINES.replace("line 1\n", "ours\n").replace("line 18\n", "theirs again\n")


def test_without_the_first_step_it_would_be_conflicts(tmp_path: Path) -> None:
    template, copy = tmp_path / "template", tmp_path / "copy"
    for folder, value in ((template, "a: 1\n"), (copy, "a: 2\n")):
        folder.mkdir()
        git(folder, "init", "--quiet")
        commit(folder, params=value)
    git(copy, "remote", "add", "template", str(template))
    git(copy, "fetch", "--quiet", "template")
    words = ["git", *WHO, "merge", "--allow-unrelated-histories", "template/main"]
    assert subprocess.run(words, cwd=copy, capture_output=True, check=False).returncode == 1
