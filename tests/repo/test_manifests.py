"""What a schema does not check in the manifests: every name refers to an object, and the pods are restricted."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import manifests

Object = dict[str, Any]
WORKLOADS = {"StatefulSet", "Deployment"}
LOG_DIR = "/log"  # as the image has it
MADE_BY_HAND = {"score-tokens"}  # the secret of k8s/README.md; no secret lies in git


def faults(objects: list[Object], settings: set[str]) -> list[str]:
    """Everything that is wrong between these objects, one line each."""
    return [
        fault
        for workload in objects
        if workload["kind"] in WORKLOADS
        for fault in _of_workload(workload, objects, settings)
    ] + [fault for one in objects if one["kind"] not in WORKLOADS for fault in _of_others(one, objects)]


def _named(objects: list[Object], kind: str, name: str) -> bool:
    return any((one["kind"], one["metadata"]["name"]) == (kind, name) for one in objects)


def _selected(selector: dict[str, str], objects: list[Object]) -> list[Object]:
    """The workloads whose pods have these labels."""
    return [
        one
        for one in objects
        if one["kind"] in WORKLOADS and selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    ]


def _ports(workload: Object) -> set[str | int]:
    ports = [port for one in workload["spec"]["template"]["spec"]["containers"] for port in one.get("ports", [])]
    return {port["name"] for port in ports} | {port["containerPort"] for port in ports}


def _of_workload(workload: Object, objects: list[Object], settings: set[str]) -> Iterator[str]:
    spec, name = workload["spec"], workload["metadata"]["name"]
    pod = spec["template"]["spec"]
    if not _selected(spec["selector"]["matchLabels"], [workload]):
        yield f"{name}: its selector does not find its own pods"
    if workload["kind"] == "StatefulSet" and not _named(objects, "Service", spec.get("serviceName", "")):
        yield f"{name}: there is no Service {spec.get('serviceName')} that governs it"
    if not _named(objects, "ServiceAccount", pod.get("serviceAccountName", "")):
        yield f"{name}: there is no ServiceAccount {pod.get('serviceAccountName')}"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{name}: a token of the cluster is mounted"
    for constraint in pod.get("topologySpreadConstraints", []):
        if not _selected(constraint["labelSelector"]["matchLabels"], [workload]):
            yield f"{name}: a spread constraint counts other pods"
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        if not any(one["kind"] == kind and workload in _selected(_selector(one), objects) for one in objects):
            yield f"{name}: no {kind} covers it"
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{name}: the pod is not restricted"
    if security.get("fsGroup") is None:
        yield f"{name}: without an fsGroup its volume may belong to root"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield f"{name}: it shares a namespace of the host"
    volumes = {one["name"]: one for one in pod.get("volumes", [])}
    claims = {one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", [])}
    places = [mount for one in pod["containers"] for mount in one.get("volumeMounts", [])]
    mounts = {mount["name"] for mount in places}
    yield from (f"{name}: there is no volume {mount}" for mount in sorted(mounts - set(volumes) - claims))
    yield from (f"{name}: nothing mounts the volume {volume}" for volume in sorted((set(volumes) | claims) - mounts))
    for volume in volumes.values():
        if "hostPath" in volume:
            yield f"{name}: the volume {volume['name']} is the host's"
        source = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
        kind = "Secret" if "secret" in volume else "ConfigMap"
        if source and source not in MADE_BY_HAND and not _named(objects, kind, source):
            yield f"{name}: there is no {kind} {source}"
    for container in pod["containers"]:
        yield from (f"{name}: {fault}" for fault in _of_container(container, settings))
    if claims.isdisjoint(mount["name"] for mount in places if mount["mountPath"] == LOG_DIR):
        yield f"{name}: its log does not outlive the pod"


def _of_container(container: Object, settings: set[str]) -> Iterator[str]:
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe not in container:
            yield f"it has no {probe}"
        elif container[probe]["httpGet"]["port"] not in ports:
            yield f"{probe} asks port {container[probe]['httpGet']['port']}, which is not open"
    if container.get("readinessProbe", {}).get("httpGet", {}).get("path") != "/readyz":
        yield "readinessProbe does not ask /readyz"
    if container.get("livenessProbe", {}).get("httpGet", {}).get("path") != "/livez":
        yield "livenessProbe does not ask /livez, so a full disk would restart it"
    names = [one["name"] for one in container.get("env", [])]
    yield from (f"the service has no setting {name}" for name in sorted(set(names) - settings))
    yield from (
        f"the setting {name} is set twice" for name in sorted({name for name in names if names.count(name) > 1})
    )
    resources = container.get("resources", {})
    for bound in ("requests", "limits"):
        for what in ("cpu", "memory", "ephemeral-storage"):
            if what not in resources.get(bound, {}):
                yield f"{bound} name no {what}"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or not security.get("readOnlyRootFilesystem"):
        yield "the container is not restricted"
    if security.get("privileged") or security.get("capabilities", {}) != {"drop": ["ALL"]}:
        yield "the container has capabilities"


def _selector(one: Object) -> dict[str, str]:
    if one["kind"] == "Service":
        return one["spec"]["selector"]
    return one["spec"].get("podSelector", one["spec"].get("selector", {})).get("matchLabels", {"no": "selector"})


def _of_others(one: Object, objects: list[Object]) -> Iterator[str]:
    name = f"{one['kind']} {one['metadata']['name']}"
    if one["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        found = _selected(_selector(one), objects)
        if not found:
            yield f"{name}: it selects nothing"
        rules = one["spec"].get("ports", []) if one["kind"] == "Service" else []
        asked = [port.get("targetPort", port["port"]) for port in rules]
        for rule in one["spec"].get("ingress", []) if one["kind"] == "NetworkPolicy" else []:
            asked += [port["port"] for port in rule.get("ports", [])]
        yield from (f"{name}: no pod opens port {port}" for port in asked for pod in found if port not in _ports(pod))
    if one["kind"] == "NetworkPolicy" and set(one["spec"].get("policyTypes", [])) != {"Ingress", "Egress"}:
        yield f"{name}: it leaves a direction open"
    if one["kind"] in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield f"{name}: the service needs no right in the cluster"
    if one["kind"] == "Secret":
        yield f"{name}: a secret lies in git"


@pytest.fixture(scope="session")
def settings(root: Path) -> set[str]:
    """The names that the service reads from its environment."""
    return set(re.findall(r'"([A-Z][A-Z_]+)"', (root / "score/settings.py").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def base(root: Path) -> list[Object]:
    """The base, with the labels that its kustomization puts on everything."""
    folder = root / "k8s/base"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    objects = [
        one
        for name in kustomization["resources"]
        for one in yaml.safe_load_all((folder / name).read_text(encoding="utf-8"))
    ]
    for one in objects:
        if one["kind"] in WORKLOADS:
            one["spec"]["template"]["metadata"] = {"labels": kustomization["labels"][0]["pairs"]}
    return objects


def test_every_file_of_the_base_is_in_its_kustomization(root: Path) -> None:
    folder = root / "k8s/base"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert {path.name for path in folder.glob("*.yaml")} == {"kustomization.yaml", *kustomization["resources"]}


def test_the_base_holds_together(base: list[Object], settings: set[str]) -> None:
    assert faults(base, settings) == []


def test_every_overlay_holds_together(settings: set[str]) -> None:
    if manifests.renderer() is None:
        pytest.skip("neither kustomize nor kubectl is on PATH")
    assert manifests.overlays()
    for folder in manifests.overlays():
        objects = list(yaml.safe_load_all(manifests.render(folder)))
        assert faults(objects, settings) == [], folder.name
        images = [pod["image"] for one in objects if one["kind"] in WORKLOADS for pod in _pod(one)["containers"]]
        assert all(re.search(r"(:[\w.-]+|@sha256:[0-9a-f]{64})$", image) for image in images), (
            f"{folder.name}: {images}"
        )
        namespaces = {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"}
        assert {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"} == namespaces


def _pod(workload: Object) -> Object:
    return workload["spec"]["template"]["spec"]


def _find(objects: list[Object], kind: str) -> Object:
    return next(one for one in objects if one["kind"] == kind)


PLANTS: dict[str, tuple[str, Callable[[list[Object]], object]]] = {
    "a Service of other pods": (
        "it selects nothing",
        lambda o: _find(o, "Service")["spec"]["selector"].update(app="x"),
    ),
    "a Service of a closed port": (
        "no pod opens port web",
        lambda o: _find(o, "Service")["spec"]["ports"][0].update(targetPort="web"),
    ),
    "a policy of a closed port": (
        "no pod opens port 8080",
        lambda o: _find(o, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0].update(port=8080),
    ),
    "a policy of every pod": ("it selects nothing", lambda o: _find(o, "NetworkPolicy")["spec"].pop("podSelector")),
    "a policy of one direction": ("a direction open", lambda o: _find(o, "NetworkPolicy")["spec"]["policyTypes"].pop()),
    "a budget of other pods": (
        "no PodDisruptionBudget covers it",
        lambda o: _find(o, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(app="x"),
    ),
    "no budget": ("no PodDisruptionBudget covers it", lambda o: o.remove(_find(o, "PodDisruptionBudget"))),
    "no policy": ("no NetworkPolicy covers it", lambda o: o.remove(_find(o, "NetworkPolicy"))),
    "a selector that finds nothing": (
        "its own pods",
        lambda o: _find(o, "StatefulSet")["spec"]["selector"]["matchLabels"].update(app="x"),
    ),
    "a governing Service that is not there": (
        "no Service x",
        lambda o: _find(o, "StatefulSet")["spec"].update(serviceName="x"),
    ),
    "an account that is not there": (
        "no ServiceAccount x",
        lambda o: _pod(_find(o, "StatefulSet")).update(serviceAccountName="x"),
    ),
    "a mounted token": (
        "token of the cluster",
        lambda o: _pod(_find(o, "StatefulSet")).pop("automountServiceAccountToken"),
    ),
    "a probe of a closed port": (
        "asks port web",
        lambda o: _container(o)["readinessProbe"]["httpGet"].update(port="web"),
    ),
    "a probe of the wrong route": (
        "would restart it",
        lambda o: _container(o)["livenessProbe"]["httpGet"].update(path="/readyz"),
    ),
    "no probe": ("no readinessProbe", lambda o: _container(o).pop("readinessProbe")),
    "a mount of no volume": (
        "no volume cache",
        lambda o: _container(o)["volumeMounts"].append({"name": "cache", "mountPath": "/x"}),
    ),
    "a volume nobody mounts": ("nothing mounts the volume tokens", lambda o: _container(o)["volumeMounts"].pop()),
    "a log that dies with its pod": (
        "does not outlive",
        lambda o: (_find(o, "StatefulSet")["spec"].pop("volumeClaimTemplates"), _log_is_empty_dir(o)),
    ),
    "a secret nobody makes": (
        "no Secret other",
        lambda o: _pod(_find(o, "StatefulSet"))["volumes"][0]["secret"].update(secretName="other"),
    ),
    "a folder of the host": (
        "is the host's",
        lambda o: _pod(_find(o, "StatefulSet"))["volumes"][0].update(hostPath={"path": "/"}),
    ),
    "a setting with a typo": (
        "no setting AUTH_TOKEN_FILE",
        lambda o: _container(o)["env"][0].update(name="AUTH_TOKEN_FILE"),
    ),
    "a setting set twice": ("set twice", lambda o: _container(o)["env"].append(_container(o)["env"][0])),
    "no limit": ("limits name no memory", lambda o: _container(o)["resources"]["limits"].pop("memory")),
    "a writable root": (
        "not restricted",
        lambda o: _container(o)["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    "a capability": (
        "has capabilities",
        lambda o: _container(o)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    ),
    "root": ("not restricted", lambda o: _pod(_find(o, "StatefulSet"))["securityContext"].update(runAsNonRoot=False)),
    "a volume of root": (
        "without an fsGroup",
        lambda o: _pod(_find(o, "StatefulSet"))["securityContext"].pop("fsGroup"),
    ),
    "the host's network": ("namespace of the host", lambda o: _pod(_find(o, "StatefulSet")).update(hostNetwork=True)),
    "a spread of other pods": (
        "counts other pods",
        lambda o: _pod(_find(o, "StatefulSet"))["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(
            a="b"
        ),
    ),
    "a right": ("no right in the cluster", lambda o: o.append({"kind": "RoleBinding", "metadata": {"name": "x"}})),
    "a secret in git": ("lies in git", lambda o: o.append({"kind": "Secret", "metadata": {"name": "x"}})),
}


def _container(objects: list[Object]) -> Object:
    return _pod(_find(objects, "StatefulSet"))["containers"][0]


def _log_is_empty_dir(objects: list[Object]) -> None:
    _pod(_find(objects, "StatefulSet"))["volumes"].append({"name": "log", "emptyDir": {}})


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_mistake_is_found(base: list[Object], settings: set[str], plant: str) -> None:
    says, make = PLANTS[plant]
    objects = copy.deepcopy(base)
    make(objects)
    assert any(says in fault for fault in faults(objects, settings)), faults(objects, settings)
