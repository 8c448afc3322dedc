"""What the line's own programs decide: the plan, the verdict, the order of the graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

Program = Callable[[str], ModuleType]
JOBS = ("plan", "check", "test", "train", "contract", "image", "manifests")
SPARED = ("train", "contract", "image")


def needs(spared: bool = False, **results: str) -> dict[str, dict[str, Any]]:
    """GitHub's needs context: all is well, but for ``results``."""
    outputs = dict.fromkeys(SPARED, "false" if spared else "true")
    fine = {job: "skipped" if spared and job in SPARED else "success" for job in JOBS}
    return {
        job: {"result": result, "outputs": outputs if job == "plan" and result == "success" else {}}
        for job, result in (fine | results).items()
    }


@pytest.mark.parametrize("spared", [False, True])
def test_required_is_green_where_all_ran_or_was_spared(program: Program, spared: bool) -> None:
    assert program("required").objections(needs(spared)) == {}


@pytest.mark.parametrize("spared", [False, True])
@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped", "", "neutral"])
@pytest.mark.parametrize("job", JOBS)
def test_required_is_red_where_a_job_is_not_as_it_must_be(
    program: Program, job: str, result: str, spared: bool
) -> None:
    allowed = spared and job in SPARED and result == "skipped"
    assert allowed == (job not in program("required").objections(needs(spared, **{job: result})))


def test_required_is_red_where_the_plan_failed_and_all_behind_it_was_skipped(program: Program) -> None:
    behind = dict.fromkeys(SPARED, "skipped")
    assert {"plan", *SPARED} == set(program("required").objections(needs(plan="failure", **behind)))


def test_required_is_red_where_nothing_ran(program: Program) -> None:
    assert {"plan"} == set(program("required").objections({}))


@pytest.mark.parametrize(("result", "code"), [("success", 0), ("failure", 1)])
def test_the_verdict_is_the_exit_code(root: Path, result: str, code: int) -> None:
    environment = os.environ | {"NEEDS": json.dumps(needs(test=result))}
    command = [sys.executable, root / ".ci/required.py"]
    assert code == subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_without_needs_there_is_no_verdict(root: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NEEDS"}
    command = [sys.executable, root / ".ci/required.py"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize(
    ("event", "changed", "needed"),
    [
        ("pull_request", ["README.md", "model/README.md", "LICENSE"], False),
        ("pull_request", ["k8s/base/service.yaml"], False),
        ("pull_request", [".github/dependabot.yml"], False),
        ("pull_request", ["README.md", "model/params.yaml"], True),
        ("pull_request", ["src/closedloop/features/custom.py"], True),
        ("pull_request", ["requirements/serve.txt"], True),
        ("pull_request", ["docker/Dockerfile"], True),
        ("pull_request", [".github/workflows/ci.yml"], True),
        ("pull_request", [".ci/plan.py"], True),
        ("pull_request", ["something/nobody/thought.of"], True),
        ("pull_request", ["notes.md.py"], True),
        ("push", ["README.md"], True),
        ("merge_group", ["README.md"], True),
        ("", [], True),
    ],
)
def test_what_a_change_needs(program: Program, event: str, changed: list[str], needed: bool) -> None:
    assert dict.fromkeys(SPARED, needed) == program("plan").plan(event, changed)


def test_a_pull_request_is_planned_by_what_it_changes(root: Path, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    def plan() -> str:
        output = tmp_path / "output"
        output.write_text("")
        environment = os.environ | {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_OUTPUT": str(output)}
        subprocess.run([sys.executable, root / ".ci/plan.py"], cwd=tmp_path, env=environment, check=True)
        return output.read_text()

    git("init", "--quiet")
    for name in ("README.md", "model.py"):
        (tmp_path / name).write_text("1\n")
    git("add", "README.md", "model.py")
    git("commit", "--quiet", "--message", "base")
    (tmp_path / "README.md").write_text("2\n")
    git("commit", "--quiet", "--all", "--message", "a word")
    assert plan() == "train=false\ncontract=false\nimage=false\n"
    git("mv", "model.py", "model.md")  # what was code is gone, though what came is prose
    git("commit", "--quiet", "--message", "a move")
    assert plan() == "train=true\ncontract=true\nimage=true\n"


def test_the_graph_runs_each_job_after_what_it_needs(root: Path, program: Program) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    order = program("graph").order(jobs)
    assert set(jobs) == set(order)
    assert set(JOBS) == set(program("graph").judged(jobs))
    for name in order:
        for other in program("graph").needed(jobs[name]):
            assert order.index(other) < order.index(name)


def test_the_table_above_is_about_the_jobs_of_the_workflow(root: Path, program: Program) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert list(JOBS) == program("graph").needed(jobs["required"])
    assert [*JOBS, "required"] == list(jobs)[: len(JOBS) + 1]
    assert SPARED == program("plan").SPARED


@pytest.mark.parametrize(
    ("red", "expected", "made"),
    [
        (
            (),
            dict.fromkeys(JOBS, "success"),
            {"plan", "check", "test", "reference", "run", "summary", "bundle-digest", "contract", "image-test"},
        ),
        (("check",), {"check": "failure", "train": "success", "image": "success"}, {"contract", "image"}),
        (("run",), {"train": "failure", "contract": "skipped", "image": "skipped"}, {"summary"}),
        (("image",), {"image": "failure"}, {"image"}),
        (("engine",), {"image": "skipped", "contract": "success"}, {"contract"}),
    ],
)
def test_the_graph_here_ends_as_it_would_there(
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    red: tuple[str, ...],
    expected: dict[str, str],
    made: set[str],
) -> None:
    """A red target reddens its job, what needs the job is skipped, and a missing engine is a skip that is allowed."""
    graph, seen = program("graph"), {}

    def make(target: str, **extra: str) -> bool:
        seen[target] = extra
        if target == "plan":
            Path(extra["GITHUB_OUTPUT"]).write_text("train=true\ncontract=true\nimage=true\n")
        if target == "required":
            return not program("required").objections(json.loads(extra["NEEDS"]))
        return target not in red

    monkeypatch.setattr(graph, "make", make)
    assert graph.main() == (0 if set(red) <= {"engine"} else 1)
    results = {job: facts["result"] for job, facts in json.loads(seen["required"]["NEEDS"]).items()}
    assert expected.items() <= results.items()
    assert made <= set(seen)
    assert "image" not in red or "image-test" not in seen
