"""Branches and pull requests that the line opens: nothing is checked out, and no hook or code of the branch runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pipeline import github

AUTHOR = {
    "GIT_AUTHOR_NAME": "github-actions[bot]",
    "GIT_AUTHOR_EMAIL": "41898282+github-actions[bot]@users.noreply.github.com",
    "GIT_COMMITTER_NAME": "github-actions[bot]",
    "GIT_COMMITTER_EMAIL": "41898282+github-actions[bot]@users.noreply.github.com",
}
MAIN = "origin/main"
LOGIN = "credential.helper=!gh auth git-credential"  # the token of GH_TOKEN, kept nowhere


def git(*words: str, index: str = "") -> str:
    """What git prints. Raises LineError where it fails."""
    os.environ.update(AUTHOR | ({"GIT_INDEX_FILE": index} if index else {}))
    try:
        return github.call("git", *words).strip()
    finally:
        os.environ.pop("GIT_INDEX_FILE", None)


def restored(commit: str, kept: str = ".github") -> str:
    """The tree of a commit, but with ``main``'s own ``.github``, which the token of a run may not write."""
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder, "index"))
        git("read-tree", commit, index=index)
        git("rm", "-r", "--quiet", "--force", "--cached", "--ignore-unmatch", "--", kept, index=index)
        if git("ls-tree", MAIN, kept):
            git("read-tree", f"--prefix={kept}/", f"{MAIN}:{kept}", index=index)
        return git("write-tree", index=index)


def changed(path: str, content: Path) -> str:
    """The tree of ``main`` with one file replaced."""
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder, "index"))
        git("read-tree", MAIN, index=index)
        blob = git("hash-object", "-w", str(content))
        git("update-index", "--cacheinfo", f"100644,{blob},{path}", index=index)
        return git("write-tree", index=index)


def push(tree: str, branch: str, message: str) -> str:
    """One commit on ``main`` with that tree, pushed as that branch; returns the commit."""
    commit = git("commit-tree", tree, "-p", MAIN, "-m", message)
    git("-c", LOGIN, "push", "--force", "origin", f"{commit}:refs/heads/{branch}")
    return commit


def propose(branch: str, title: str, body: str) -> None:
    """Open the pull request, or say how a person can."""
    words = ["--repo", github.repository(), "--head", branch, "--base", "main", "--title", title, "--body-file", "-"]
    try:
        print(github.gh("pr", "create", *words, stdin=body))
    except github.LineError as error:
        address = f"{github.setting('GITHUB_SERVER_URL')}/{github.repository()}/compare/{branch}?expand=1"
        github.tell(
            f"No pull request could be opened ({error}). Open it by hand: {address}. To let runs do it: Settings → "
            "Actions → General → Allow GitHub Actions to create pull requests."
        )


def check(branch: str) -> None:
    """See that the branch gets its checks.

    What a run's own token opens starts no workflow, so ci.yml is started by hand then, and reports a commit status.
    With the token of a GitHub App (AS_APP) everything starts by itself.
    """
    if os.environ.get("AS_APP") != "true":
        github.gh("workflow", "run", "ci.yml", "--repo", github.repository(), "--ref", branch)
