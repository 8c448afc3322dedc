"""A rollback to the oldest release format of this repository's own history: the real programs, git and trees."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from pipeline import branches, gaps, release

from .test_release import RUN, Repository, of_format_1

OLDEST = "21eaa743258d60cfa5ca44c3b70850bb5d212a1a"  # the first commit whose workflows made releases, by promote.yml
PROGRAMS = ("plan", "pin-access", "champion", "required")  # of main, run in the restored tree


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def rolled_back(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """This repository, rolled back to its oldest release, and the tree of the pull request checked out."""
    there = subprocess.run(
        ["git", "cat-file", "-e", f"{OLDEST}^{{commit}}"], cwd=root, capture_output=True, check=False
    )
    if there.returncode:
        pytest.skip("the template's history is not here")
    folder = tmp_path_factory.mktemp("rolled-back")
    repo = Repository(folder, root, release.NAME)
    remote = folder / "this"
    subprocess.run(["git", "clone", "--quiet", "--bare", "--shared", str(root), str(remote)], check=True)
    git(remote, "update-ref", "refs/heads/main", "HEAD")
    repo.work = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--branch", "main", str(remote), str(repo.work)], check=True)
    repo.commits = [OLDEST, OLDEST, git(repo.work, "rev-parse", "HEAD")]
    of_format_1(repo, "r0", OLDEST, served="2026-01-01", reference="2026-01-01")
    repo.release("r1", repo.commits[2], served="2026-01-02", champion="2026-01-02")
    done = repo.run("rollback", "hold", RELEASE="r0", REASON="hot")
    assert done.returncode == 0, done.stderr
    git(repo.work, "fetch", "--quiet", "origin")
    git(repo.work, "checkout", "--quiet", "--detach", "origin/rollback/r0")
    return repo


def test_the_pipelines_code_is_mains_and_all_else_is_the_releases(rolled_back: Repository) -> None:
    others = [f":(exclude){path}" for path in branches.OF_THE_PIPELINE]
    assert git(rolled_back.work, "diff", "--name-only", "origin/main", "HEAD", "--", *branches.OF_THE_PIPELINE) == ""
    assert git(rolled_back.work, "diff", "--name-only", OLDEST, "HEAD", "--", ".", *others) == ""


def test_every_target_that_workflows_call_is_there(rolled_back: Repository) -> None:
    flows = sorted((rolled_back.work / ".github/workflows").iterdir())
    called = sorted({target for path in flows for target in RUN.findall(path.read_text())})
    assert {"run", "test", "champion", "release-decide"} <= set(called)
    words = ["make", "--dry-run", "INSTALLED=", "WHEEL=", "BUNDLE=", *called]
    done = subprocess.run(words, cwd=rolled_back.work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", PROGRAMS)
def test_mains_programs_run_on_the_releases_files(rolled_back: Repository, target: str) -> None:
    needs = json.dumps({"plan": {"result": "success", "outputs": {}}})
    environment = rolled_back.environment | {"NEEDS": needs, "GITHUB_EVENT_NAME": "workflow_dispatch"}
    environment.pop("PYTHONPATH")
    done = subprocess.run(
        ["make", target], cwd=rolled_back.work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_old_model_can_be_trained_by_todays_command(rolled_back: Repository) -> None:
    words = ["make", "--dry-run", "INSTALLED=", "run"]
    done = subprocess.run(words, cwd=rolled_back.work, capture_output=True, text=True, check=True)
    modules = re.findall(r"-m (model\.\w+)", done.stdout)
    assert {"model.data", "model.train", "model.evaluate"} <= set(modules)
    assert [it for it in modules if not (rolled_back.work / f"{it.replace('.', '/')}.py").exists()] == []


def test_the_pull_request_names_what_the_release_lacks(rolled_back: Repository) -> None:
    (pull,) = rolled_back.calls("pr", "create")
    assert "- `make contract`: `tests/e2e/test_azmlinfsrv.py`, `tests/e2e/test_readme.py`\n" in pull["stdin"]
    for line in re.findall(r"^- `make .+", pull["stdin"], re.MULTILINE):
        target, *missing = re.findall(r"`([^`]+)`", line)
        assert target.removeprefix("make ") in gaps.targets()
        assert [path for path in missing if (rolled_back.work / path).exists()] == [], "it is there"
        assert [path for path in missing if not (rolled_back.root / path).exists()] == [], "main has no such file"
