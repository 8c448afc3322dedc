"""Which jobs each event runs, and the verdict of `required` when one of them fails, is skipped or is cancelled.

The workflows' own `if:`, `needs:` and `with:` are evaluated, job by job, as GitHub does it; plan and verdict are the
real programs. test_runner.py has a workflow runner do the same for some of the events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import pin_access, plan, required

from .expressions import evaluate, truth

STATES = {"success()", "failure()", "always()", "cancelled()"}
JUDGED = ("plan", "check", "test", "train", "contract", "image", "cluster", "manifests")
SKIPPABLE = ("train", "contract", "image", "cluster")


@dataclass
class World:
    """What a run starts from: its event, the repository's variables, and how each job would end if it ran."""

    event: str
    ref: str = "refs/heads/topic"
    changed: tuple[str, ...] = ("model/params.yaml",)
    payload: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    actor: str = "someone"
    pinned: tuple[dict[str, Any], ...] = ()
    elsewhere: bool = False  # an open pull request has the commit of this push
    ends: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)  # what each called file was given: the run notes it


def pull(fork: bool = False, kind: str = "User", of_a_copy: bool = False) -> dict[str, Any]:
    """The payload of a pull request; ``of_a_copy``: from a branch here, where this repository itself is a fork."""
    head = {"repo": {"full_name": "stranger/copy" if fork else "someone/fleet", "fork": fork or of_a_copy}}
    return {"pull_request": {"number": 7, "head": head, "base": {"sha": "b" * 40}, "user": {"type": kind}}}


