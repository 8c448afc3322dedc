"""Apply a release's manifests to the cluster of this job, wait for the rollout, and test the service there.

``apply`` and ``smoke`` use build/release, which release.py gathered or ``fetch`` downloaded (RELEASE). ``served``
applies the release that was served last, after a failed rollout. OVERLAY names the manifests, and IMAGE_CACHE what the
cluster pulls the image from, if not from ghcr.io; earlier steps log in kubectl.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import github, release, release_facts, sealed

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
MANAGER = "closedloop-deploy"  # of the fields that a release sets
KEEPER = "closedloop-replicas"  # of the number of replicas, until the autoscaler first changes it
APPLIED = Path("build/applied.yaml")
TIMEOUT = "10m"  # for one workload: pulling the image and attaching a volume may take minutes
SERVICE = "service/score"


def overlay_file() -> Path:
    """Return the file with the manifests of OVERLAY.

    Raises:
        PipelineError: the release has no such overlay.
    """
    overlay = github.setting("OVERLAY")
    path = release.FILES / f"manifests-{overlay}.yaml"
    if not path.exists():
        there = ", ".join(sorted(p.stem.removeprefix("manifests-") for p in release.FILES.glob("manifests-*.yaml")))
        raise github.PipelineError(f"OVERLAY is {overlay!r}, and the release has manifests for: {there or 'none'}")
    return path


def kubectl_list(*words: str) -> list[dict[str, Any]]:
    """Return the objects that a kubectl command prints."""
    found = json.loads(github.call("kubectl", *words, "--output", "json"))
    return found["items"] if found["kind"] == "List" else [found]


def objects(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a file of manifests; nothing is sent to be stored."""
    text = github.call(
        "kubectl", "create", "--dry-run=client", "--validate=false", "--filename", str(path), "--output", "json"
    )
    found: list[dict[str, Any]] = []
    at, decoder = 0, json.JSONDecoder()
    while at < len(text):
        one, at = decoder.raw_decode(text, at)
        found += one["items"] if one["kind"] == "List" else [one]
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def refuse_open(found: list[dict[str, Any]]) -> None:
    """Refuse manifests that open the service to everyone, or that may.

    Raises:
        PipelineError: a container has ``AUTH=open``, or takes AUTH from an object where it cannot be read here.
    """
    for one in found:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            asked = {each["name"]: each for each in container.get("env", [])}.get("AUTH", {"value": ""})
            if asked.get("value", "open") == "open" or "envFrom" in container:
                how = "AUTH=open" if asked.get("value") == "open" else "AUTH from another object, or envFrom"
                raise github.PipelineError(
                    f"{one['kind']} {one['metadata']['name']} has {how}, so anyone could score and feed back: "
                    "take it out of the overlay, and add the component auth"
                )


def refuse_of_cluster(found: list[dict[str, Any]]) -> None:
    """Refuse manifests with objects of the whole cluster, which the role that deploys may not touch.

    Raises:
        PipelineError: an object lies in no namespace.
    """
    for one in found:
        if "namespace" not in one["metadata"]:
            raise github.PipelineError(
                f"{one['kind']} {one['metadata']['name']} is of the whole cluster: take it out of the overlay, and let "
                "an administrator apply it with k8s/cluster"
            )


def pull_from_cache(found: list[dict[str, Any]]) -> None:
    """Let containers of the release's image pull it, by the same digest, from IMAGE_CACHE: a registry's copy of it."""
    cache = os.environ.get("IMAGE_CACHE", "")
    if not cache:
        return
    image = sealed.checked(release.FILES)["image"]
    for one in found:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("initContainers", []) + pod.get("containers", []):
            if container.get("image") == image:
                container["image"] = f"{cache}@{image.rpartition('@')[2]}"


def send(found: list[dict[str, Any]], manager: str) -> list[dict[str, Any]]:
    """Apply objects on the server's side in the name of a manager, and return them as they are then.

    A field that someone else changed by hand becomes what the release says. Each object is a document of its own: a
    List is validated by kubectl, not by the server, and kubectl takes no object of which a manager sets only a part.
    """
    APPLIED.parent.mkdir(exist_ok=True)
    APPLIED.write_text("".join(f"---\n{json.dumps(one)}\n" for one in found), encoding="utf-8")
    words = ("--server-side", "--force-conflicts", f"--field-manager={manager}", "--filename", str(APPLIED))
    return kubectl_list("apply", *words)


