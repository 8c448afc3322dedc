"""Print which of the jobs that may be skipped this change needs: ``job=true`` or ``job=false`` for each.

Only a pull request may skip jobs, and only those whose result none of its files can change; a push, a merge group and
``main`` run every job. On GitHub the lines become the outputs of the job ``plan``, and ``required`` allows a skip only
where the plan says false.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SKIPPABLE = ("train", "contract", "image")  # where a change touches nothing but the following
HARMLESS = re.compile(r".*\.md|LICENSE|\.editorconfig|\.github/dependabot\.yml")


def plan(event: str, changed: Iterable[str]) -> dict[str, bool]:
    """Return for each job that may be skipped whether it must run."""
    needed = event != "pull_request" or not all(HARMLESS.fullmatch(path) for path in changed)
    return dict.fromkeys(SKIPPABLE, needed)


def changed_files() -> list[str]:
    """Return the files that a pull request changes; its merge commit is checked out, whose first parent is the base."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", "HEAD^1", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\0").split("\0")


def main() -> int:
    """Print the plan, and set it as outputs of the step on GitHub."""
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
