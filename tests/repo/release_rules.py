"""Rules for the jobs that may write or deploy: what they may run, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Flow = dict[Any, Any]
PINNED = "build/pinned/files"  # its files are called by their digest, and checked before they are read
KEPT = {  # when a step may use the cache of the checkers
    "actions/cache/restore": "github.ref != 'refs/heads/main'",
    "actions/cache/save": "github.ref == 'refs/heads/main'",
}
VERIFY, DEPLOY = "make release-verify", "make deploy"
# Steps that read what is served, or verify a release: they must know whether releases are signed here.
READERS = {
    *("release-decide", "release-verify", "release-publish", "release-fetch", "rollback-hold", "rollback-move", "head"),
    *("deploy", "deploy-served", "champion", "served", "before", "log-pins", "scan-served"),
}


def grants(job: dict[str, Any], level: str) -> set[str]:
    """What a job may read or write."""
    permissions = job.get("permissions", {})
    return {what for what, how in permissions.items() if how == level} if isinstance(permissions, dict) else set()


def runs(job: dict[str, Any]) -> list[str]:
    """The commands and actions of a job, in order."""
    return [step.get("run", step.get("uses", "").partition("@")[0]) for step in job.get("steps", [])]


def needed(job: dict[str, Any]) -> list[str]:
    """The jobs that a job waits for."""
    return [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])


def called(flow: Flow) -> bool:
    """Whether only other workflows start this one."""
    return isinstance(flow[True], dict) and set(flow[True]) == {"workflow_call"}


def checkouts(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """Code of a pull request never runs with a token that may write."""
    for name, job in flow["jobs"].items():
        for step in job.get("steps", []):
            ref = str(step.get("with", {}).get("ref", ""))
            if "actions/checkout" in step.get("uses", "") and ("head" in ref or "merge" in ref or "inputs" in ref):
                yield f"{name}: it checks out {ref}, which may be the code of a pull request"
            if "actions/checkout" in step.get("uses", "") and {"repository", "token", "ssh-key"} & set(step["with"]):
                yield f"{name}: it checks out more than this repository with the token of the run"


def identities(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """A job with a cloud identity runs in an environment, or runs no code of this repository."""
    for name, job in flow["jobs"].items():
        if "id-token" in grants(job, "write") and "uses" not in job and "environment" not in job:
            yield from (
                f"{name}: `{one}` runs beside the right to sign" for one in runs(job) if one.startswith("make ")
            )


def orders(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """Verified, then deployed, then tested; and one rollout at a time."""
    for name, job in flow["jobs"].items():
        done = runs(job)
        for must in (DEPLOY, "make release-publish"):
            if must in done and called(flow) and "make release-hold" not in done[: done.index(must)]:
                yield f"{name}: it runs `{must}` although a rollback may have begun"
        for step in job.get("steps", []):
            if step.get("run") == "make deploy-served" and "steps.deploy.outcome != 'skipped'" not in str(
                step.get("if")
            ):
                yield f"{name}: it deploys the served release again although nothing replaced it"
        if DEPLOY not in done:
            continue
        if VERIFY not in done[: done.index(DEPLOY)]:
            yield f"{name}: it deploys what was not verified"
        if "make smoke" not in done[done.index(DEPLOY) :]:
            yield f"{name}: it does not test what it deployed"
        if not isinstance(job.get("environment"), str):
            yield f"{name}: it deploys outside an environment"
        elif job.get("concurrency", {}).get("group") != job["environment"]:
            yield f"{name}: two rollouts to {job['environment']} may run at once"
        if any("if" in step for step in job["steps"] if step.get("run") in (VERIFY, DEPLOY, "make smoke")):
            yield f"{name}: a step that must run has an `if`"


def scans(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """The image is built, tested and scanned, and a finding stops the release."""
    for name, job in flow["jobs"].items():
        done = runs(job)
        for step in job.get("steps", []):
            given = step.get("with", {})
            if "trivy-action" in step.get("uses", "") and "make scan" not in done:
                yield f"{name}: a finding of the scan stops nothing"
            if "trivy-action" in step.get("uses", "") and "CRITICAL" not in given.get("severity", ""):
                yield f"{name}: the scan ignores critical findings"
        for step in job.get("steps", []) if "make image-push" in done else []:
            tested = step.get("run") in ("make image-test", "make sbom", "make image-push")
            if tested and step.get("env", {}).get("IMAGE") != "${{ steps.image.outputs.id }}":
                yield f"{name}: `{step['run']}` takes the image by a tag, which a test can move"
        if "make image-push" in done:
            before = done[: done.index("make image-push")]
            for must in ("make bundle-digest", "make image-test", "make sbom"):
                if must not in before:
                    yield f"{name}: it pushes an image before `{must}`"
        granted = job.get("permissions")
        writes = {what for what, how in granted.items() if how == "write"} if isinstance(granted, dict) else set()
        informs = writes == {"issues"} and "environment" not in job  # it tells a person what the scan found
        if "scan" in needed(job) and not informs and "needs.scan.result == 'success'" not in str(job.get("if", "")):
            yield f"{name}: it runs whatever the scan found"


def signatures(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """What is attested of an image lies beside it in the registry, where the component admission looks."""
    for name, job in flow["jobs"].items():
        given = [step["with"] for step in job.get("steps", []) if step.get("uses", "").startswith("actions/attest@")]
        if any("subject-name" in one and one.get("push-to-registry") is not True for one in given):
            yield f"{name}: no cluster finds what it attests of the image"
        if any("push-to-registry" in one for one in given):
            done = runs(job)
            if "docker/login-action" not in done[: done.index("actions/attest")] or "packages" not in grants(
                job, "write"
            ):
                yield f"{name}: it may not write to the registry"


def seals(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """What reads the releases can read the signatures, and is told whether there are any."""
    for name, job in flow["jobs"].items():
        for step in job.get("steps", []):
            if step.get("run", "").removeprefix("make ") not in READERS:
                continue
            if lost := {"GH_TOKEN", "PRIVATE", "ATTESTATIONS"} - set(step.get("env", {})):
                yield f"{name}: `{step['run']}` is not told {', '.join(sorted(lost))}"
            if "attestations" not in grants(job, "read") | grants(job, "write"):
                yield f"{name}: `{step['run']}` may not read who signed"


def of_checkers(step: dict[str, Any]) -> str | None:
    """When a step with the cache of the checkers runs, if its key names what they are built from."""
    given = step.get("with", {})
    of_locks = "hashFiles('.ci/tools/*/go.*')" in given.get("key", "") and "restore-keys" not in given
    return str(step.get("if")) if of_locks and given.get("path") == "build/checkers" else None


def hands_on(job: dict[str, Any]) -> list[str]:
    """What a job gives to others: artifacts, outputs, and what it may write."""
    found = [one for one in runs(job) if one.startswith("actions/upload-artifact")]
    return [*found, *job.get("outputs", {}), *grants(job, "write")]


def caches(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """No cache, whose contents come from another run and not from the commit; but downloads that the pin checks.

    And the checkers, in a job that hands nothing on: main writes them, and everything else reads them.
    """
    for name, job in flow["jobs"].items():
        for step in job.get("steps", []):
            checked = step.get("with", {}).get("path") == PINNED and step.get("uses", "").startswith("actions/cache@")
            allowed = KEPT.get(step.get("uses", "").partition("@")[0])
            if checked or (allowed and allowed == of_checkers(step) and not hands_on(job)):
                continue
            if "cache" in step.get("uses", "") or "cache" in step.get("with", {}):
                yield f"{name}: a cache brings in files of another run"


def tokens(flow: Flow, text: str, targets: set[str]) -> Iterator[str]:
    """A token is given only to the steps that call GitHub, and an App's token names its permissions."""
    for name, job in flow["jobs"].items():
        if "github.token" in json.dumps(job.get("env", {})) or "github.token" in json.dumps(flow.get("env", {})):
            yield f"{name}: the token is in the environment of every step"
        for step in job.get("steps", []):
            uses = step.get("uses", "")
            if "create-github-app-token" in uses and not any(k.startswith("permission-") for k in step["with"]):
                yield f"{name}: the App's token has every permission of the App"


RULES = (checkouts, identities, orders, scans, signatures, seals, caches, tokens)
