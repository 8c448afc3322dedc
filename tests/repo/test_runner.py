"""The workflow files, run by a workflow runner (act-run) for the events that it supports.

The make targets are stand-ins that leave what the next job needs; plan and verdict are the real programs. This tests
which jobs run, in what order, and what they pass on. test_events.py has the whole table.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

# The runner passes on only those environment variables that begin with ACT_RUN_.
MAKEFILE = """\
plan champion required comment issue status release-decide release-hold release-approved:
\t@case $@ in \\
\tplan|required) PYTHONPATH=.ci python3 -m pipeline.$@;; \\
\tchampion) echo commit= >> $$GITHUB_OUTPUT;; \\
\trelease-decide) printf 'release=true\\nsign=true\\nstaging=false\\nproduction=false\\n' >> $$GITHUB_OUTPUT;; \\
\trelease-hold|release-approved) echo go=true >> $$GITHUB_OUTPUT;; \\
\tesac
run manifests release-files:
\t@mkdir -p build/bundle build/report build/manifests build/release build/data
\t@for f in bundle/manifest report/summary decision manifests/local data/data; do echo $@ > build/$$f.json; done
\t@for f in bundle.tar.gz sbom.json facts.json; do echo $@ > build/release/$$f; done
\t@test "$@" != "$$ACT_RUN_RED"
bundle-digest:
\t@test -f build/bundle/manifest.json && echo bundle_digest=sha256:b >> $$GITHUB_OUTPUT
image-push:
\t@printf 'name=x\\ndigest=sha256:%064d\\nimage=x@sha256:%064d\\n' 1 1 >> $$GITHUB_OUTPUT
scan-served:
\t@mkdir -p build/scan
release-publish:
\t@mkdir -p build/move && echo {} > build/move/move.json
\t@printf '%064d  x\\n' 1 > build/move/subjects.txt
contract image:
\t@test -f build/bundle/manifest.json
%:
\t@echo $@
"""
TITLES = {
    "plan": "Plan the run",
    "check": "Run the static checks",
    "test": "Test model, service and log",
    "train": "Train and judge the model",
    "contract": "Test the scoring contract",
    "image": "Build and test the image",
    "cluster": "Test the manifests on a cluster",
    "manifests": "Check the manifests",
    "comment": "Comment the verdict on the pull request",
    "decide": "Decide whether this commit is released, and make its tag",
    "release": "Build and draft the release",
    "deliver": "Release the judged model",
    "issue": "Keep an issue open while main is red",
    "status": "Report the verdict of a run started by hand",
}

pytestmark = pytest.mark.skipif(shutil.which("act-run") is None, reason="act-run is not on PATH")


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A repository with these workflows, and a branch."""
    folder = tmp_path / "fleet"
    for name in (".github", ".ci"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "params.yaml").write_text("1\n")
    (folder / "k8s").mkdir()
    (folder / "k8s/README.md").touch()  # without the folder the plan leaves the job cluster out
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "base")
    git(folder, "checkout", "--quiet", "-b", "topic")
    return folder


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def act(folder: Path, *words: str, **extra: str) -> tuple[int, dict[str, str], str]:
    """Run ci.yml; the results by job title, those of a called file as ``title/inner title``."""
    command = ["act-run", words[0], "--repository", "someone/fleet", "-W", ".github/workflows/ci.yml", *words[1:]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))} | extra
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    rows = re.findall(r"^(.+?) +[\d.]+ s +(\w[\w ]*)$", done.stdout.rpartition("-- jobs\n")[2], re.MULTILINE)
    found = {name.removeprefix("ci/"): result for name, result in rows}
    return done.returncode, found, done.stdout + done.stderr


def ran(found: dict[str, str]) -> dict[str, set[str]]:
    """The conductor's jobs by result; a job that calls a file ended as its worst inner job did."""
    titles = {title: job for job, title in TITLES.items()} | {"required": "required", "branch": "required"}
    by_job: dict[str, set[str]] = {}
    for name, result in found.items():
        by_job.setdefault(titles[name.partition("/")[0]], set()).add(result)
    worst = {job: next(r for r in ("failure", "success", "skipped") if r in results) for job, results in by_job.items()}
    return {r: {job for job, result in worst.items() if result == r} for r in ("success", "failure", "skipped")}


JUDGED = {"plan", "check", "test", "train", "contract", "image", "manifests", "required"}


@pytest.mark.parametrize(
    ("event", "branch", "change", "done"),
    [
        ("push", "topic", "params.yaml", JUDGED),
        ("pull_request", "topic", "params.yaml", JUDGED | {"comment"}),
        ("pull_request", "topic", "README.md", JUDGED - {"train", "contract", "image"}),
        ("pull_request", "topic", "Makefile", JUDGED | {"cluster", "comment"}),
        ("merge_group", "topic", "README.md", JUDGED),
        ("workflow_dispatch", "topic", "params.yaml", JUDGED | {"status"}),
        ("push", "main", "params.yaml", JUDGED | {"decide", "release", "deliver", "issue"}),
    ],
)
def test_the_runner_runs_the_jobs_of_the_event(
    copy: Path, tmp_path: Path, event: str, branch: str, change: str, done: set[str]
) -> None:
    if branch == "main":
        git(copy, "checkout", "--quiet", "main")
    with (copy / change).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message", "change")
    payload = tmp_path / "payload.json"
    payload.write_text('{"pull_request": {"user": {"type": "User"}}}' if event == "pull_request" else "{}")
    code, found, shown = act(copy, event, "--branch", branch, "--event-json", str(payload))
    assert code == 0, shown[-3000:]
    assert done == ran(found)["success"]
    assert set(TITLES) | {"required"} == done | ran(found)["skipped"]
    name = "branch" if event in ("push", "workflow_dispatch") and branch != "main" else "required"
    assert found[name] == "success"


def test_the_verdict_is_red_after_a_red_training(copy: Path) -> None:
    (copy / "params.yaml").write_text("2\n")
    git(copy, "commit", "--quiet", "--all", "--message", "change")
    code, found, shown = act(copy, "push", ACT_RUN_RED="run")
    assert code == 1, shown[-3000:]
    assert {"train", "required"} == ran(found)["failure"]
    assert {"contract", "image"} <= ran(found)["skipped"]
