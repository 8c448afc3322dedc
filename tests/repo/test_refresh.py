"""A copy that keeps itself fresh: what is renewed, and its one pull request."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dev import locks
from pipeline import refresh, release

from .test_release import Repository

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
BASE = f"FROM python:3.13-slim@{OLD} AS official\nFROM ${{X:-official}} AS y\n"


@pytest.fixture
def repo(tmp_path: Path, root: Path) -> Repository:
    made = Repository(tmp_path, root, release.NAME)
    made.commit({**dict.fromkeys(refresh.BASES, BASE), "requirements/serve.txt": "numpy==1.0 \\\n", "k": "1\n"})
    made.git("push", "--quiet", "origin", "main")
    made.environment |= {"AS_APP": "true", "DOCKER": "docker"}  # its push starts the checks; docker is that below
    docker = tmp_path / "bin/docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/docker.calls\necho \'{{"digest": "{NEW}"}}\'\n')
    docker.chmod(0o755)
    return made


def renewed(repo: Repository, **extra: str) -> None:
    (repo.work / "requirements/serve.txt").write_text("numpy==1.1 \\\nnew==2 ; x\n")
    (repo.work / "k").write_text("not renewed\n")
    done = repo.run("refresh", "renew", **extra)
    assert done.returncode == 0, done.stderr


def proposed(repo: Repository, **extra: str) -> str:
    done = repo.run("refresh", GITHUB_SHA=repo.git("rev-parse", "origin/main"), **extra)
    assert done.returncode == 0, done.stderr
    repo.git("fetch", "--quiet", "origin")
    return done.stdout


def test_what_is_newer_is_one_pull_request_with_its_versions(repo: Repository) -> None:
    renewed(repo)
    assert repo.outputs() == {"changed": "true"}
    assert "buildx imagetools inspect python:3.13-slim " in (repo.folder / "docker.calls").read_text()
    proposed(repo)
    changed = repo.git("diff", "--name-only", "origin/main", "origin/refresh").split()
    assert changed == sorted([*refresh.BASES, "requirements/serve.txt"])
    assert NEW in repo.git("show", "origin/refresh:docker/Dockerfile")
    (pull,) = repo.calls("pr", "create")
    assert "| numpy | 1.0 | 1.1 | serve |" in pull["stdin"]
    assert "| new | - | 2 | serve |" in pull["stdin"]
    assert "`docker/Dockerfile`: the newest digest" in pull["stdin"]


def test_the_next_run_updates_the_open_pull_request(repo: Repository) -> None:
    renewed(repo)
    proposed(repo)
    head = repo.git("rev-parse", "origin/refresh")
    repo.state["api"]["pulls?state=all&base=main&head=someone:refresh"] = [
        {"number": 7, "state": "open", "head": {"sha": head}}
    ]
    repo.keep()
    (repo.work / "build/refresh/files/requirements/serve.txt").write_text("numpy==1.2 \\\n")
    proposed(repo)
    assert len(repo.calls("pr", "create")) == 1
    (patched,) = (call for call in repo.state["calls"] if "PATCH" in call["words"])
    assert "repos/someone/fleet/pulls/7" in patched["words"]
    assert repo.git("rev-parse", "origin/refresh^") == repo.git("rev-parse", "origin/main")
    repo.git("switch", "--quiet", "--force", "--detach", "origin/refresh")
    repo.commit({"k": "a person's\n"})
    repo.git("push", "--quiet", "origin", "HEAD:refresh")
    repo.git("fetch", "--quiet", "origin")
    renewed(repo)
    assert "#7 has commits of a person" in proposed(repo)


def test_where_nothing_is_newer_nothing_is_proposed(repo: Repository) -> None:
    for path in refresh.BASES:
        (repo.work / path).write_text(BASE.replace(OLD, NEW))
    repo.git("commit", "--quiet", "--all", "--message", "new")
    assert repo.run("refresh", "renew").returncode == 0
    assert repo.outputs() == {"changed": "false"}
    assert not (repo.work / "build/refresh").exists()


def test_what_main_has_changed_since_is_not_overwritten(repo: Repository) -> None:
    began = repo.git("rev-parse", "HEAD")
    renewed(repo)
    repo.git("stash", "--quiet")
    repo.commit({"requirements/serve.txt": "numpy==3 \\\n"})
    repo.git("push", "--quiet", "origin", "main")
    repo.git("fetch", "--quiet", "origin")
    done = repo.run("refresh", GITHUB_SHA=began)
    assert "main has changed requirements/serve.txt since" in done.stdout
    assert not repo.calls("pr", "create")


@pytest.mark.parametrize("name", [".github/workflows/ci.yml", "requirements/../model/x.txt", "Makefile"])
def test_a_pull_request_of_the_pipeline_changes_nothing_else(repo: Repository, name: str) -> None:
    path = Path(os.path.normpath(repo.work / "build/refresh/files" / name))
    path.parent.mkdir(parents=True)
    path.write_text("evil\n")
    done = repo.run("refresh")
    assert done.returncode == 1
    assert "is not renewed by a pull request" in done.stderr


def test_without_an_engine_a_workflow_is_red_and_a_laptop_renews_the_rest(repo: Repository) -> None:
    (repo.folder / "bin/docker").write_text("#!/bin/sh\necho no buildx >&2\nexit 1\n")
    renewed(repo)
    assert (repo.work / "docker/Dockerfile").read_text() == BASE
    red = repo.run("refresh", "renew", GITHUB_ACTIONS="true")
    assert (red.returncode, "no buildx" in red.stderr) == (1, True)


def test_an_upgrade_waits_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(locks, "compile_locks", lambda folder, *flags: asked.extend(flags))
    monkeypatch.setattr(sys, "argv", ["locks", "--upgrade"])
    assert locks.main() == 0
    day = datetime.fromisoformat(re.fullmatch(r"--exclude-newer=(\S+)", asked[-1])[1])  # type: ignore[index]
    assert timedelta(days=6.9) < datetime.now(UTC) - day < timedelta(days=7.1)
    asked.clear()
    monkeypatch.setenv("COOLDOWN", "0")  # for a fix that cannot wait
    locks.main()
    assert datetime.now(UTC) - datetime.fromisoformat(asked[-1].partition("=")[2]) < timedelta(minutes=5)
    asked.clear()
    monkeypatch.setattr(sys, "argv", ["locks"])
    locks.main()
    assert not [flag for flag in asked if flag.startswith("--exclude-newer")]
