"""What the pipeline's programs decide: the plan, the verdict, the order of the jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import local_ci
from pipeline import plan, required

ROOT = Path(__file__).resolve().parents[2]
JOBS = ("plan", "check", "test", "train", "contract", "image", "cluster", "manifests")
OF_MODEL = ("train", "contract", "image", "cluster")
SKIPPABLE = ("check", "test", *OF_MODEL, "manifests")
ALSO = "manifests=true\n"  # a copy may have taken that job away
REST = f"{ALSO}login=false\nnot_judged=\n"
PROGRAMS = {"PYTHONPATH": str(ROOT / ".ci"), "PYTHONSAFEPATH": "1"}  # as make runs one


def needs(skipped: bool = False, **results: str) -> dict[str, dict[str, Any]]:
    """GitHub's needs context: all is well, but for ``results``."""
    outputs = dict.fromkeys(SKIPPABLE, "false" if skipped else "true")
    fine = {job: "skipped" if skipped and job in SKIPPABLE else "success" for job in JOBS}
    return {
        job: {"result": result, "outputs": outputs if job == "plan" and result == "success" else {}}
        for job, result in (fine | results).items()
    }


@pytest.mark.parametrize("skipped", [False, True])
def test_required_is_green_where_all_ran_or_was_skipped(skipped: bool) -> None:
    assert required.objections(needs(skipped)) == {}


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped", "", "neutral"])
@pytest.mark.parametrize("job", JOBS)
def test_required_is_red_where_a_job_is_not_as_it_must_be(job: str, result: str, skipped: bool) -> None:
    allowed = skipped and job in SKIPPABLE and result == "skipped"
    assert allowed == (job not in required.objections(needs(skipped, **{job: result})))


def test_required_is_red_where_the_plan_failed_and_all_behind_it_was_skipped() -> None:
    behind = dict.fromkeys(SKIPPABLE, "skipped")
    assert {"plan", *SKIPPABLE} == set(required.objections(needs(plan="failure", **behind)))


def test_required_is_red_where_nothing_ran() -> None:
    assert {"plan"} == set(required.objections({}))


