"""The manifests on a real cluster: what its API server accepts, and the overlay ``local`` with the image.

`make e2e` runs these on the cluster of kubectl's current context; tests/README.md says which it takes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from pipeline import manifests
from tests.repo import schemas

from . import gateway
from .cluster import IMAGE, MANAGER, STORED_S, Object, Space, kubectl, namespace, nodes, rendered, start_client, until


def custom_resources(gone: list[str]) -> list[Object]:
    """The definitions that the components need, the oldest of each kind: what it accepts, newer ones do too."""
    found: dict[str, Object] = {}
    for _, one in schemas.definitions(gone):
        group = one["spec"]["group"]
        for each in filter(None, (group, schemas.SAME.get(group))):
            made = copy.deepcopy(one)
            made["metadata"] = {
                "name": f"{one['spec']['names']['plural']}.{each}",
                # the API server takes no group of Kubernetes' own without it
                "annotations": {"api-approved.kubernetes.io": "unapproved, of the tests"},
            }
            made["spec"] |= {"group": each, "conversion": {"strategy": "None"}}
            made.pop("status", None)
            found.setdefault(made["metadata"]["name"], made)
    return list(found.values())


@pytest.fixture(scope="module")
def definitions(cluster: None) -> Iterator[set[str]]:
    """The groups of custom resources that the cluster has; those that it lacked are removed afterwards."""
    gone: list[str] = []
    there = set(kubectl("get", "customresourcedefinitions", "--output", "name").split())
    missing = [
        one
        for one in custom_resources(gone)
        if f"customresourcedefinition.apiextensions.k8s.io/{one['metadata']['name']}" not in there
    ]
    text = yaml.safe_dump_all(missing)
    names = [f"customresourcedefinition/{one['metadata']['name']}" for one in missing]
    try:
        if missing:
            kubectl("apply", "--server-side", f"--field-manager={MANAGER}", "--filename", "-", stdin=text)
            kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        for line in gone:
            print(f"skipped: {line}")
        yield set(kubectl("api-versions").split())
    finally:
        if missing:
            kubectl("delete", "--ignore-not-found", *names)


@pytest.fixture(scope="module")
def admitted(cluster: None) -> Iterator[Space]:
    """A namespace for dry runs."""
    with namespace("dry") as space:
        yield space


@pytest.fixture(scope="module")
def different() -> list[Object]:
    """The different objects of every overlay, each component on it and each pair of components."""
    if manifests.renderer() is None:
        pytest.skip("neither kustomize nor kubectl is on PATH")
    every = [one for text in manifests.checked().values() for one in yaml.safe_load_all(text)]
    for one in every:
        one["metadata"].pop("namespace", None)
    return list({repr(one): one for one in every}.values())


def test_the_api_server_accepts_every_object(admitted: Space, definitions: set[str], different: list[Object]) -> None:
    """By a strict dry run: an unknown field, a bad value and a selector that misses its own pods are refused."""
    own = [one for one in different if one["kind"] != "Namespace" and one["apiVersion"] in definitions]
    left = sorted({one["apiVersion"] for one in different} - definitions)
    said = admitted.apply(own, "--dry-run=server")
    assert said.count("(server dry run)") == len(own) > 40
    spaces = yaml.safe_dump_all([one for one in different if one["kind"] == "Namespace"])
    kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename", "-", stdin=spaces)
    print(f"\naccepted: {len(own)} objects")
    if left:
        pytest.skip(f"the cluster knows nothing of {', '.join(left)}, since their definitions cannot be had")


def test_a_mistake_is_refused_by_the_same_dry_run(admitted: Space, different: list[Object]) -> None:
    """Without which the test above could be green for want of a look."""
    one = copy.deepcopy(next(one for one in different if one["kind"] == "StatefulSet"))
    one["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(AssertionError, match="readinesProbe"):
        admitted.apply([one], "--dry-run=server")


def test_a_field_that_the_gateway_api_lacks_is_refused(
    admitted: Space, definitions: set[str], different: list[Object]
) -> None:
    own = [one for one in different if one["kind"] == "HTTPRoute" and one["apiVersion"] in definitions]
    if not own:
        pytest.skip("the definitions of the Gateway API cannot be had")
    route = copy.deepcopy(own[0])
    route["spec"]["rules"][0]["backendRef"] = []
    with pytest.raises(AssertionError, match="backendRef"):
        admitted.apply([route], "--dry-run=server")


def pods(different: list[Object]) -> list[Object]:
    """A pod of each template, as the controllers would make it."""
    found: list[Object] = []
    for one in different:
        spec = one.get("spec", {}) if isinstance(one.get("spec"), dict) else {}
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template and one["kind"] in ("StatefulSet", "Deployment", "Job", "CronJob"):
            made = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
            made["metadata"]["name"] = f"{one['metadata']['name']}-{len(found)}"
            claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]
            made["spec"].setdefault("volumes", []).extend({"name": claim, "emptyDir": {}} for claim in claims)
            made["spec"].pop("serviceAccountName", None)  # which a dry run has not made
            found.append(made)
    return found


def test_pod_security_restricted_admits_every_pod(admitted: Space, different: list[Object]) -> None:
    made = pods(different)
    said = admitted.apply(made, "--dry-run=server")
    assert said.count("(server dry run)") == len(made) > 5
    made[0]["spec"]["securityContext"].pop("runAsNonRoot")
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        admitted.apply(made[:1], "--dry-run=server")


# --- the overlay of one's own machine ---


@pytest.fixture(scope="module")
def local(cluster: None) -> Iterator[Space]:
    """The overlay ``local`` as it is, rolled out, and a client beside it."""
    with namespace("local") as space:
        space.apply(rendered("local"))
        start_client(space)
        space.rolled_out()
        yield space


def test_it_scores_through_its_service(local: Space, manifest: dict[str, Any]) -> None:
    status, request = local.ask("/example")
    assert status == 200, request
    status, answer = local.ask("/score", request)
    assert (status, answer["model"]) == (200, manifest["model_digest"])
    status, version = local.ask("/version")
    assert version["image"] == IMAGE
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/"):
        assert local.ask(path)[0] == 200, path


def test_it_takes_a_dry_run_and_feedback(local: Space) -> None:
    """What they leave in the log is looked at below, once all has been shipped."""
    _, request = local.ask("/example")
    document = local.ask("/openapi.json")[1]
    feedback = document["paths"]["/feedback"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    sent = {"X_Request_ID": "feedback-1"}
    assert local.ask("/score", request, X_Request_ID="dry-1", Closed_Loop_Dry_Run="1")[0] == 200
    assert local.ask("/score", request, X_Request_ID="logged-1")[0] == 200
    assert local.ask("/feedback", feedback["examples"][0], **sent)[0] == 200


@pytest.fixture(scope="module")
def through(local: Space, definitions: set[str]) -> Iterator[Callable[..., list[Any]]]:
    """Send requests to the service as clients outside do: method, path, body, headers and port of each."""
    if why := gateway.missing():
        pytest.skip(f"no proxy can be built: {why}")
    if "gateway.networking.k8s.io/v1" not in definitions:
        pytest.skip("the definitions of the Gateway API cannot be had")
    kinds = ("Gateway", "HTTPRoute", "NetworkPolicy")
    own = [one for one in rendered("local", ("gateway",)) if one["kind"] in kinds]
    (front,) = [one for one in own if one["kind"] == "Gateway"]
    host = front["spec"]["listeners"][0]["hostname"]
    public, private = gateway.certificate(host)
    tls = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "score-tls"}}
    local.apply([tls | {"stringData": {"tls.crt": public, "tls.key": private}}, *own])

    with gateway.running(local, front["spec"]["gatewayClassName"]) as proxy:

        def send(*requests: tuple[str, str, Any, dict[str, str], int]) -> list[Any]:
            asked = {"host": host, "proxy": f"proxy.{proxy.name}", "certificate": public, "requests": requests}
            found: list[Any] = json.loads(local.python("client", "through.py", json.dumps(asked)))
            return found

        ready: tuple[str, str, Any, dict[str, str], int] = ("GET", "/readyz", None, {}, 443)
        until(lambda: send(ready)[0][0] == 200, 60, lambda: f"{send(ready)}\n{proxy('logs', 'deployment/proxy')}")
        yield send


def test_clients_outside_score_through_the_gateway_over_tls(
    local: Space, through: Callable[..., list[Any]], manifest: dict[str, Any]
) -> None:
    _, request = local.ask("/example")
    sent = {"X-Request-ID": "through-the-gateway-1"}
    (status, _, text), plain = through(("POST", "/score", request, sent, 443), ("POST", "/score", request, {}, 80))
    assert (status, json.loads(text)["model"]) == (200, manifest["model_digest"]), text
    assert plain[0] == 301
    assert plain[1].startswith("https://")
    until(lambda: local.rows()["through-the-gateway-1"] == 1, STORED_S, "its row is not in the table")


def test_the_gateway_passes_what_clients_need_and_nothing_else(through: Callable[..., list[Any]]) -> None:
    gets = {"/": 200, "/docs": 200, "/openapi.json": 200, "/readyz": 200, "/version": 200}
    gets |= dict.fromkeys(("/metrics", "/state", "/livez", "/score", "/version/x"), 404)
    found = through(*(("GET", path, None, {}, 443) for path in gets))
    assert gets == {path: status for path, (status, *_) in zip(gets, found, strict=True)}


def deleted(space: Space) -> None:
    """Delete the pod, and wait for the next of its name."""
    space("delete", "pod", "score-0", "--wait=true")
    space.rolled_out()
    until(space.ready, 120, space.logs)


def killed(space: Space) -> None:
    """Delete the pod without any grace: its process is killed."""
    space("delete", "pod", "score-0", "--grace-period=0", "--force")
    until(space.ready, 120, space.logs)


def restarted(space: Space) -> None:
    """Roll it out again."""
    space("rollout", "restart", "statefulset/score")
    space.rolled_out()


def drained(space: Space) -> None:
    """Drain the node, and take it back."""
    node = space.replicas()["score-0"]["spec"]["nodeName"]
    drain(node)
    until(lambda: not space.ready(), 60, "it was not evicted")
    kubectl("uncordon", node)
    until(space.ready, 120, space.logs)


def drain(node: str) -> None:
    """Evict the service's pods from a node, which takes no more."""
    assert node in nodes()
    selector = "--pod-selector=app.kubernetes.io/component=score"
    kubectl("drain", node, selector, "--delete-emptydir-data", "--timeout=120s")


@pytest.mark.parametrize("fault", [deleted, restarted, drained])
def test_no_request_is_lost_while_a_pod_goes(local: Space, fault: Callable[[Space], None]) -> None:
    """With one replica clients find no service for a while; they try again, and nothing else fails."""
    with local.load(fault.__name__):
        fault(local)


def test_no_acknowledged_request_is_lost_by_a_kill(local: Space) -> None:
    """Requests that were being answered fail then. Of all these loads each acknowledged one is stored exactly once."""
    with local.load("killed", may_fail=True):
        killed(local)
    local.accounted(*local.reports)
    rows = local.rows()
    assert (rows["logged-1"], rows["dry-1"], local.rows("feedback")["feedback-1"]) == (1, 0, 1)


def test_what_the_service_counts_adds_up(local: Space) -> None:
    """Offered is stored, sampled out, rejected or a dry run, also after all that."""
    lines = local.ask("/metrics")[1].splitlines()
    counts = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("closedloop_log_")}
    parts = ("records", "sampled_out", "dry_run", "rejected", "lost")
    assert counts["closedloop_log_offered_total"] == sum(counts[f"closedloop_log_{part}_total"] for part in parts)
    assert counts["closedloop_log_quarantined_records_total"] == 0