def scaled(found: list[dict[str, Any]]) -> dict[tuple[str, str, str], int]:
    """Return what an autoscaler rules, as (namespace, kind, name), and its floor.

    Also one that is not in these manifests: a rollback to a release without autoscaler leaves it in the cluster.
    """
    spaces = {one["metadata"]["namespace"] for one in found if one["kind"] in WORKLOADS}
    there = [one for one in found if one["kind"] == "HorizontalPodAutoscaler"]
    for space in sorted(spaces):
        there = kubectl_list("get", "horizontalpodautoscalers", "--namespace", space) + there
    return {
        (
            one["metadata"]["namespace"],
            one["spec"]["scaleTargetRef"]["kind"],
            one["spec"]["scaleTargetRef"]["name"],
        ): int(one["spec"].get("minReplicas", 1))
        for one in there
    }


def keep_replicas(one: dict[str, Any], floor: int) -> None:
    """Keep the number of replicas, at least the floor, in another manager's name, if the workload is there.

    Without that, the server would set it to 1 once a release no longer does: nobody else would own the field.
    """
    name, space = one["metadata"]["name"], one["metadata"]["namespace"]
    words = ("--namespace", space, "--ignore-not-found", "--show-managed-fields", "--output", "json")
    live = github.call("kubectl", "get", one["kind"], name, *words).strip()
    if not live:
        return
    there = json.loads(live)
    fields = there["metadata"].get("managedFields", [])
    owners = {each["manager"] for each in fields if "f:replicas" in each.get("fieldsV1", {}).get("f:spec", {})}
    replicas = there["spec"].get("replicas", 1)
    if replicas < floor or not owners - {MANAGER}:
        kept = {"apiVersion": one["apiVersion"], "kind": one["kind"], "metadata": {"name": name, "namespace": space}}
        send([kept | {"spec": {"replicas": max(replicas, floor)}}], KEEPER)


def apply(tag: str = "") -> None:
    """Verify the release, apply its manifests, and wait until every workload has rolled out.

    Raises:
        PipelineError: nothing shows that main made them, they open the service or change the cluster, kubectl refused
            them, or a workload did not roll out in time.
    """
    release.verify(tag)
    found = objects(overlay_file())
    refuse_open(found)
    refuse_of_cluster(found)
    pull_from_cache(found)
    floors = scaled(found)
    ruled = [
        (one, floors[key])
        for one in found
        if (key := (one["metadata"].get("namespace", "default"), one["kind"], one["metadata"]["name"])) in floors
    ]
    for one, floor in ruled:
        keep_replicas(one, floor)
        one["spec"].pop("replicas", None)
    sent = send(found, MANAGER)
    for one, floor in ruled:
        keep_replicas(one, floor)  # of one that was not there before
    for one in sent:
        if one["kind"] in WORKLOADS:
            name = f"{one['kind'].lower()}/{one['metadata']['name']}"
            space = one["metadata"].get("namespace", "default")
            github.call("kubectl", "rollout", "status", name, "--namespace", space, f"--timeout={TIMEOUT}")
            print(github.literal(f"rolled out: {name} in {space}"))


def fetch(tag: str = "") -> None:
    """Download a release (by default RELEASE) into build/release, and compare the digests of its files with its facts.

    Raises:
        PipelineError: there is no such release, its tag was moved to another commit, or a file differs.
    """
    one = release_facts.named(release_facts.published(), tag or github.setting("RELEASE"))
    shutil.rmtree(release.FILES, ignore_errors=True)
    release.FILES.mkdir(parents=True)
    github.gh("release", "download", one.tag, "--repo", github.repository(), "--dir", str(release.FILES))
    if not one.is_sealed:
        release.FACTS.write_text(json.dumps(one.facts), encoding="utf-8")
    else:
        sealed.refuse_moved_tag(one)
    sealed.checked(release.FILES)
    print(github.literal(f"fetched {one.tag}, commit {one.commit[:12]}"))


