"""What a restored release lacks of what today's checks read: the make targets stay main's, and its code is older.

A rollback's pull request names it, so that a person knows which jobs will be red, and why, before they are.
"""

from __future__ import annotations

import os
import re
import subprocess
from fnmatch import fnmatch

from pipeline import branches, github

WORKFLOWS = ("check", "test", "train", "contract", "image", "cluster", "manifests")  # those that the verdict waits for
MAKEFILES = ("Makefile", ".ci/steps.mk")
CALLED = re.compile(r"\brun: make ([a-z0-9-]+)")
GUARDED = re.compile(r"\$\(wildcard ([^)]+)\)")  # make does without these
MODULE = re.compile(r"-m ((?:model|score)\.[\w.]+)")
FILE = re.compile(r"(?<![\w./-])((?:docker|k8s|model|requirements|score|src|tests)/[\w/-]+\.(?:py|txt))\b")
OUTER = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}  # of the make that started this program
NOTHING_TO_MAKE = ("INSTALLED=", "WHEEL=", "BUNDLE=")


def targets() -> list[str]:
    """Return the make targets that the jobs of a pull request call."""
    folder = github.ROOT / ".github/workflows"
    found = [CALLED.findall((folder / f"{name}.yml").read_text(encoding="utf-8")) for name in WORKFLOWS]
    return list(dict.fromkeys(target for each in found for target in each))


def needs(target: str) -> list[str]:
    """Return the files that a target's commands name, as make would run them; nothing is run.

    Raises:
        PipelineError: make does not know the target.
    """
    words = ["make", "--dry-run", "--no-print-directory", *NOTHING_TO_MAKE, target]
    environment = {name: value for name, value in os.environ.items() if name not in OUTER}
    done = subprocess.run(words, cwd=github.ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise github.PipelineError(f"`make --dry-run {target}` failed: {done.stderr.strip()}")
    modules = [f"{name.replace('.', '/')}.py" for name in MODULE.findall(done.stdout)]
    named, without = {*modules, *FILE.findall(done.stdout)}, guarded()
    return sorted(path for path in named if not any(fnmatch(path, pattern) for pattern in without))


def guarded() -> set[str]:
    """Return the patterns of files that the makefiles ask for by ``wildcard`` before they use them."""
    texts = [(github.ROOT / name).read_text(encoding="utf-8") for name in MAKEFILES]
    return {name for text in texts for each in GUARDED.findall(text) for name in each.split()}


def of(tree: str) -> dict[str, list[str]]:
    """Return for each make target of a pull request's jobs what a tree lacks of it; without those that lack nothing."""
    there = set(branches.git("ls-tree", "-r", "--name-only", tree).splitlines())
    found = {target: [path for path in needs(target) if path not in there] for target in targets()}
    return {target: missing for target, missing in found.items() if missing}


def told(tree: str) -> list[str]:
    """Return that in lines of Markdown; none where nothing is missing."""
    found = of(tree)
    if not found:
        return []
    rows = [f"- `make {target}`: {', '.join(f'`{path}`' for path in missing)}" for target, missing in found.items()]
    return [
        "The release is older than some of today's checks. These are red until what they read is here too; add it from",
        "`main`, or, where that does not fit the old code, close this and merge a fix instead:",
        "",
        *rows,
        "",
    ]
