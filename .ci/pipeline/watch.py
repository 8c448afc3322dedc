"""What people are told of ``main``, of bots' branches, and of what this repository cannot have.

``issue``: one open issue while ``main`` is red, closed when it is green. ``head``: whether the newest commit has its
release. ``status``: the verdict of a run that was started by hand, as the commit status that branch rules wait for.
``scans``: which of GitHub's scanners can be had here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from pipeline import github, release_facts

TITLE = "main is red: what was served stays served"
HOURS_FOR_A_RELEASE = 3  # from a merge to its release, with a person to approve production


def red() -> dict[str, str]:
    """The jobs of NEEDS that did not end well, and how."""
    needs = json.loads(github.setting("NEEDS"))
    return {job: facts["result"] for job, facts in needs.items() if facts["result"] not in ("success", "skipped")}


def issue() -> None:
    """Open, add to, or close the issue."""
    bad = {job: how for job, how in red().items() if (job, how) != ("promote", "cancelled")}  # a newer commit ships
    told = [
        one
        for one in github.objects("issues?state=open&per_page=100")
        if one["title"] == TITLE and one["user"]["type"] == "Bot" and "pull_request" not in one
    ]
    where = ["--repo", github.repository()]
    commit = github.setting("GITHUB_SHA")
    if not bad:
        for one in told:
            words = ["--comment", f"Green again with {commit}: {github.run_url()}"]
            github.gh("issue", "close", str(one["number"]), *where, *words)
        print(f"main is green; closed {len(told)} issues")
        return
    text = "\n".join(
        [
            f"Commit {commit} of `main` is not served: {', '.join(f'{job} ({how})' for job, how in bad.items())}.",
            "",
            f"Open [the run]({github.run_url()}); its first red job says what to do. Then merge a mend, or revert it;",
            "this issue closes when `main` is green. To serve an older release meanwhile, run the workflow *rollback*.",
        ]
    )
    if told:
        github.gh("issue", "comment", str(told[0]["number"]), *where, "--body-file", "-", stdin=text)
    else:
        github.gh("issue", "create", *where, "--title", TITLE, "--body-file", "-", stdin=text)
    github.tell(f"main is red ({', '.join(bad)}); an open issue says so.")


def head() -> None:
    """Raises LineError where ``main``'s newest commit has no release, though it had the time."""
    commit = github.setting("GITHUB_SHA")
    stamp = subprocess.run(["git", "log", "-1", "--format=%ct", commit], capture_output=True, text=True, check=True)
    hours = (time.time() - int(stamp.stdout)) / 3600
    if held_by := release_facts.holder():  # first: what a rollback withdrew still is a release of this commit
        raise github.LineError(f"main is not what is served: {held_by}")
    if one := release_facts.overtaken(release_facts.published(), commit, release_facts.is_ancestor):
        github.tell(f"`main`'s head is release {one.tag}.")
    elif hours < HOURS_FOR_A_RELEASE:
        github.tell(f"`main`'s head has no release yet; it is {hours:.1f} hours old.")
    else:
        raise github.LineError(
            f"main's head {commit[:12]} has no release; open its run of ci.yml: what is red there says why, and what a "
            "newer run replaced can be run again"
        )


def status() -> None:
    """Report NEEDS as the commit status ``required``."""
    bad = red()
    facts = {
        "state": "failure" if bad else "success",
        "context": "required",
        "description": f"red: {', '.join(bad)}"[:140] if bad else "every job that this change needs is green",
        "target_url": github.run_url(),
    }
    path = f"repos/{github.repository()}/statuses/{github.setting('GITHUB_SHA')}"
    github.gh("api", "--method", "POST", path, "--input", "-", stdin=json.dumps(facts))
    print(f"reported: {facts['state']}")


def scans() -> None:
    """Hand on which scanners can be had, and say why not the others."""
    public, fork = github.setting("PRIVATE") == "false", os.environ.get("FORK") == "true"
    code = (public or os.environ.get("CODE_SCANNING") == "true") and not fork
    review = public or os.environ.get("CODE_SCANNING") == "true"
    why = "this repository is private; set the variable CODE_SCANNING to true where it has GitHub Advanced Security"
    notes = [
        ""
        if code
        else f"Skipped: CodeQL, since {'a fork may not upload findings; they come with the merge' if fork else why}.",
        "" if review else f"Skipped: dependency review, since {why}.",
        "" if public else "Skipped: Scorecard. It judges public repositories.",
    ]
    github.tell("\n".join(f"- {note}" for note in notes if note) or "Every scanner can be had here.")
    github.output(code=code, review=review, scorecard=public)


if __name__ == "__main__":
    sys.exit(github.main({"issue": issue, "head": head, "status": status, "scans": scans}))