@cache
def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def run(root: Path, name: str, world: World, prefix: str = "", inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """Every job of a workflow with its result and outputs, those of called files as ``caller/job``."""
    flow = read(root / ".github/workflows" / name)
    done: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    waiting = dict(flow["jobs"])
    while waiting:
        job = next(j for j in waiting if all(n in done for n in needed(waiting[j])))
        facts = waiting.pop(job)
        contexts = {
            "github": {
                "event_name": world.event,
                "ref": world.ref,
                "repository": "someone/fleet",
                "event": {"repository": {"private": False}} | world.payload,
            },
            "needs": {n: done[n] for n in needed(facts)},
            "vars": world.variables,
            "inputs": world.inputs if inputs is None else inputs,
        }
        before = {done[n]["result"] for n in ancestors(flow["jobs"], job)}
        stopped = "cancelled" in before
        functions = {
            "success": lambda before=before: before <= {"success"},
            "failure": lambda before=before: "failure" in before,
            "cancelled": lambda stopped=stopped: stopped and world.ends.get("run") == "cancelled",
            "always": lambda: True,
        }
        condition = str(facts.get("if", "success()")).strip().removeprefix("${{").removesuffix("}}")
        if not any(state in condition for state in STATES):
            condition = f"success() && ({condition})"
        key = f"{prefix}{job}"
        if not truth(evaluate(f"${{{{{condition}}}}}", contexts, functions)):
            done[job] = {"result": "skipped", "outputs": {}}
        elif "uses" in facts:
            given = {k: evaluate(v, contexts, functions) for k, v in facts.get("with", {}).items()}
            world.given[key] = given
            inner = run(root, Path(facts["uses"]).name, world, f"{key}/", given)
            results = {facts["result"] for facts in inner.values()}
            worst = next((bad for bad in ("failure", "cancelled") if bad in results), "success")
            result = world.ends.get(key, worst)
            inside = {j[len(key) + 1 :]: told for j, told in inner.items()}
            handed = outputs(root, Path(facts["uses"]).name, inside, given)
            done[job] = {"result": result, "outputs": handed if result == "success" else {}}
            shown |= inner
        else:
            result = world.ends.get(key, "success")
            done[job] = {"result": result, "outputs": world.outputs.get(job, {}) if result == "success" else {}}
        shown[key] = done[job] | {"name": evaluate(facts.get("name", job), contexts | {"matrix": {}}, functions)}
    return shown


def outputs(root: Path, name: str, done: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """What a called workflow hands on of what its jobs hand on."""
    declared = (read(root / ".github/workflows" / name)[True]["workflow_call"] or {}).get("outputs", {})
    return {key: evaluate(one["value"], {"jobs": done, "inputs": inputs}) for key, one in declared.items()}


def needed(job: dict[str, Any]) -> list[str]:
    return [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])


def ancestors(jobs: dict[str, Any], name: str) -> set[str]:
    """GitHub's success() asks all that lies behind a job, not only what it names."""
    direct = set(needed(jobs[name]))
    return direct.union(*(ancestors(jobs, other) for other in direct))


def ci(root: Path, world: World) -> dict[str, Any]:
    """A run of ci.yml, planned by the real plan."""
    found = pin_access.clouds(world.pinned)
    who = pin_access.stranger(world.event, world.actor, world.payload, "someone/fleet")
    why = pin_access.not_judged(found, who, world.payload, world.variables)
    told = plan.outputs(plan.plan(world.event, world.changed, world.elsewhere), bool(found), why)
    as_text = {name: str(it).lower() if isinstance(it, bool) else it for name, it in told.items()}
    world.outputs = {"plan": as_text} | world.outputs
    return run(root, "ci.yml", world)


def ran(jobs: dict[str, Any]) -> set[str]:
    """The conductor's jobs that were not skipped."""
    return {name for name, facts in jobs.items() if "/" not in name and facts["result"] != "skipped"}


ALL = {*JUDGED, "required"} - {"cluster"}
MAIN = {*ALL, "decide", "release", "deliver", "issue"}
DOCS = ("README.md",)
LOGIN = {"DATA_AWS_ROLE": "arn", "DATA_AWS_REGION": "eu-central-1"}
NOTHING_SET = {"release": "true", "sign": "true", "staging": "false", "production": "false"}
EVENTS = {
    "a push to a branch": (World("push"), ALL, "branch"),
    "a push whose commit an open pull request has": (
        World("push", elsewhere=True),
        {"plan", "required"},
        "branch",
    ),
    "a branch that a run pushed, of a pull request": (
        World("workflow_dispatch", ref="refs/heads/retrain", elsewhere=True),
        {*ALL, "status"},
        "branch",
    ),
    "a pull request of parameters": (World("pull_request", payload=pull()), {*ALL, "comment"}, "required"),
    "a pull request of code": (
        World("pull_request", changed=("src/closedloop/features/custom.py",), payload=pull()),
        {*ALL, "comment"},
        "required",
    ),
    "a pull request of prose": (World("pull_request", changed=DOCS, payload=pull()), ALL - set(SKIPPABLE), "required"),
    "a pull request of manifests": (
        World("pull_request", changed=("k8s/base/service.yaml",), payload=pull()),
        {*ALL, "cluster", "comment"},
        "required",
    ),
    "a pull request from a fork": (World("pull_request", payload=pull(fork=True)), ALL, "required"),
    "a pull request of Dependabot": (World("pull_request", payload=pull(kind="Bot")), ALL, "required"),
    "a pull request from a fork that needs a login": (
        World("pull_request", payload=pull(fork=True), pinned=({"location": "s3://fleet/plant"},)),
        ALL - set(SKIPPABLE),
        "required",
    ),
    "a pull request from here that needs a login": (
        World("pull_request", payload=pull(), pinned=({"location": "s3://fleet/plant"},), variables=LOGIN),
        {*ALL, "comment"},
        "required",
    ),
    "a pull request from here without the variables of its login": (
        World("pull_request", payload=pull(), pinned=({"location": "s3://fleet/plant"},)),
        ALL - set(SKIPPABLE),
        "required",
    ),
    "a push to main without the variables of its login": (
        World("push", ref="refs/heads/main", pinned=({"location": "s3://fleet/plant"},)),
        {*ALL, "issue"} - set(SKIPPABLE),
        "required",
    ),
    "a merge group": (World("merge_group", ref="refs/heads/gh-readonly-queue/main/pr-7"), ALL, "required"),
    "a merge group of prose": (
        World("merge_group", ref="refs/heads/gh-readonly-queue/main/pr-7", changed=DOCS),
        ALL,
        "required",
    ),
    "a push to main": (World("push", ref="refs/heads/main"), MAIN, "required"),
    "a push of prose to main": (World("push", ref="refs/heads/main", changed=DOCS), MAIN, "required"),
    "a branch that rollback or retrain pushed": (
        World("workflow_dispatch", ref="refs/heads/rollback/r1"),
        {*ALL, "status"},
        "branch",
    ),
}


LOCKED_OUT = {  # each is red, once
    "a pull request from a fork that needs a login",
    "a pull request from here without the variables of its login",
    "a push to main without the variables of its login",
}


@pytest.mark.parametrize("event", EVENTS)
def test_which_jobs_an_event_runs(root: Path, event: str) -> None:
    world, expected, name = EVENTS[event]
    world.outputs["decide"] = NOTHING_SET
    jobs = ci(root, world)
    assert expected == ran(jobs)
    assert name == jobs["required"]["name"].strip()
    assert ({"train"} if event in LOCKED_OUT else set()) == set(verdict(jobs))


def verdict(jobs: dict[str, Any]) -> dict[str, str]:
    """The objections of required.py to a run."""
    needs = {job: {"result": jobs[job]["result"], "outputs": jobs[job]["outputs"]} for job in JUDGED}
    return required.objections(json.loads(json.dumps(needs)))


@pytest.mark.parametrize("how", ["failure", "cancelled", "skipped"])
@pytest.mark.parametrize("job", JUDGED)
@pytest.mark.parametrize("event", sorted(set(EVENTS) - LOCKED_OUT))
def test_what_required_answers_when_a_job_does_not_succeed(root: Path, event: str, job: str, how: str) -> None:
    """Red in every case, except where the plan skips the job: then it cannot end otherwise, and a skip is green."""
    world, expected, _ = EVENTS[event]
    world = World(**(vars(world) | {"ends": {job: how}, "outputs": {"decide": NOTHING_SET}}))
    jobs = ci(root, world)
    assert jobs["required"]["result"] == "success", "it runs whatever happens"
    assert (job not in expected) == (verdict(jobs) == {})
    if job in expected:
        assert job in verdict(jobs)


def test_a_red_main_releases_nothing_and_opens_an_issue(root: Path) -> None:
    world = World("push", ref="refs/heads/main", ends={"train": "failure", "required": "failure"})
    jobs = ci(root, world)
    assert {"decide", "release", "deliver", "issue"} & ran(jobs) == {"issue"}


@pytest.mark.parametrize("decided", [{"release": "false"}, None])
def test_a_commit_that_is_not_to_be_released_is_not(root: Path, decided: dict[str, str] | None) -> None:
    """Also where the job that decides has failed, and says nothing."""
    world = World("push", ref="refs/heads/main", outputs={"decide": decided or {}})
    world.ends = {} if decided else {"decide": "failure"}
    assert {"decide", "release", "deliver", "issue"} & ran(ci(root, world)) == {"decide", "issue"}


def test_what_waits_for_a_person_is_in_no_group_and_what_a_newer_one_needs_is_short(root: Path) -> None:
    """docs.github.com, "Control workflow concurrency": one waits in a group, and the last one queued takes its place.

    A job holds its group while it waits for a reviewer. So neither the job that makes the tag nor the one that waits
    is in a group, and one caller holds it from the rollout to the signed move.
    """
    ci_jobs, release_jobs, deliver = (
        read(root / f".github/workflows/{n}.yml")["jobs"] for n in ("ci", "release", "deliver")
    )
    assert "concurrency" not in ci_jobs["decide"] | ci_jobs["release"] | release_jobs["approve"]
    assert "environment" not in ci_jobs["decide"]
    assert release_jobs["approve"]["environment"] == "approval"
    assert ci_jobs["deliver"]["concurrency"]["group"] == "release"
    assert {"start", "production", "publish", "move"} < set(deliver)
    for name in ("release", "deliver"):
        for job in read(root / f".github/workflows/{name}.yml")["jobs"].values():
            assert "queue" not in job.get("concurrency", {})  # not needed: see .github/README.md


def test_what_was_judged_is_what_is_released(root: Path) -> None:
    """The digest goes from training through two files to the release, which refuses another bundle."""
    digests = {"train": {"bundle_digest": "sha256:judged"}, "decide": NOTHING_SET}
    world = World("push", ref="refs/heads/main", outputs=digests)
    ci(root, world)
    told = {key: NOTHING_SET[key] for key in ("staging", "production", "sign")}
    assert {"bundle_digest": "sha256:judged"} | told == world.given["release"]


def release(root: Path, ends: dict[str, str], **decided: str) -> dict[str, str]:
    """The results of the jobs of release.yml and deliver.yml, as ci.yml calls them."""
    told = {"approve": {"go": "true"}, "start": {"go": "true"}, "decide": NOTHING_SET | decided}
    told |= {job: {"go": "false"} for job, how in ends.items() if how == "overtaken"}
    delivering = {"start", "production", "publish", "move"}
    how_they_end = {
        f"{'deliver' if job in delivering else 'release'}/{job}": how for job, how in ends.items() if how != "overtaken"
    }
    jobs = ci(root, World("push", ref="refs/heads/main", outputs=told, ends=how_they_end))
    return {
        job.partition("/")[2]: facts["result"]
        for job, facts in jobs.items()
        if job.startswith(("release/", "deliver/"))
    }


DRAFTED = {"build", "sign", "scan", "draft"}
RELEASED = DRAFTED | {"start", "publish", "move"}
DEPLOYED = RELEASED | {"approve", "production"}


@pytest.mark.parametrize(
    ("decided", "ends", "done"),
    [
        ({}, {}, RELEASED),
        ({"sign": "false"}, {}, RELEASED - {"sign", "move"}),
        ({}, {"move": "failure"}, RELEASED - {"move"}),
        ({"staging": "true"}, {}, RELEASED | {"staging"}),
        ({"staging": "true", "production": "true"}, {}, DEPLOYED | {"staging"}),
        ({"production": "true"}, {}, DEPLOYED),
        ({}, {"build": "failure"}, set()),
        ({}, {"scan": "failure"}, {"build", "sign"}),
        ({}, {"sign": "failure"}, {"build", "scan"}),
        ({}, {"draft": "failure"}, {"build", "sign", "scan"}),
        ({"staging": "true", "production": "true"}, {"staging": "failure"}, DRAFTED),
        ({"production": "true"}, {"approve": "failure"}, DRAFTED),
        ({"production": "true"}, {"approve": "overtaken"}, DRAFTED | {"approve"}),
        ({"production": "true"}, {"start": "overtaken"}, DRAFTED | {"approve", "start"}),
        ({}, {"start": "overtaken"}, DRAFTED | {"start"}),
        (
            {"staging": "true", "production": "true"},
            {"production": "failure"},
            DRAFTED | {"staging", "approve", "start"},
        ),
        ({"production": "true"}, {"production": "cancelled"}, DRAFTED | {"approve", "start"}),
    ],
)
def test_how_far_a_release_gets(root: Path, decided: dict[str, str], ends: dict[str, str], done: set[str]) -> None:
    """A job that fails stops those that must not follow it; nothing is published that was not deployed."""
    results = release(root, ends, **decided)
    assert done == {job for job, result in results.items() if result == "success"}
    red = {job for job, how in ends.items() if how != "overtaken"}
    assert red == {job for job, result in results.items() if result not in ("success", "skipped")}


@pytest.mark.parametrize("ends", ["success", "failure"])
def test_azure_ml_follows_what_production_serves(root: Path, ends: str) -> None:
    """Both are configured: production moves what is served, whatever becomes of the other."""
    go = {"start": {"go": "true"}}
    world = World("push", ref="refs/heads/main", outputs=go, variables={"AZUREML_TARGET": "managed"})
    world.ends = {} if ends == "success" else {"azureml": ends}
    told = {"production": "true", "sign": "true"}
    jobs = run(root, "deliver.yml", world, "", told)
    assert {"production": "success", "publish": "success", "azureml": ends} == {
        name: jobs[name]["result"] for name in ("production", "publish", "azureml")
    }
    flow = yaml.safe_load((root / ".github/workflows/deliver.yml").read_text(encoding="utf-8"))
    assert not [name for name, job in flow["jobs"].items() if "azureml" in str(job.get("needs", ""))]
    world.ends = {"production": "failure"}
    jobs = run(root, "deliver.yml", world, "", told)
    assert {"skipped"} == {jobs[name]["result"] for name in ("publish", "azureml")}
    world.ends = {"move": "failure"}  # it is red of its own, and nothing may hide that
    assert run(root, "deliver.yml", world, "", told)["azureml"]["result"] == "skipped"
    world.ends, world.outputs = {}, {"start": {"go": "false"}}  # a newer one is released
    assert run(root, "deliver.yml", world, "", told)["azureml"]["result"] == "skipped"
    world.outputs, world.variables = go, {}
    assert run(root, "deliver.yml", world, "", told)["azureml"]["result"] == "skipped"


def test_the_mirror_needs_a_server(root: Path) -> None:
    world = World(
        "push", outputs={"start": {"go": "true"}}, variables={"MLFLOW_TRACKING_URI": "https://mlflow.invalid"}
    )
    assert run(root, "deliver.yml", world, "", {"production": "false", "sign": "true"})["mirror"]["result"] == "success"
    world.variables = {}
    assert run(root, "deliver.yml", world, "", {"production": "false", "sign": "true"})["mirror"]["result"] == "skipped"


@pytest.mark.parametrize(("job", "command"), [("azureml", "make azureml"), ("mirror", "make mirror")])
@pytest.mark.parametrize("go", ["true", "false"])
def test_a_job_that_a_person_runs_again_brings_no_older_release_back(
    root: Path, job: str, command: str, go: str
) -> None:
    """GitHub offers it for weeks, and by then a newer release may be served, and be the champion."""
    told = read(root / ".github/workflows/deliver.yml")["jobs"][job]
    commands = [step.get("run") for step in told["steps"]]
    assert commands.index("make release-hold") < commands.index(command)
    assert told["steps"][commands.index("make release-hold")]["id"] == "hold"
    assert told["concurrency"] == {"group": job, "cancel-in-progress": False}
    steps = {"hold": {"outputs": {"go": go}}, "deploy": {"outcome": "success" if go == "true" else "skipped"}}
    ran = truth(evaluate(f"${{{{{told['steps'][commands.index(command)]['if']}}}}}", {"steps": steps}))
    assert ran == (go == "true")
    if job == "azureml":
        assert evaluate(told["outputs"]["behind"], {"steps": steps}) == "none"
        steps = {"hold": {"outputs": {"go": "true"}}, "deploy": {"outcome": "failure"}}
        assert evaluate(told["outputs"]["behind"], {"steps": steps}) == "Azure ML"


@pytest.mark.parametrize(
    ("deploy_to", "private", "ends", "done"),
    [
        ("", False, {}, {"hold", "move", "sign", "check"}),
        ("", True, {}, {"hold", "move", "check"}),
        ("staging production", False, {}, {"hold", "apply", "move", "sign", "check"}),
        ("production", False, {"hold": "failure"}, set()),
        ("production", False, {"apply": "failure"}, {"hold"}),
        ("", False, {"sign": "failure"}, {"hold", "move"}),
    ],
)
def test_what_a_rollback_does(root: Path, deploy_to: str, private: bool, ends: dict[str, str], done: set[str]) -> None:
    """What is served moves only once production runs it; until then other releases stay stopped."""
    world = World("workflow_dispatch", ref="refs/heads/main", ends=ends, variables={"DEPLOY_TO": deploy_to})
    world.payload = {"repository": {"private": private}}
    jobs = run(root, "rollback.yml", world)
    assert done == {job for job, facts in jobs.items() if facts["result"] == "success"}


@pytest.mark.parametrize(
    ("private", "ends", "result"),
    [
        (False, {}, "success"),
        (True, {}, "success"),
        (False, {"sign": "failure"}, "skipped"),
        (True, {"move": "failure"}, "skipped"),
        (False, {"azureml": "failure"}, "failure"),
    ],
)
def test_azure_ml_follows_a_rollback(root: Path, private: bool, ends: dict[str, str], result: str) -> None:
    """Else it goes on serving what was withdrawn. Whatever becomes of it, the pull request gets its checks."""
    world = World("workflow_dispatch", ref="refs/heads/main", ends=ends, variables={"AZUREML_TARGET": "managed"})
    world.payload = {"repository": {"private": private}}
    jobs = run(root, "rollback.yml", world)
    assert result == jobs["azureml"]["result"]
    assert ("skipped" if "azureml" not in ends and ends else "success") == jobs["check"]["result"]


@pytest.mark.parametrize("name", ["rollback.yml", "retrain.yml", "refresh.yml", "monitor.yml"])
def test_what_writes_is_started_on_main_alone(root: Path, name: str) -> None:
    jobs = run(root, name, World("workflow_dispatch", ref="refs/heads/topic", variables={"DEPLOY_TO": "production"}))
    assert {"skipped"} == {facts["result"] for facts in jobs.values()}


@pytest.mark.parametrize(
    ("event", "payload", "fork"),
    [
        ("pull_request", pull(fork=True), True),
        ("pull_request", pull(), False),
        ("pull_request", pull(of_a_copy=True), False),
        ("push", {}, False),
        ("schedule", {}, False),
    ],
)
def test_only_another_repositorys_branch_is_a_fork_to_the_scanners(
    root: Path, event: str, payload: dict[str, Any], fork: bool
) -> None:
    """A branch of this repository is none, also where this repository itself is a fork."""
    told = read(root / ".github/workflows/security.yml")["jobs"]["scans"]["steps"][-1]["env"]["FORK"]
    github = {"event_name": event, "event": payload, "repository": "someone/fleet"}
    assert fork == evaluate(told, {"github": github})


@pytest.mark.parametrize(
    ("ends", "changed", "done"),
    [
        ({}, "true", {"renew", "propose", "template"}),
        ({}, "false", {"renew", "template"}),
        ({"renew": "failure"}, "", {"template"}),  # a lock that cannot be renewed holds back no change of the template
        ({"template": "failure"}, "true", {"renew", "propose"}),
    ],
)
def test_locks_and_template_are_refreshed_apart(root: Path, ends: dict[str, str], changed: str, done: set[str]) -> None:
    world = World("schedule", ref="refs/heads/main", ends=ends, outputs={"renew": {"changed": changed}})
    assert done == {job for job, facts in run(root, "refresh.yml", world).items() if facts["result"] == "success"}


def test_without_a_log_nothing_is_trained(root: Path) -> None:
    jobs = run(root, "retrain.yml", World("schedule", ref="refs/heads/main", outputs={"log": {"log": "false"}}))
    assert {"log": "success", "databricks": "skipped", "retrain": "skipped", "propose": "skipped"} == {
        name: facts["result"] for name, facts in jobs.items()
    }


@pytest.mark.parametrize(
    ("there", "ends", "retrains"),
    [
        ("false", "success", "success"),  # it trains on the runner
        ("true", "success", "success"),
        ("true", "failure", "skipped"),
        ("true", "cancelled", "skipped"),  # it took too long
    ],
)
def test_what_databricks_did_not_train_is_not_judged(root: Path, there: str, ends: str, retrains: str) -> None:
    outputs = {"log": {"log": "true", "databricks": there}, "retrain": {"worth": "true"}}
    jobs = run(
        root, "retrain.yml", World("schedule", ref="refs/heads/main", outputs=outputs, ends={"databricks": ends})
    )
    trained = ends if there == "true" else "skipped"
    assert {"log": "success", "databricks": trained, "retrain": retrains, "propose": retrains} == {
        name: facts["result"] for name, facts in jobs.items()
    }


@pytest.mark.parametrize("log", ["true", "false"])
def test_without_a_log_nothing_is_watched_and_no_issue_is_touched(root: Path, log: str) -> None:
    jobs = run(root, "monitor.yml", World("schedule", ref="refs/heads/main", outputs={"log": {"log": log}}))
    rest = "success" if log == "true" else "skipped"
    assert {"log": "success", "monitor": rest, "issue": rest} == {name: of["result"] for name, of in jobs.items()}


@pytest.mark.parametrize("ends", [{}, {"newcomer": "failure"}, {"scan": "failure"}, {"plan": "failure"}])
def test_the_daily_run_tells_what_needs_a_person_whatever_has_failed(root: Path, ends: dict[str, str]) -> None:
    """Also where the plan failed, behind which most jobs are skipped."""
    told = {"not_judged": "", "login": "false"}
    world = World("schedule", ref="refs/heads/main", outputs={"plan": told}, ends=ends)
    jobs = run(root, "daily.yml", world)
    assert jobs["watch"]["result"] == "success"
    assert {jobs[name]["result"] for name in ends} <= {"failure"}
    assert ("plan" in ends) == (jobs["newcomer"]["result"] == "skipped")
    world = World("workflow_dispatch", ref="refs/heads/topic", outputs={"plan": told}, ends=ends)
    assert run(root, "daily.yml", world)["watch"]["result"] == "skipped", "an issue is about main"


def test_drift_is_looked_for_once_a_week(root: Path) -> None:
    """Its declared false alarms are those of a weekly look, and each day has one run."""
    flow = read(root / ".github/workflows/monitor.yml")
    crons = [one["cron"] for one in (flow.get("on") or flow[True])["schedule"]]
    days = [cron.split()[4] for cron in crons]
    assert ["0,2-6", "1"] == days
    told = next(step["env"]["DRIFT"] for step in flow["jobs"]["monitor"]["steps"] if step.get("run") == "make monitor")
    looks = [evaluate(told, {"github": {"event": {"schedule": cron}}}) for cron in [*crons, ""]]
    assert ["", "1", ""] == looks


@pytest.mark.parametrize(
    ("event", "worth", "asked", "proposes"),
    [
        ("schedule", "true", None, True),
        ("schedule", "false", None, False),
        ("workflow_dispatch", "true", True, True),
        ("workflow_dispatch", "true", False, False),
    ],
)
def test_when_a_retraining_proposes(root: Path, event: str, worth: str, asked: bool | None, proposes: bool) -> None:
    inputs = {} if asked is None else {"propose": asked}
    world = World(
        event, ref="refs/heads/main", inputs=inputs, outputs={"log": {"log": "true"}, "retrain": {"worth": worth}}
    )
    assert proposes == (run(root, "retrain.yml", world)["propose"]["result"] == "success")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("'a' == 'A'", True),
        ("null == false", True),
        ("inputs.none != false", False),
        ("'' || 'b'", "b"),
        ("'a' && 'b' || 'c'", "b"),
        ("!('x' == 'y') && 1 == 1", True),
        ("contains(fromJSON('[\"push\"]'), 'push')", True),
        ("contains('staging production', 'production')", True),
        ("'it''s'", "it's"),
    ],
)
def test_an_expression_is_worth_what_github_says(source: str, value: Any) -> None:
    assert value == evaluate(f"${{{{ {source} }}}}", {"inputs": {}})


@pytest.mark.parametrize("source", ["a ~ b", "nothing.there", "hashFiles('x')", "'a' 'b'"])
def test_an_expression_that_is_not_known_is_an_error(source: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        evaluate(f"${{{{ {source} }}}}", {})