def served() -> None:
    """Apply the release that was served last, since the newer one failed.

    Raises:
        PipelineError: no release was ever served, or it cannot be verified any more.
    """
    last = release_facts.latest(release_facts.published(), "served")
    if last is None:
        raise github.PipelineError(
            "no release was served before, so none can be applied again; fix what the step above reports"
        )
    fetch(last.tag)
    apply(last.tag)
    github.tell(f"The new release failed; {last.tag}, which was served before, was applied again.")


@contextmanager
def address() -> Iterator[str]:
    """Yield the address of the service: SMOKE_URL, else a local port that kubectl forwards to it."""
    if url := os.environ.get("SMOKE_URL", ""):
        yield url.rstrip("/")
        return
    found = kubectl_list("get", "--filename", str(overlay_file()))
    names = {one["metadata"].get("namespace", "default") for one in found if one["kind"] == "Service"}
    if len(names) != 1:
        raise github.PipelineError(f"the manifests have services in {len(names)} namespaces; set SMOKE_URL")
    words = ["kubectl", "port-forward", "--namespace", names.pop(), SERVICE, ":80"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None  # noqa: S101
        line = forward.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 8000
        try:
            if "->" not in line:
                raise github.PipelineError(f"kubectl forwards no port to {SERVICE}: {line.strip() or 'no message'}")
            yield "http://" + line.split()[2]
        finally:
            forward.terminate()


def ask(url: str, body: bytes | None = None, token: str = "") -> tuple[int, bytes]:
    """Return the status and the body of an answer; status 0 and the error where there is none. Nothing is logged."""
    headers = {"Content-Type": "application/json", "Closed-Loop-Dry-Run": "1"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def example(url: str) -> bytes:
    """Return a request that suits the model at an address: the example of its OpenAPI document.

    Every release has that document; ``/example`` is younger, and an older release may be applied again.

    Raises:
        PipelineError: there is no document, or it has no example.
    """
    status, text = ask(f"{url}/openapi.json")
    try:
        operation = json.loads(text)["paths"]["/score"]["post"]
        return json.dumps(operation["requestBody"]["content"]["application/json"]["schema"]["examples"][0]).encode()
    except (ValueError, LookupError, TypeError):
        said = text[:200].decode(errors="replace")
        raise github.PipelineError(f"/openapi.json has no example of a request: {status}: {said}") from None


def objections(url: str, facts: dict[str, Any], token: str) -> list[str]:
    """Return what is wrong with the service at an address: not ready, another release, or no good answer."""
    found = []
    status, text = ask(f"{url}/readyz")
    if status != 200:
        found.append(f"/readyz answered {status}: {text[:200].decode(errors='replace')}")
    status, text = ask(f"{url}/version")
    version = json.loads(text) if status == 200 else {}
    found += [
        f"/version has {key} {version.get(key)}, but the release has {facts[key]}"
        for key in ("bundle_digest", "model_digest", "commit")
        if version.get(key) != facts[key]
    ]
    try:
        status, text = ask(f"{url}/score", example(url), token)
    except github.PipelineError as error:
        return [*found, str(error)]
    if status != 200 and (token or status not in (401, 403)):
        found.append(f"/score answered {status}: {text[:200].decode(errors='replace')}")
    elif status == 200 and json.loads(text).get("model") != facts["model_digest"]:
        found.append("/score answered with another model")
    return found


def smoke() -> None:
    """Test that the deployed service is the release, several times: the last replica may be ready only just now.

    Raises:
        PipelineError: it is not; the message has every objection.
    """
    facts, token = sealed.checked(release.FILES), os.environ.get("SMOKE_TOKEN", "")
    with address() as url:
        for pause in (1, 5, 10, 20, 0):
            found = objections(url, facts, token)
            if not found or not pause:
                break
            time.sleep(pause)
    if found:
        raise github.PipelineError("; ".join(found))
    kept = "" if token else " (without SMOKE_TOKEN, /score may also refuse)"
    github.tell(f"Smoke test passed: it serves commit {facts['commit'][:12]}{kept}.")


if __name__ == "__main__":
    sys.exit(github.main({"apply": apply, "fetch": fetch, "served": served, "smoke": smoke}))
