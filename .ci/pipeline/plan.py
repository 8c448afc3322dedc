"""Print which of the jobs that may be skipped this change needs: ``job=true`` or ``job=false`` for each.

Only a pull request may skip jobs, and only those whose result none of its files can change; a push, a merge group and
``main`` run every job but ``cluster``. That takes longer than all others, so it is for pull requests that change what
runs on a cluster, and a pull request is merged as it was tested. On GitHub the lines become the outputs of the job
``plan``, and ``required`` allows a skip only where the plan says false. Where this run cannot read the pinned data,
``not_judged`` says why and who can; the jobs that need a model are skipped then, and ``required`` is red. ``login``
says whether the data takes a login at all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable

from pipeline import github, pin_access

CLUSTER = "cluster"
SKIPPABLE = ("train", "contract", "image", CLUSTER)  # where a change touches nothing but the following
HARMLESS = re.compile(r".*\.md|LICENSE|\.editorconfig|\.github/dependabot\.yml")
# What the image is made of, or how it runs: the manifests, the service, its log, the programs that deploy.
OF_CLUSTER = re.compile(
    r"(k8s|docker|score|src/closedloop/log|\.ci|tests/e2e|tests/repo)/.*|requirements/serve\.txt|Makefile"
    r"|\.github/workflows/(ci|plan|cluster)\.yml"
)


def plan(event: str, changed: Iterable[str]) -> dict[str, bool]:
    """Return for each job that may be skipped whether it must run."""
    touched = [path for path in changed if not HARMLESS.fullmatch(path)]
    needed = event != "pull_request" or bool(touched)
    there = (github.ROOT / "k8s").is_dir()  # a copy may have taken it away
    of_cluster = there and event == "pull_request" and any(OF_CLUSTER.fullmatch(path) for path in touched)
    return dict.fromkeys(SKIPPABLE, needed) | {CLUSTER: of_cluster}


def outputs(jobs: dict[str, bool], login: bool, not_judged: str) -> dict[str, str | bool]:
    """Return all outputs of the plan: a run that cannot read the data skips the jobs that need a model."""
    if not_judged and any(jobs.values()):
        return {**dict.fromkeys(jobs, False), "login": login, "not_judged": not_judged}
    return {**jobs, "login": login, "not_judged": ""}


def changed_files() -> list[str]:
    """Return the files that a pull request changes; its merge commit is checked out, whose first parent is the base."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", "HEAD^1", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\0").split("\0")


def main() -> None:
    """Print the plan, and set it as outputs of the step on GitHub."""
    event = os.environ.get("GITHUB_EVENT_NAME", "")
    jobs = plan(event, changed_files() if event == "pull_request" else [])
    payload = pin_access.payload_of(os.environ.get("GITHUB_EVENT_PATH"))
    found = pin_access.clouds(pin_access.pinned())
    actor, repository = os.environ.get("GITHUB_ACTOR", ""), os.environ.get("GITHUB_REPOSITORY", "")
    who = pin_access.stranger(event, actor, payload, repository) if found else None
    why = pin_access.not_judged(found, who, payload, pin_access.variables_of_run())
    github.output(**outputs(jobs, bool(found), why))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
