"""What a run need not do: a push that a pull request judges, and a commit that changes nothing of the product.

docs.github.com/rest/pulls/pulls: the filter `head` is `owner:branch`, and `mergeable` is null while GitHub finds out.
docs.github.com/actions/using-workflows/events-that-trigger-workflows#pull_request: no workflow runs
where a pull request has a merge conflict. github.com/orgs/community/discussions/199292: those of a pull request that a
run opened wait.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import plan, product, release

from .test_release import Repository, decided

NOTHING = dict.fromkeys(plan.SKIPPABLE, "false")


@pytest.fixture
def repo(tmp_path: Path, root: Path) -> Repository:
    return Repository(tmp_path, root, release.NAME)


def planned(repo: Repository, pull: dict[str, Any] | None, ref: str = "refs/heads/a/topic", **more: str) -> set[str]:
    """Push to a branch, for which GitHub has a pull request; return the jobs that run."""
    if pull is not None:
        head = {"sha": repo.commits[2], "repo": {"full_name": "someone/fleet"}} | pull.pop("head", {})
        one = {"number": 7, "user": {"login": "someone"}, "mergeable": True, "head": head} | pull
        repo.state["api"] |= {"pulls?state=open&head=someone:a/topic": [one], "pulls/7": one}
        repo.keep()
    (repo.work / "model").mkdir(exist_ok=True)
    done = repo.run("plan", GITHUB_EVENT_NAME="push", GITHUB_REF=ref, GITHUB_ACTOR="someone", **more)
    assert done.returncode == 0, done.stderr
    return {name for name, value in repo.outputs().items() if name in plan.SKIPPABLE and value == "true"}


EVERY = set(plan.SKIPPABLE) - {"cluster"}


def test_a_push_that_a_pull_request_judges_runs_nothing_and_says_so(repo: Repository) -> None:
    assert set() == planned(repo, {})
    assert "Pull request #7 has this commit: its own run judges it" in repo.summary()


@pytest.mark.parametrize(
    "pull",
    [
        None,
        {"mergeable": False},
        {"user": {"login": plan.BOT}},
        {"head": {"sha": "e" * 40}},
        {"head": {"repo": {"full_name": "stranger/copy"}}},
        {"head": {"repo": None}},  # the fork was deleted
    ],
)
def test_a_push_that_no_pull_request_judges_runs_everything(repo: Repository, pull: dict[str, Any] | None) -> None:
    assert EVERY == planned(repo, pull)


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/a/topic"])
def test_main_and_tags_are_judged_by_their_own_run(repo: Repository, ref: str) -> None:
    assert EVERY == planned(repo, {}, ref)
    assert not repo.calls("api")


def test_where_github_does_not_answer_everything_runs(repo: Repository) -> None:
    repo.state["refuse"] = {"api": "HTTP 502: bad gateway"}
    assert EVERY == planned(repo, {})
    assert "GitHub did not say whether a pull request has this commit" in repo.summary()


def test_what_github_has_not_found_out_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, None, True]
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/fleet")
    monkeypatch.setattr(plan.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(plan.github, "gh", lambda *words: json.dumps({"mergeable": answers.pop(0)}))
    assert plan.can_be_merged(7)
    answers[:] = [None, None, None]
    assert not plan.can_be_merged(7)


def commit(repo: Repository, path: str) -> None:
    """Another commit of main, which changes one file; it is main's head."""
    repo.commits[2] = repo.commit({path: "new\n"})
    repo.git("push", "--quiet", "origin", "main")
    repo.state["api"]["git/ref/heads/main"] = {"object": {"sha": repo.commits[2]}}
    repo.keep()


@pytest.mark.parametrize("path", ["docs/loop.md", "model/README.md", "tests/own/test_x.py", ".github/workflows/ci.yml"])
def test_a_commit_of_no_product_makes_no_release_and_the_daily_check_knows(repo: Repository, path: str) -> None:
    repo.release("r1", repo.commits[2], served="2026-01-01")
    commit(repo, path)
    code, outputs = decided(repo, GITHUB_EVENT_NAME="push")
    assert (0, "false") == (code, outputs["release"])
    assert f"since r1, which is served, nothing of the product has changed (only {path})" in repo.summary()
    assert repo.run("notices", "head").returncode == 0
    assert "`main`'s head needs no release" in repo.summary()
    assert "true" == decided(repo, GITHUB_EVENT_NAME="workflow_dispatch", PRIVATE="false")[1]["release"]


@pytest.mark.parametrize(
    "path", ["model/params.yaml", "docker/Dockerfile", "requirements/dev.txt", ".ci/pipeline/x.py"]
)
def test_any_other_commit_is_released(repo: Repository, path: str) -> None:
    repo.release("r1", repo.commits[2], served="2026-01-01")
    commit(repo, path)
    commit(repo, "docs/loop.md")
    assert "true" == decided(repo, GITHUB_EVENT_NAME="push")[1]["release"]


def test_it_is_compared_with_what_is_served_and_not_with_what_failed_on_its_way(repo: Repository) -> None:
    repo.release("r1", repo.commits[1], served="2026-01-01")
    repo.release("r2", repo.commits[2])  # published, and never served
    commit(repo, "docs/loop.md")
    assert "true" == decided(repo, GITHUB_EVENT_NAME="push")[1]["release"]


def test_every_file_of_this_repository_is_one_or_the_other(root: Path, files: list[Path]) -> None:
    names = [path.relative_to(root).as_posix() for path in files]
    product_of_it = {name.partition("/")[0] for name in names if not product.NOT_PRODUCT.fullmatch(name)}
    assert {"src", "model", "score", "docker", "requirements", "pyproject.toml", "Makefile", ".ci"} <= product_of_it
    assert not {"tests", "docs", ".github"} & product_of_it
