"""Push this branch, open a pull request, and let it merge itself once it is green: ``make pr``.

It is armed with the person's own login: a merge that a workflow's token has armed starts no workflow on main, so
nothing would ship. The pull request goes to this repository, also where it is a fork.
"""

from __future__ import annotations

import json
import os
import sys

from dev.desk import RefusedError, api, repository, run


def branch() -> str:
    """The branch to send.

    Raises:
        RefusedError: there is none, it is main, or not all of it is committed.
    """
    name = run("git", "branch", "--show-current")
    if name in {"", "main"}:
        where = "on main" if name else "on no branch"
        raise RefusedError(f"you are {where}; take a branch of your own: git switch --create my-change")
    if changed := run("git", "status", "--porcelain"):
        shown = ", ".join(line[3:] for line in changed.splitlines()[:3])
        raise RefusedError(f"not committed yet, so it would not be in it: {shown}; git commit, or git stash")
    return name


def send() -> list[str]:
    """Do it; one line for each thing done.

    Raises:
        RefusedError: it cannot be done.
    """
    if os.environ.get("GITHUB_ACTIONS"):
        raise RefusedError("this is a workflow, whose token arms merges that start nothing; a person runs this")
    name = branch()
    here = repository()
    base = api(f"repos/{here}")["default_branch"]
    run("git", "fetch", "--quiet", "origin", base)
    if run("git", "rev-list", "--count", f"origin/{base}..HEAD") == "0":
        raise RefusedError(f"{name} has no commit that origin/{base} lacks")
    run("git", "push", "--quiet", "--set-upstream", "origin", name)
    to = ("--repo", here)
    there = json.loads(run("gh", "pr", "list", *to, "--head", name, "--state", "open", "--json", "url"))
    url = there[0]["url"] if there else run("gh", "pr", "create", *to, "--base", base, "--head", name, "--fill")
    said = [f"{'there already' if there else 'opened'}: {url}"]
    try:
        run("gh", "pr", "merge", *to, "--auto", "--squash", url)
    except RefusedError as error:
        raise RefusedError(
            f"{said[0]}, but it will not merge itself ({error}); `make protect` allows that and says what must be "
            "green first: without a required check there is nothing to wait for"
        ) from error
    return [*said, "it merges itself once it is green; to stop that: gh pr merge --disable-auto"]


def main() -> int:
    """Send it. Exit code 1: refused."""
    try:
        print(*send(), sep="\n")
    except RefusedError as error:
        print(f"make pr: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
