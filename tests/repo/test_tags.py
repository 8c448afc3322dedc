"""The tag of a release: made while its commit is main's head, and what newer tags mean to an older release.

docs.github.com: REST "Create a release" (a commit that is no branch's head, and touches workflow files, takes the
permission `workflows`, which GITHUB_TOKEN cannot have); "Control workflow concurrency" (one waits in a group, and the
last one queued takes its place); "Reviewing deployments" (a job waits for up to 30 days).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import release

from .test_release import Repository, decided, gathered

REFUSED = "refusing to allow a GitHub App to create or update workflow `.github/workflows/ci.yml` (HTTP 403)"


@pytest.fixture
def repo(tmp_path: Path, root: Path) -> Repository:
    return Repository(tmp_path, root, release.NAME)


def tag(repo: Repository, number: int, commit: str) -> str:
    return f"r{number}-{commit[:9]}"


def tagged(repo: Repository, number: int, commit: str, status: str = "completed", at: str = "") -> str:
    """Give GitHub a release's tag, and the run that made it."""
    name = tag(repo, number, commit)
    repo.state["api"][f"git/ref/tags/{name}"] = {"object": {"sha": at or commit}}
    runs = {"workflow_runs": [{"run_number": number, "status": status}]}
    repo.state["api"][f"actions/workflows/ci.yml/runs?head_sha={commit}"] = runs
    repo.keep()
    return name


def tags(repo: Repository) -> dict[str, str]:
    start = "git/ref/tags/"
    return {key[len(start) :]: one["object"]["sha"] for key, one in repo.state["api"].items() if key.startswith(start)}


def test_the_deciding_job_makes_the_tag_while_the_commit_is_the_head(repo: Repository) -> None:
    assert decided(repo)[1]["release"] == "true"
    assert tags(repo) == {tag(repo, 4, repo.commits[2]): repo.commits[2]}
    assert decided(repo)[1]["release"] == "true"  # again, by a second attempt
    assert len(repo.calls("api", "--method", "POST")) == 1


def test_a_commit_that_is_no_longer_the_head_is_skipped_and_it_is_said(repo: Repository) -> None:
    code, found = decided(repo, GITHUB_SHA=repo.commits[1], DEPLOY_TO="")
    assert (code, found["release"], found["sign"]) == (0, "false", "false")
    assert f"Nothing is released: main has moved on to {repo.commits[2][:12]}" in repo.summary()
    assert tags(repo) == {}


def test_one_that_was_tagged_in_time_is_released_also_when_main_has_moved_on(repo: Repository) -> None:
    tagged(repo, 4, repo.commits[1])
    assert decided(repo, GITHUB_SHA=repo.commits[1])[1]["release"] == "true"


def test_a_tag_that_github_refuses_is_said_and_nothing_is_built(repo: Repository) -> None:
    repo.state["refuse"] = {"api --method POST repos/someone/fleet/git/refs": REFUSED}
    repo.keep()
    code, found = decided(repo)
    assert (code, found["release"]) == (0, "false")
    assert "GitHub refused its tag" in repo.summary()
    assert "main's next commit releases it too" in repo.summary()


def test_a_tag_of_that_name_at_another_commit_is_refused(repo: Repository) -> None:
    tagged(repo, 4, repo.commits[2], at=repo.commits[0])
    code, found = decided(repo)
    assert code == 1
    assert "its tag was moved to commit" in found["error"]


@pytest.mark.parametrize(("at", "says"), [("", "its tag is gone"), ("e" * 40, "its tag was moved to commit eeee")])
def test_a_draft_whose_tag_was_moved_is_not_published(repo: Repository, at: str, says: str) -> None:
    """`gh release edit` would publish it at wherever the tag is, or make one."""
    gathered(repo)
    assert repo.run("release", "draft").returncode == 0
    name = f"git/ref/tags/{tag(repo, 4, repo.commits[2])}"
    repo.state["api"].pop(name)
    if at:
        repo.state["api"][name] = {"object": {"sha": at}}
    repo.keep()
    done = repo.run("release", "publish")
    assert done.returncode == 1
    assert says in done.stderr
    assert repo.state["api"]["releases"][0]["draft"]


@pytest.mark.parametrize(
    ("status", "published", "again", "hold", "approved"),
    [
        ("completed", False, "true", "true", "true"),  # the newer run has failed, or was skipped
        ("waiting", False, "false", "true", "false"),  # for a reviewer
        ("in_progress", False, "false", "true", "false"),
        ("queued", False, "false", "true", "false"),
        ("completed", True, "false", "false", "false"),
    ],
)
def test_an_older_release_gives_way_to_a_newer_one(
    repo: Repository, status: str, published: bool, again: str, hold: str, approved: str
) -> None:
    """A re-run of an older commit cancels no newer one, and approving an overtaken release deploys nothing."""
    tagged(repo, 3, repo.commits[1])
    newer = tagged(repo, 9, repo.commits[2], status)
    if published:
        repo.release(newer, repo.commits[2])
    older: dict[str, Any] = {"GITHUB_SHA": repo.commits[1], "GITHUB_RUN_NUMBER": "3"}
    assert decided(repo, **older)[1]["release"] == again
    for command, go in (("hold", hold), ("approved", approved)):
        done = repo.run("release", command, **older)
        assert done.returncode == 0, done.stderr
        assert repo.outputs()["go"] == go
        assert go == "true" or f"Skipped: {newer} is newer" in done.stdout


def test_tags_of_people_and_the_order_of_digits_mislead_nobody(repo: Repository) -> None:
    tagged(repo, 9, repo.commits[1], "in_progress")
    for name in ("r99", "r100-not-a-commit", "release-7", "r77-zzzzzzzzz"):
        repo.state["api"][f"git/ref/tags/{name}"] = {"object": {"sha": repo.commits[2]}}
    repo.keep()
    assert repo.run("release", "approved", GITHUB_RUN_NUMBER="10").returncode == 0
    assert repo.outputs()["go"] == "true"
