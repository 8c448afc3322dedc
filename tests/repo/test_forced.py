"""A force-pushed main, and pull requests that a run's own token opened: neither may leave anything red for ever.

docs.github.com/webhooks/webhook-events-and-payloads#push: after a force push `before` names a commit that is no longer
in the branch, and that no clone fetches any more. github.com/orgs/community/discussions/199292 and
docs.github.com/actions/how-tos/write-workflows/choose-when-workflows-run/trigger-a-workflow: the workflows of a pull
request that a run's own token opened wait for an approval. docs.github.com, "Troubleshooting required status checks":
a check and a status of one name are both required.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline import branches, release

from .test_release import Repository, decided, served

GONE = "d" * 40  # what GitHub names as `before`, and no clone has


@pytest.fixture
def repo(tmp_path: Path, root: Path) -> Repository:
    return Repository(tmp_path, root, release.NAME)


def test_a_base_that_was_force_pushed_away_gives_way_to_the_parent_and_it_is_said(repo: Repository) -> None:
    done = repo.run("champion", BASE_COMMIT=GONE)
    assert done.returncode == 0, done.stderr
    assert {"commit": repo.commits[1], "base": repo.commits[1]} == repo.outputs()
    assert f"The base {GONE[:12]} is not in this repository any more" in repo.summary()


def test_the_first_commit_of_a_new_history_has_no_base(repo: Repository) -> None:
    repo.git("checkout", "--quiet", "--orphan", "new")
    repo.git("commit", "--quiet", "--message", "new")
    repo.git("update-ref", "-d", "refs/remotes/origin/main")
    assert repo.run("champion", BASE_COMMIT=GONE).returncode == 0
    assert {"commit": "", "base": ""} == repo.outputs()


def test_in_a_clone_without_its_history_nothing_is_guessed(repo: Repository) -> None:
    """There the commit may well exist: the model's programs say which command fetches it."""
    shallow = repo.folder / "shallow"
    words = [
        "git",
        "clone",
        "--quiet",
        "--depth",
        "1",
        "--branch",
        "main",
        f"file://{repo.folder / 'remote'}",
        str(shallow),
    ]
    subprocess.run(words, check=True)
    repo.work = shallow
    assert repo.run("champion", BASE_COMMIT=GONE).returncode == 0
    assert GONE == repo.outputs()["base"]


def test_a_champion_whose_commit_is_gone_is_said_and_the_base_is_met(repo: Repository) -> None:
    """Its bundle alone answers nothing: its code is gone too."""
    repo.release("r1", GONE, served="2026-01-01", champion="2026-01-01")
    done = repo.run("champion", BASE_COMMIT=repo.commits[0])
    assert done.returncode == 0, done.stderr
    assert {"commit": repo.commits[0], "base": repo.commits[0]} == repo.outputs()
    assert f"the champion is release r1, whose commit {GONE[:12]} is not in this repository any more" in repo.summary()
    assert not repo.calls("release", "download")


def test_a_release_of_a_commit_that_is_gone_overtakes_nothing(repo: Repository) -> None:
    repo.release("r1", GONE, served="2026-01-01")
    code, outputs = decided(repo)
    assert (0, "true") == (code, outputs["release"])
    assert repo.run("notices", "head").returncode == 0


@pytest.mark.parametrize(("as_app", "waits"), [("", True), ("true", False)])
def test_a_pull_request_of_a_runs_own_token_says_what_its_checks_wait_for(
    repo: Repository, as_app: str, waits: bool
) -> None:
    served(repo)
    assert repo.run("rollback", "hold", RELEASE="r0", REASON="hot", AS_APP=as_app).returncode == 0
    (pull,) = repo.calls("pr", "create")
    assert waits == (branches.WAITS in pull["stdin"])


def test_what_it_says_is_what_the_docs_say(root: Path) -> None:
    assert "approve" in branches.WAITS.lower()
    assert "APP_CLIENT_ID" in branches.WAITS
    docs = (root / "docs/living-with-it.md").read_text(encoding="utf-8")
    assert "## Pull requests that the pipeline opens" in docs
    told = docs.partition("## Pull requests that the pipeline opens")[2].partition("\n## ")[0]
    assert {"APP_CLIENT_ID", "APP_PRIVATE_KEY", "Contents", "Pull requests"} <= {
        word for word in ("APP_CLIENT_ID", "APP_PRIVATE_KEY", "Contents", "Pull requests") if word in told
    }


@pytest.mark.parametrize("name", ["rollback", "retrain", "refresh"])
def test_every_step_that_opens_one_is_told_whose_token_it_has(root: Path, name: str) -> None:
    text = (root / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    for step in text.split("      - ")[1:]:
        if "steps.app.outputs.token || github.token" in step:
            assert "AS_APP: ${{ steps.app.outputs.token != '' }}" in step
