"""Say which of the jobs that may be skipped this change needs: one ``job=true`` or ``job=false`` for each.

Only a pull request is ever spared anything, and only what none of its files can change; a push, a merge group and
``main`` get every job. On GitHub the lines become the outputs of the job ``plan``, and ``required`` allows a skip only
where the plan says false.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SPARED = ("train", "contract", "image")  # by a change that touches nothing but the following
HARMLESS = re.compile(r".*\.md|LICENSE|k8s/.*|\.editorconfig|\.github/dependabot\.yml")


def plan(event: str, changed: Iterable[str]) -> dict[str, bool]:
    """For each job that may be skipped, whether it must run."""
    needed = event != "pull_request" or not all(HARMLESS.fullmatch(path) for path in changed)
    return dict.fromkeys(SPARED, needed)


def changed_files() -> list[str]:
    """The files of a pull request; its merge commit is checked out, whose first parent is the base."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", "HEAD^1", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\0").split("\0")


def main() -> int:
    """Print the plan, and hand it to GitHub where it asks for it."""
    event = os.environ.get("GITHUB_EVENT_NAME", "")
    jobs = plan(event, changed_files() if event == "pull_request" else [])
    lines = "".join(f"{job}={str(needed).lower()}\n" for job, needed in jobs.items())
    print(lines, end="")
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a", encoding="utf-8") as file:
            file.write(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
