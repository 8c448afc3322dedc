"""Offer the template's later changes as one pull request of its own: a three-way merge, made without a checkout.

The template's address is TEMPLATE, else what GitHub says this copy was made from; without one nothing is offered. The
commit that the copy has is in .ci/template.json, which each such pull request moves; before the first one it is the
commit of the template that has the very files of this copy's first commit. What the merge cannot decide, and workflow
files, which GitHub lets no token of a run push, stay as they are here and are listed there as ``open``: a test is red
until a person has run ``make template`` on the branch, which merges those too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline import branches, comment, github, propose

RECORD = ".ci/template.json"  # the template's commit that this copy has, and what of it is still open
BRANCH = "template-update"
TITLE = "Take the template's later changes"
REF = "refs/template/main"  # where its branch main is fetched to
OF_RUNS = ".github/workflows/"  # docs.github.com: to push a change there takes the permission `workflows`
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+")
OFFERED = "<!-- template {} -->"
MOST = 30  # lines of a list in the pull request; GitHub takes 65,536 characters in all
WIDEST = 200  # characters of such a line


def named() -> tuple[str, str]:
    """Return the template as ``owner/name``, empty where nothing is to be offered; and then why, in words.

    Raises:
        PipelineError: TEMPLATE is neither ``owner/name`` nor ``none``, or GitHub cannot be asked.
    """
    given = os.environ.get("TEMPLATE", "")
    if given == "none":
        return "", "the variable TEMPLATE is none"
    if given:
        if not NAME.fullmatch(given):
            raise github.PipelineError("TEMPLATE is no OWNER/NAME; write the template's repository so, or none")
        return given, ""
    about = json.loads(github.gh("api", f"repos/{github.repository()}")).get("template_repository")
    if not about:
        return "", "GitHub knows of no template that this was made from; the variable TEMPLATE=OWNER/NAME may name it"
    if about.get("private"):
        return "", "the template is private, so that the token of this run cannot read it; take its changes by hand"
    return str(about["full_name"]), ""


def fetch(name: str) -> str:
    """Fetch the template's branch ``main`` without any login; return its newest commit.

    Raises:
        PipelineError: it cannot be fetched.
    """
    address = f"{os.environ.get('GITHUB_SERVER_URL') or 'https://github.com'}/{name}"
    words = ("-c", "credential.helper=", "fetch", "--quiet", "--no-tags", address, f"+refs/heads/main:{REF}")
    try:
        github.call("git", *words, env={"GIT_TERMINAL_PROMPT": "0"})
    except github.PipelineError as error:
        raise github.PipelineError(
            f"the template {name} cannot be fetched ({error}); set the variable TEMPLATE to where it is, or to none"
        ) from error
    return branches.git("rev-parse", REF)


def began(ours: str) -> str:
    """Return the template's commit that a commit of this copy has, from which the merge starts.

    Where some of an update is still ``open`` there, that is where that update began: else its changes would be lost.

    Raises:
        PipelineError: nothing says it, or the template does not have that commit.
    """
    fix = f"write it into {RECORD} on main: " + '{"commit": "…"}'
    try:
        known = json.loads(branches.content(ours, RECORD) or "{}")
        found = str((known.get("since") if known.get("open") else None) or known["commit"]) if known else ""
    except (ValueError, AttributeError, KeyError) as error:
        raise github.PipelineError(f"{RECORD} cannot be read ({error!r}); {fix}") from error
    if found:
        if not re.fullmatch(r"[0-9a-f]{40}", found) or not ancestor(found):
            raise github.PipelineError(f"{RECORD} names {found[:12]}, which is no commit of the template; {fix}")
        return found
    done = subprocess.run(["git", "merge-base", ours, REF], capture_output=True, text=True, check=False)
    if done.returncode == 0:  # a fork shares the template's history
        return done.stdout.strip()
    roots = branches.git("rev-list", "--max-parents=0", ours).split()
    trees = {branches.git("rev-parse", f"{root}^{{tree}}") for root in roots}
    for line in branches.git("log", "--format=%H %T", REF).splitlines():
        commit, tree = line.split()
        if tree in trees:
            return commit
    raise github.PipelineError(f"no commit of the template has the files that this copy began with; {fix}")


def ancestor(commit: str) -> bool:
    """Return whether a commit is one of the template's."""
    words = ["git", "merge-base", "--is-ancestor", commit, REF]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def merged(base: str, ours: str, theirs: str) -> tuple[str, list[str]]:
    """Return the tree of a three-way merge, and the files that it cannot decide, which have its marks in the tree.

    Raises:
        PipelineError: git cannot merge.
    """
    sides = [branches.git("commit-tree", f"{one}^{{tree}}", "-p", base, "-m", "side") for one in (ours, theirs)]
    words = ["git", "merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", *sides]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        raise github.PipelineError(f"the template cannot be merged: {' '.join(done.stderr.split())[:300]}")
    tree, *found = done.stdout.rstrip("\0").split("\0")
    return tree, sorted(set(found))


def with_record(tree: str, base: str, commit: str, undecided: list[str]) -> str:
    """Return a tree with the record of the template's commit in it; of what is open, also where its merge began."""
    known = {"commit": commit, "open": undecided} | ({"since": base} if undecided else {})
    text = json.dumps(known, indent=1) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        index, content = str(Path(folder, "index")), Path(folder, "record")
        content.write_text(text, encoding="utf-8")
        branches.git("read-tree", tree, index=index)
        blob = branches.git("hash-object", "-w", str(content))
        branches.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{RECORD}", index=index)
        return branches.git("write-tree", index=index)


def differ(one: str, other: str) -> list[str]:
    """Return the files in which two trees differ."""
    return github.call("git", "diff", "--name-only", "--no-renames", "-z", one, other).split("\0")[:-1]