@pytest.mark.parametrize(("result", "code"), [("success", 0), ("failure", 1)])
def test_the_verdict_is_the_exit_code(result: str, code: int) -> None:
    environment = os.environ | PROGRAMS | {"NEEDS": json.dumps(needs(test=result))}
    command = [sys.executable, "-m", "pipeline.required"]
    assert code == subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_without_needs_there_is_no_verdict() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NEEDS"} | PROGRAMS
    command = [sys.executable, "-m", "pipeline.required"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize(
    ("event", "changed", "needed"),
    [
        ("pull_request", ["README.md", "model/README.md", "LICENSE"], False),
        ("pull_request", ["k8s/base/service.yaml"], True),
        ("pull_request", [".github/dependabot.yml"], False),
        ("pull_request", ["README.md", "model/params.yaml"], True),
        ("pull_request", ["src/closedloop/features/custom.py"], True),
        ("pull_request", ["requirements/serve.txt"], True),
        ("pull_request", ["docker/Dockerfile"], True),
        ("pull_request", [".github/workflows/ci.yml"], True),
        ("pull_request", [".ci/pipeline/plan.py"], True),
        ("pull_request", ["something/nobody/thought.of"], True),
        ("pull_request", ["notes.md.py"], True),
        ("push", ["README.md"], True),
        ("merge_group", ["README.md"], True),
        ("", [], True),
    ],
)
def test_what_a_change_needs(event: str, changed: list[str], needed: bool) -> None:
    planned = plan.plan(event, changed)
    assert dict.fromkeys(SKIPPABLE, True) | dict.fromkeys(OF_MODEL, needed) | {"cluster": planned["cluster"]} == planned


@pytest.mark.parametrize(
    ("event", "changed", "needed"),
    [
        ("pull_request", "k8s/base/service.yaml", True),
        ("pull_request", "k8s/components/auth/tokens.yaml", True),
        ("pull_request", "docker/Dockerfile", True),
        ("pull_request", "score/server.py", True),
        ("pull_request", "src/closedloop/log/ship.py", True),
        ("pull_request", ".ci/pipeline/deploy.py", True),
        ("pull_request", "tests/e2e/cluster.py", True),
        ("pull_request", "requirements/serve.txt", True),
        ("pull_request", ".github/workflows/cluster.yml", True),
        ("pull_request", "k8s/README.md", False),
        ("pull_request", "model/params.yaml", False),
        ("pull_request", "src/closedloop/features/custom.py", False),
        ("push", "k8s/base/service.yaml", False),
        ("merge_group", "k8s/base/service.yaml", False),
        ("", "k8s/base/service.yaml", False),
    ],
)
def test_a_cluster_is_for_pull_requests_that_change_what_runs_on_one(event: str, changed: str, needed: bool) -> None:
    assert plan.plan(event, [changed])["cluster"] is needed


def test_a_pull_request_is_planned_by_what_it_changes(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    def plan() -> str:
        output = tmp_path / "output"
        output.write_text("")
        environment = os.environ | PROGRAMS | {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_OUTPUT": str(output)}
        subprocess.run([sys.executable, "-m", "pipeline.plan"], cwd=tmp_path, env=environment, check=True)
        return output.read_text()

    git("init", "--quiet")
    for name in ("README.md", "model.py"):
        (tmp_path / name).write_text("1\n")
    git("add", "README.md", "model.py")
    git("commit", "--quiet", "--message", "base")
    (tmp_path / "README.md").write_text("2\n")
    git("commit", "--quiet", "--all", "--message", "prose")
    assert plan() == f"check=true\ntest=true\ntrain=false\ncontract=false\nimage=false\ncluster=false\n{REST}"
    git("mv", "model.py", "model.md")  # removes code, although what it adds is prose
    git("commit", "--quiet", "--message", "a move")
    assert plan() == f"check=true\ntest=true\ntrain=true\ncontract=true\nimage=true\ncluster=false\n{REST}"


def test_each_job_runs_after_those_that_it_needs(root: Path) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    order = local_ci.order(jobs)
    assert set(jobs) == set(order)
    assert set(JOBS) == set(local_ci.judged(jobs))
    for name in order:
        for other in local_ci.needed(jobs[name]):
            assert order.index(other) < order.index(name)
    assert order.index("train") < order.index("test")  # which then finds the loops compiled


def test_the_table_above_is_about_the_jobs_of_the_workflow(root: Path) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert list(JOBS) == local_ci.needed(jobs["required"])
    assert [*JOBS, "required"] == list(jobs)[: len(JOBS) + 1]
    assert (SKIPPABLE, OF_MODEL) == (plan.SKIPPABLE, plan.OF_MODEL)


@pytest.mark.parametrize(
    ("red", "expected", "made"),
    [
        (
            (),
            dict.fromkeys(JOBS, "success") | {"cluster": "skipped"},
            {"plan", "check", "test", "champion", "run", "summary", "bundle-digest", "contract", "image-test"},
        ),
        (("check",), {"check": "failure", "train": "success", "image": "success"}, {"contract", "image"}),
        (("run",), {"train": "failure", "contract": "skipped", "image": "skipped"}, {"summary"}),
        (("image",), {"image": "failure"}, {"image"}),
        (("engine",), {"image": "skipped", "contract": "success"}, {"contract"}),
    ],
)
def test_the_jobs_end_on_this_machine_as_on_github(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    red: tuple[str, ...],
    expected: dict[str, str],
    made: set[str],
) -> None:
    """A red target makes its job red, jobs that need it are skipped, and without an engine a skip is allowed."""
    seen: dict[str, dict[str, str]] = {}

    def make(target: str, **extra: str) -> bool:
        seen[target] = extra
        if target == "plan":
            planned = "check=true\ntest=true\ntrain=true\ncontract=true\nimage=true\ncluster=false\n"
            Path(extra["GITHUB_OUTPUT"]).write_text(planned + ALSO)
        if target == "required":
            return not required.objections(json.loads(extra["NEEDS"]))
        return target not in red

    monkeypatch.setattr(local_ci, "make", make)
    monkeypatch.setattr(local_ci, "MEASURED", tmp_path / "build/ci.json")
    assert local_ci.main() == (0 if set(red) <= {"engine"} else 1)
    results = {job: facts["result"] for job, facts in json.loads(seen["required"]["NEEDS"]).items()}
    noted = json.loads((tmp_path / "build/ci.json").read_text())
    assert set(noted["seconds"]) == {job for job, result in results.items() if result == "success"}
    assert {"commit", "processors"} < set(noted)
    assert expected.items() <= results.items()
    assert made <= set(seen)
    assert not {"kind", "e2e"} & set(seen)
    assert not {"login-aws", "login-gcp", "log-pins"} & set(seen)
    assert "image" not in red or "image-test" not in seen
