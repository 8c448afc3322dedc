"""Branches and pull requests that the pipeline opens. Nothing is checked out, and no hook or code of a branch runs."""

from __future__ import annotations

import json
import os
import subprocess
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
LOGIN = "credential.helper=!gh auth git-credential"  # uses the token in GH_TOKEN and stores it nowhere
# The pipeline's own code. A rollback leaves it as it is on main: today's workflows call today's make targets, and the
# token of a run may not write .github.
OF_THE_PIPELINE = (".github", ".ci", "Makefile", "tests/repo")

# Only a person's login or an App's token starts the workflows of a pull request at once.
WAITS = (
    "The token of a run opened this. The run started its checks, which report `required` as a status; nothing more is "
    "needed. GitHub also offers to approve workflows to run here: that runs the same checks once more, and then both "
    "must be green. With a GitHub App (the variable APP_CLIENT_ID) they start by themselves."
)


def git(*words: str, index: str = "") -> str:
    """Run git as the author of bots and return its output, stripped; ``index`` is an index file of its own.

    Raises:
        PipelineError: git failed.
    """
    return github.call("git", *words, env=AUTHOR | ({"GIT_INDEX_FILE": index} if index else {})).strip()


def restored(commit: str, kept: tuple[str, ...] = OF_THE_PIPELINE) -> str:
    """Return the tree of a commit in which the paths of ``kept`` are those of ``main``."""
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder, "index"))
        git("read-tree", commit, index=index)
        literal = "--literal-pathspecs"  # a name may have the signs of a pattern
        git(literal, "rm", "-r", "--quiet", "--force", "--cached", "--ignore-unmatch", "--", *kept, index=index)
        if entries := github.call("git", literal, "ls-tree", "-r", "-z", MAIN, "--", *kept):
            github.call("git", "update-index", "-z", "--index-info", stdin=entries, env={"GIT_INDEX_FILE": index})
        return git("write-tree", index=index)


def changed(files: dict[str, Path]) -> str:
    """Return the tree of ``main`` with files replaced: each path with the file that has its new content."""
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder, "index"))
        git("read-tree", MAIN, index=index)
        for path, content in files.items():
            blob = git("hash-object", "-w", str(content))
            git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
        return git("write-tree", index=index)


def head(branch: str) -> str:
    """Return the newest commit of a branch of ``origin`` as it was fetched; an empty text where there is none."""
    return git("for-each-ref", "--format=%(objectname)", f"refs/remotes/origin/{branch}")


def content(commit: str, path: str) -> str:
    """Return the content of a file in a commit; an empty text where it has no such file."""
    return git("show", f"{commit}:{path}") if git("ls-tree", commit, "--", path) else ""


def history(branch: str) -> list[str]:
    """Return the commits that a branch has had, the newest first, without those that were merged into it."""
    return git("rev-list", "--first-parent", branch).split()


def by_people(branch: str, path: str) -> list[str]:
    """Return the commits of a branch, shortened, that the author of bots did not make.

    A merge of ``main`` into the branch does not count, as long as it leaves everything but ``path`` as on ``main``, or
    is the very one that git makes, as GitHub's button to update a branch does.
    """
    found = []
    for line in git("log", "--format=%h %ae %P", f"{MAIN}..origin/{branch}").splitlines():
        commit, author, *parents = line.split()
        if author == AUTHOR["GIT_AUTHOR_EMAIL"]:
            continue
        of_main = len(parents) == 2 and not git("rev-list", "-1", parents[1], f"^{MAIN}")
        if not of_main or (git("diff", "--name-only", parents[1], commit) != path and not by_itself(commit, parents)):
            found.append(commit)
    return found


def by_itself(commit: str, parents: list[str]) -> bool:
    """Return whether a merge has what git makes of its parents, so that nobody wrote any of it."""
    words = ["git", "merge-tree", "--write-tree", *parents]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode == 0 and done.stdout.strip() == git("rev-parse", f"{commit}^{{tree}}")


def renew(tree: str, branch: str, message: str, seen: str) -> str:
    """Make a branch one commit with that tree on top of ``main``; return the commit. It is pushed unless it is there.

    Raises:
        PipelineError: the branch is not at ``seen`` any more: someone has pushed to it. It stays as it is.
    """
    if seen and git("rev-parse", f"{seen}^{{tree}}", f"{seen}^@") == "\n".join([tree, git("rev-parse", MAIN)]):
        return seen
    commit = git("commit-tree", tree, "-p", MAIN, "-m", message)
    lease = f"--force-with-lease=refs/heads/{branch}:{seen}"
    git("-c", LOGIN, "push", lease, "origin", f"{commit}:refs/heads/{branch}")
    return commit


def is_app() -> bool:
    """Return whether this step's token is that of a GitHub App (AS_APP): what it does starts workflows."""
    return os.environ.get("AS_APP") == "true"


def with_notice(body: str) -> str:
    """Return the text of a pull request with what is to be known of its checks."""
    return body if is_app() else f"{body}\n\n{WAITS}\n"


def update(number: int, title: str, body: str) -> None:
    """Give a pull request another title and text."""
    words = ["--method", "PATCH", f"repos/{github.repository()}/pulls/{number}", "--input", "-"]
    github.gh("api", *words, stdin=json.dumps({"title": title, "body": with_notice(body)}))


def propose(branch: str, title: str, body: str) -> None:
    """Open the pull request of a branch; where runs may not, say on the summary page how a person can."""
    words = ["--repo", github.repository(), "--head", branch, "--base", "main", "--title", title, "--body-file", "-"]
    try:
        print(github.gh("pr", "create", *words, stdin=with_notice(body)))
    except github.PipelineError as error:
        address = f"{github.setting('GITHUB_SERVER_URL')}/{github.repository()}/compare/{branch}?expand=1"
        github.tell(
            f"No pull request could be opened ({error}). Open it yourself: {address}. To let runs do it: Settings → "
            "Actions → General → Allow GitHub Actions to create pull requests."
        )


def check(branch: str) -> None:
    """Start ci.yml on a branch, unless its push has started it.

    A push with a run's own token starts no workflow, so ci.yml is started here and reports a commit status. A push
    with the token of a GitHub App (AS_APP) starts it.
    """
    if not is_app():
        github.gh("workflow", "run", "ci.yml", "--repo", github.repository(), "--ref", branch)


def check_once(branch: str, commit: str) -> None:
    """Start ci.yml on a branch, unless it was started for this commit, or a push with an App's token has started it."""
    if is_app():
        return
    found = github.gh("api", f"repos/{github.repository()}/actions/workflows/ci.yml/runs?head_sha={commit}")
    if not json.loads(found)["total_count"]:
        check(branch)
