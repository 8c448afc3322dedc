"""Report the state of ``main``, of the pipeline's own branches, and of GitHub's scanners.

``issue``: keep one issue open while ``main`` is red, and one while a target beside production is behind. ``head``:
check that the newest commit has its release.
``status``: report the verdict of a run that was started by hand as the commit status that branch rules wait for.
``scans``: which of GitHub's scanners are available here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

from pipeline import github, product, release_facts

TITLE = "main is red: what was served stays served"
BEHIND = "a target beside production does not serve the newest release"
FOLLOWS = "what follows a release has failed: what is served is not concerned"
HOURS_FOR_A_RELEASE = 3  # from a merge to its release, with a person to approve production


def red() -> dict[str, str]:
    """Return the jobs of NEEDS that failed or were cancelled, with their result."""
    needs = json.loads(github.setting("NEEDS"))
    return {job: facts["result"] for job, facts in needs.items() if facts["result"] not in ("success", "skipped")}


def issue() -> None:
    """Keep an issue while main is red, one while a target beside production is behind, and one while a copy fails.

    A release cancelled for a newer commit's is not a fault.
    """
    bad = {job: how for job, how in red().items() if (job, how) != ("deliver", "cancelled")}
    outputs = json.loads(github.setting("NEEDS")).get("deliver", {}).get("outputs") or {}
    behind = outputs.get("behind", "")  # empty: no release, or no such target
    served = outputs.get("served") == "true"
    lags = behind not in ("", "none")
    follows = bad.pop("deliver", "") if served or lags else ""  # it was published before those jobs began
    commit = github.setting("GITHUB_SHA")
    text = "\n".join(
        [
            f"Commit {commit} of `main` is not served: {', '.join(f'{job} ({how})' for job, how in bad.items())}.",
            "",
            f"Open [the run]({github.run_url()}); its first red job says why. Then merge a fix, or revert the commit;",
            "this issue closes when `main` is green. To serve an older release meanwhile, run the workflow *rollback*.",
        ]
    )
    keep(TITLE, text if bad else "", f"Green again with {commit}: {github.run_url()}")
    if bad:
        github.tell(f"main is red ({', '.join(bad)}); an open issue says so.")
    if served and not lags:
        text = "\n".join(
            [
                f"Commit {commit} of `main` is released and served, and a job that follows its release has failed.",
                f"No job reads what that one writes. Open [the run]({github.run_url()}) and run its failed jobs again.",
            ]
        )
        keep(FOLLOWS, text if follows else "", f"What follows a release succeeded again: {github.run_url()}")
    if behind:
        text = "\n".join(
            [
                f"{behind} still serves what it served before commit {commit} of `main`.",
                "Production is not concerned: what is served there, and which model is the champion, has moved.",
                "",
                f"Open [the run]({github.run_url()}); its job for {behind} says why.",
                "This issue closes when a release gets there.",
            ]
        )
        keep(BEHIND, "" if behind == "none" else text, f"It serves commit {commit}: {github.run_url()}")


def keep(title: str, text: str, closing: str) -> None:
    """Open an issue with a text, or add a comment to the open one; without a text close it with other words."""
    there = github.issues()
    if there is None:
        return
    told = [one for one in there if one["title"] == title and one["user"]["type"] == "Bot"]
    where = ["--repo", github.repository()]
    if not text:
        for one in told:
            github.gh("issue", "close", str(one["number"]), *where, "--comment", closing)
        print(f"closed {len(told)} issues: {title}")
    elif told:
        github.gh("issue", "comment", str(told[0]["number"]), *where, "--body-file", "-", stdin=text)
    else:
        github.gh("issue", "create", *where, "--title", title, "--body-file", "-", stdin=text)


def refuse_unsigned(known: list[release_facts.Release]) -> None:
    """Refuse moves that only the releases' texts have; within an hour their job may still be about to sign them.

    Raises:
        PipelineError: there are such.
    """
    soon = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    if late := [f"{tag} ({title} {moment})" for tag, title, moment in release_facts.unsigned(known) if moment < soon]:
        raise github.PipelineError(
            f"no signed move says what the text of {', '.join(late)} says: either the job that signs has failed (run "
            "the failed jobs of its run again), or someone has deleted the newest move. Read the audit log"
        )


def head() -> None:
    """Check that ``main``'s newest commit has its release, or is too new to have one.

    Raises:
        PipelineError: it should have one and has not, a rollback waits for a person, or the newest move is missing.
    """
    commit = github.setting("GITHUB_SHA")
    stamp = subprocess.run(["git", "log", "-1", "--format=%ct", commit], capture_output=True, text=True, check=True)
    hours = (time.time() - int(stamp.stdout)) / 3600
    if held_by := release_facts.holder():  # first: a withdrawn release still is one of this commit
        raise github.PipelineError(f"main is not what is served: {held_by}")
    known = release_facts.published()
    refuse_unsigned(known)
    if one := release_facts.overtaken(known, commit, release_facts.is_ancestor):
        github.tell(f"`main`'s head is release {one.tag}.")
    elif why := product.unchanged(release_facts.latest(known, "served"), commit):
        github.tell(f"`main`'s head needs no release: {why}.")
    elif hours < HOURS_FOR_A_RELEASE:
        github.tell(f"`main`'s head has no release yet; it is {hours:.1f} hours old.")
    else:
        raise github.PipelineError(
            f"main's head {commit[:12]} has no release; open its run of ci.yml: a red job says why, and a run that was "
            "cancelled for a newer one can be run again"
        )


def status() -> None:
    """Report the result of the jobs in NEEDS as the commit status ``required``."""
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
    """Set an output for each scanner: whether it is available. The summary page says why the others are not."""
    public, fork = github.setting("PRIVATE") == "false", os.environ.get("FORK") == "true"
    code = (public or os.environ.get("CODE_SCANNING") == "true") and not fork
    review = public or os.environ.get("CODE_SCANNING") == "true"
    why = "this repository is private; set the variable CODE_SCANNING to true where it has GitHub Advanced Security"
    notes = [
        ""
        if code
        else f"Skipped: CodeQL, since {'a fork may not upload findings; the merge to main does' if fork else why}.",
        "" if review else f"Skipped: dependency review, since {why}.",
        "" if public else "Skipped: Scorecard. It judges public repositories.",
    ]
    github.tell("\n".join(f"- {note}" for note in notes if note) or "Every scanner is available here.")
    github.output(code=code, review=review, scorecard=public)


if __name__ == "__main__":
    sys.exit(github.main({"issue": issue, "head": head, "status": status, "scans": scans}))
