"""Push this branch, open a pull request, and have GitHub merge it once it is green: ``make pr``.

Auto-merge is enabled with the person's own login. A merge that a workflow's token has enabled starts no workflow on
main, so nothing would be released. The pull request goes to the repository of ``origin``, also where that is a fork.
"""

from __future__ import annotations

import json
import os
import sys

from dev.origin import git, origin
from pipeline.github import PipelineError


def branch() -> str:
    """Return the name of the branch to push.

    Raises:
        PipelineError: no branch or main is checked out, or there are uncommitted changes.
    """
    name = git("branch", "--show-current")
    if name in {"", "main"}:
        where = "main" if name else "no branch"
        raise PipelineError(f"{where} is checked out; make a branch of your own: git switch --create my-change")
    if changed := git("status", "--porcelain"):
        shown = ", ".join(line[3:] for line in changed.splitlines()[:3])
        raise PipelineError(f"uncommitted changes would not be part of it: {shown}; git commit, or git stash")
    return name


def send() -> list[str]:
    """Push, open the pull request and enable auto-merge; return one line for each thing done.

    Raises:
        PipelineError: one of these is not possible.
    """
    if os.environ.get("GITHUB_ACTIONS"):
        raise PipelineError("a workflow's token cannot do this, since its merge starts no workflow; run it yourself")
    name = branch()
    here = origin()
    base = here.api()["default_branch"]
    git("fetch", "--quiet", "origin", base)
    if git("rev-list", "--count", f"origin/{base}..HEAD") == "0":
        raise PipelineError(f"{name} has no commit that origin/{base} lacks")
    git("push", "--quiet", "--set-upstream", "origin", name)
    to = ("--repo", here.name)
    there = json.loads(here.gh("pr", "list", *to, "--head", name, "--state", "open", "--json", "url"))
    url = there[0]["url"] if there else here.gh("pr", "create", *to, "--base", base, "--head", name, "--fill")
    done = [f"{'already open' if there else 'opened'}: {url}"]
    try:
        here.gh("pr", "merge", *to, "--auto", "--squash", url)
    except PipelineError as error:
        raise PipelineError(
            f"{done[0]}, but auto-merge could not be enabled ({error}); `make setup` allows it and sets the check "
            "that must be green first"
        ) from error
    return [*done, "GitHub merges it once it is green; to stop that: gh pr merge --disable-auto"]


def main() -> int:
    """Run ``make pr`` and return the exit code; 1: refused."""
    try:
        print(*send(), sep="\n")
    except PipelineError as error:
        print(f"make pr: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
