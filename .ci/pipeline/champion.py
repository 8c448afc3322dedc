"""Print the commit that this change is compared with: that of the champion's release, or else the base commit.

Where neither is known (the first commit, or a machine without a login to GitHub) it is empty, and the run says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from pipeline import github, release_facts


def base() -> str:
    """Return the base commit that the event gave, else the merge base with ``main`` unless that is this commit."""
    if given := os.environ.get("BASE_COMMIT", ""):
        return given
    words = ["git", "merge-base", "HEAD", "origin/main"]
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return "" if found == head else found


def choose(known: list[release_facts.Release], base_commit: str) -> tuple[str, str]:
    """Return the commit to compare with, and in words which one it is."""
    if holder := release_facts.latest(known, "champion"):
        return holder.commit, f"the champion is release {holder.tag}, commit {holder.commit[:12]}"
    if base_commit:
        return base_commit, f"no release is the champion yet, so this is compared with its base {base_commit[:12]}"
    return "", "there is no release and no base, so this is the first model"


def main() -> None:
    """Set the outputs ``commit`` and ``base``, and say on the summary page which commit was chosen."""
    if not os.environ.get("GITHUB_REPOSITORY") or shutil.which("gh") is None:
        print("GitHub was not asked (that needs gh and GITHUB_REPOSITORY); make run keeps a champion of its own")
        github.output(commit="", base=os.environ.get("BASE_COMMIT", ""))
        return
    commit, words = choose(release_facts.published(), base())
    github.tell(f"Compared with: {words}.")
    github.output(commit=commit, base=os.environ.get("BASE_COMMIT", ""))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