def plain(path: str) -> str:
    """Return the path that git has renamed in a merge, where a file and a folder have the same one."""
    return re.sub(r"~[0-9a-f]{40}(_\d+)?$", "", path)


def in_the_way(tree: str) -> list[str]:
    """Return the files here that git does not know and that a tree would overwrite; ignored ones too, as git would."""
    new = {name for name in differ("HEAD", tree) if not branches.git("--literal-pathspecs", "ls-tree", "HEAD", name)}
    folders = {str(folder) for name in new for folder in Path(name).parents}
    others = github.call("git", "ls-files", "--others", "-z").split("\0")[:-1]
    return [one for one in others if one in new | folders or new & {str(folder) for folder in Path(one).parents}]


def listed(some: list[str], mark: str = "") -> list[str]:
    """Return the lines of a list in the pull request, cut to what GitHub takes; the record has all that is open."""
    lines = [f"- {mark}{comment.harmless(' '.join(one.split())[:WIDEST])}{mark}" for one in some[:MOST]]
    return lines + [f"- and {len(some) - MOST} more"] * (len(some) > MOST)


def text(name: str, base: str, theirs: str, undecided: list[str]) -> str:
    """Return the text of the pull request."""
    words = ["git", "log", "--no-merges", "--format=%s", f"{base}..{theirs}"]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=True)  # of any encoding
    subjects = done.stdout.splitlines()
    lines = [
        f"This merges what {name} has changed from {base[:12]} to {theirs[:12]} into the files of this copy. Read",
        f"it as you would any change; `required` says whether all is as good with it. `{RECORD}` keeps the commit, so",
        "that the next update starts there.",
        "",
    ]
    if undecided:
        lines += [
            "**These are left as they are here**, and the check is red until a person merges them too: both sides have",
            f"changed them, or they lie in `{OF_RUNS}`, where the token of a run may not write.",
            "",
            *listed(undecided, "`"),
            "",
            "```",
            f"git fetch && git switch {BRANCH}",
            f"make template TEMPLATE={name}   # then resolve what it names",
            "make lock && git commit --all && git push",
            "```",
            "",
        ]
    lines += [
        f"{len(subjects)} commits of the template:",
        "",
        *listed(subjects),
    ]
    return "\n".join([*lines, "", OFFERED.format(theirs), ""])


def closed_by(pulls: list[dict[str, Any]], theirs: str) -> str:
    """Return why a person wants none of that commit: its pull request was closed; else an empty text."""
    for one in pulls:
        if one["state"] == "closed" and not one.get("merged_at") and OFFERED.format(theirs) in (one["body"] or ""):
            return (
                f"#{one['number']} offered the same and was closed without a merge; reopen it if you want it after all"
            )
    return ""


def main() -> None:
    """Open or update the pull request, or say on the summary page why there is none."""
    name, why = named()
    if not name:
        github.tell(f"skipped: the template's later changes, since {why}.")
        return
    theirs = fetch(name)
    base = began(branches.MAIN)
    tree, conflicts = merged(base, branches.MAIN, theirs)
    tree = branches.restored(tree, (*conflicts, *map(plain, conflicts), RECORD))
    of_runs = [path for path in differ(branches.MAIN, tree) if path.startswith(OF_RUNS)]
    undecided = sorted({*map(plain, conflicts), *of_runs} - {RECORD})
    tree = branches.restored(tree, tuple(of_runs)) if of_runs else tree
    changed = differ(branches.MAIN, tree)
    found = propose.Proposal.now(BRANCH, "\n".join([*changed, RECORD]))
    owner = github.repository().partition("/")[0]
    pulls = github.objects(f"pulls?state=all&base=main&head={owner}:{BRANCH}")
    nothing = f"this copy has all of {name} up to {theirs[:12]}" if not changed and not undecided else ""
    if why := nothing or closed_by(pulls, theirs) or found.waits:
        github.tell(f"Nothing offered: {why}.")
        return
    body = text(name, base, theirs, undecided)
    message = f"{TITLE}\n\nFrom {base} to {theirs}.\n\n{github.run_url()}"
    commit = branches.renew(with_record(tree, base, theirs, undecided), BRANCH, message, found.head)
    if found.number is None:
        branches.propose(BRANCH, TITLE, body)
    else:
        branches.update(found.number, TITLE, body)
    branches.check_once(BRANCH, commit)
    left = f"; left for a person: {', '.join(undecided)}" if undecided else ""
    github.tell(f"Offered: {name} up to {theirs[:12]}, {len(changed)} files{left}.")


def take() -> None:
    """Merge the template into the files here, workflow files and undecided ones too; a person resolves and commits.

    Raises:
        PipelineError: there is no template, or files here are not committed.
    """
    name, why = named()
    if not name:
        raise github.PipelineError(f"there is no template to take changes from: {why}")
    if branches.git("status", "--porcelain", "--untracked-files=no"):
        raise github.PipelineError("some files are not committed, and could be lost; commit them first")
    branches.git("fetch", "--quiet", "origin", "main")
    theirs = fetch(name)
    base = began("HEAD")
    tree, conflicts = merged(base, "HEAD", theirs)
    conflicts = [path for path in conflicts if path != RECORD]
    if lost := in_the_way(tree):
        raise github.PipelineError(f"the template has files of these names, move yours away: {', '.join(lost)}")
    branches.git("read-tree", "-m", "-u", "HEAD", with_record(tree, base, theirs, []))
    print(f"{name} up to {theirs[:12]} is merged. Resolve, then commit: {', '.join(conflicts) or 'nothing is left'}")


if __name__ == "__main__":
    sys.exit(github.main({"": main, "take": take}))
