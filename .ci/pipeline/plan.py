"""Print which of the jobs that may be skipped this change needs: ``job=true`` or ``job=false`` for each.

A pull request skips jobs whose result none of its files can change. A push to a branch skips all of them where an open
pull request has this very commit: its run judges it, merged with the base. Everything else runs every job but
``cluster``. That takes longer than all others, so it is for pull requests that change what runs on a cluster, and a
pull request is merged as it was tested. On GitHub the lines become the outputs of the job ``plan``, and ``required``
allows a skip only where the plan says false. Where this run cannot read the pinned data, ``not_judged`` says why and
who can; the jobs that need a model are skipped then, and ``required`` is red. ``login`` says whether the data takes a
login at all.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from urllib.parse import quote

from pipeline import github, pin_access

CLUSTER = "cluster"
OF_MODEL = ("train", "contract", "image", CLUSTER)  # skipped where a change touches nothing but the following
SKIPPABLE = ("check", "test", *OF_MODEL, "manifests")
PAUSES = (2, 4, 0)  # seconds, while GitHub finds out whether a pull request can be merged
BOT = "github-actions[bot]"  # the workflows of its pull requests wait for an approval
HARMLESS = re.compile(r".*\.md|LICENSE|\.editorconfig|\.github/dependabot\.yml")
# What the image is made of, or how it runs: the manifests, the service, its log, the programs that deploy.
OF_CLUSTER = re.compile(
    r"(k8s|docker|score|src/closedloop/log|\.ci|tests/e2e|tests/repo)/.*|requirements/serve\.txt|Makefile"
    r"|\.github/workflows/(ci|plan|cluster)\.yml"
)


def plan(event: str, changed: Iterable[str], elsewhere: bool = False) -> dict[str, bool]:
    """Return for each job that may be skipped whether it must run; ``elsewhere``: a pull request's run judges this."""
    if elsewhere and event == "push":
        return dict.fromkeys(SKIPPABLE, False)
    touched = [path for path in changed if not HARMLESS.fullmatch(path)]
    needed = event != "pull_request" or bool(touched)
    there = (github.ROOT / "k8s").is_dir()  # a copy may have taken it away
    of_cluster = there and event == "pull_request" and any(OF_CLUSTER.fullmatch(path) for path in touched)
    return dict.fromkeys(SKIPPABLE, True) | dict.fromkeys(OF_MODEL, needed) | {CLUSTER: of_cluster}


def outputs(jobs: dict[str, bool], login: bool, not_judged: str) -> dict[str, str | bool]:
    """Return all outputs of the plan: a run that cannot read the data skips the jobs that need a model."""
    if not_judged and any(jobs[name] for name in OF_MODEL):
        return {**jobs, **dict.fromkeys(OF_MODEL, False), "login": login, "not_judged": not_judged}
    return {**jobs, "login": login, "not_judged": ""}


def changed_files() -> list[str]:
    """Return the files that a pull request changes; its merge commit is checked out, whose first parent is the base."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", "HEAD^1", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\0").split("\0")


def judged_by() -> int | None:
    """Return the number of the open pull request whose own run judges this push; None where there is none.

    GitHub starts no run of a pull request that cannot be merged, and lets one that a run opened wait; then this run
    judges. So it does where GitHub does not answer.
    """
    ref, commit = os.environ.get("GITHUB_REF", ""), os.environ.get("GITHUB_SHA", "")
    if os.environ.get("GITHUB_EVENT_NAME") != "push" or not ref.startswith("refs/heads/") or ref == "refs/heads/main":
        return None
    here = github.repository()
    head = quote(f"{here.partition('/')[0]}:{ref.removeprefix('refs/heads/')}", safe=":/")
    try:
        for one in github.objects(f"pulls?state=open&head={head}"):
            same = one["head"]["sha"] == commit and (one["head"]["repo"] or {}).get("full_name") == here
            if same and one["user"]["login"] != BOT and can_be_merged(one["number"]):
                return int(one["number"])
    except github.PipelineError as error:
        github.tell(f"Every job runs here: GitHub did not say whether a pull request has this commit ({error}).")
    return None


def can_be_merged(number: int) -> bool:
    """Return whether GitHub says that a pull request can be merged; it may take a moment to find out."""
    for pause in PAUSES:
        answer = json.loads(github.gh("api", f"repos/{github.repository()}/pulls/{number}"))
        if answer["mergeable"] is not None:
            return bool(answer["mergeable"])
        time.sleep(pause)
    return False


def main() -> None:
    """Print the plan, and set it as outputs of the step on GitHub."""
    event = os.environ.get("GITHUB_EVENT_NAME", "")
    if number := judged_by():
        github.tell(f"Pull request #{number} has this commit: its own run judges it, and this one does nothing more.")
    jobs = plan(event, changed_files() if event == "pull_request" else [], elsewhere=number is not None)
    payload = pin_access.payload_of(os.environ.get("GITHUB_EVENT_PATH"))
    found = pin_access.clouds(pin_access.pinned())
    actor, repository = os.environ.get("GITHUB_ACTOR", ""), os.environ.get("GITHUB_REPOSITORY", "")
    who = pin_access.stranger(event, actor, payload, repository) if found else None
    why = pin_access.not_judged(found, who, payload, pin_access.variables_of_run())
    github.output(**outputs(jobs, bool(found), why))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
