"""Say which commit this change must meet: that of the release which is the reference, or else the base commit.

Where neither is known (the first commit of all, or a laptop that is not logged in) the answer is empty, and the run
says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from pipeline import github, release_facts


def base() -> str:
    """The base commit that the event gave, else the merge base with ``main`` where that is another commit than this."""
    if given := os.environ.get("BASE_COMMIT", ""):
        return given
    words = ["git", "merge-base", "HEAD", "origin/main"]
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return "" if found == head else found


def choose(known: list[release_facts.Release], base_commit: str) -> tuple[str, str]:
    """The commit to meet, and in words which one it is."""
    if holder := release_facts.latest(known, "reference"):
        return holder.commit, f"the reference is release {holder.tag}, commit {holder.commit[:12]}"
    if base_commit:
        return base_commit, f"no release is the reference yet, so this meets its base, commit {base_commit[:12]}"
    return "", "there is no release and no base, so this is the first model"


def main() -> None:
    """Print the choice, and hand it on."""
    if not os.environ.get("GITHUB_REPOSITORY") or shutil.which("gh") is None:
        print(
            "no releases can be asked for here (gh and GITHUB_REPOSITORY are needed); make run keeps its own champion"
        )
        github.output(commit="", base=os.environ.get("BASE_COMMIT", ""))
        return
    commit, words = choose(release_facts.published(), base())
    github.tell(f"Compared with: {words}.")
    github.output(commit=commit, base=os.environ.get("BASE_COMMIT", ""))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
