"""What a schema does not check in the objects of one cluster: names that lead nowhere, pods with too many rights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Object = dict[str, Any]
SCORE = "score"  # the container of the service
LOG_DIR = "/log"  # as the image has it
MADE_BY_HAND = {"score-tokens", "score-tls"}  # the secrets of k8s/README.md; no secret lies in git
OF_THE_CLUSTER = {"Namespace", "ClusterImagePolicy", "ClusterRole", "ClusterRoleBinding"}
RIGHTS = {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
# The log is a file with a lock on a disk that outlives its node: neither a disk of the node nor a share of files.
NO_DISK = re.compile(r"local|nvme|ephemeral|hostpath|azurefile|nfs|efs|filestore", re.IGNORECASE)
NOBODY = {"matchLabels": {"no": "selector"}}  # what a selector that is missing finds
SIZES = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "m": 1e-3,
    "": 1.0,
}


@dataclass(frozen=True)
class Facts:
    """What the service has: its settings, and the prefixes of those of object stores, its routes and metrics."""

    settings: set[str]
    stores: tuple[str, ...]
    routes: set[str]
    metrics: dict[str, set[str]]  # each with its labels
    runbooks: set[str]  # the headings of the page that alerts lead to
    may_be_open: bool = False  # the overlay of one's own machine: open, and one replica


Rule = Callable[[Object, list[Object], Facts], Iterator[str]]


def faults(objects: list[Object], facts: Facts) -> list[str]:
    """Everything that is wrong between these objects, one line each."""
    return [*_of_all(objects), *applied(RULES, objects, facts)]


def applied(rules: dict[Rule, str], objects: list[Object], facts: Facts) -> Iterator[str]:
    """What rules say of the objects, each of those whose kind it is for."""
    for one in objects:
        for rule, kinds in rules.items():
            if one["kind"] in kinds.split():
                yield from (f"{one['kind']} {one['metadata']['name']}: {fault}" for fault in rule(one, objects, facts))


def pod(one: Object) -> Object | None:
    """The template of the pods that an object makes."""
    spec = one.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return template if one["kind"] in ("StatefulSet", "Deployment", "CronJob", "Job") else None


def containers(one: Object) -> list[Object]:
    """The containers of an object's pods."""
    spec = (pod(one) or {"spec": {}})["spec"]
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def service_of(one: Object) -> Object:
    """The container of the service, by its name; empty where none has that, which a rule of manifest_strict reports."""
    return next((box for box in containers(one) if box["name"] == SCORE), {})


def whole(environment: dict[str, str], name: str, default: int) -> int:
    """A setting as a number; the default for what is none, which the service refuses as manifest_strict reports."""
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else default


def size(text: str | int) -> float:
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * SIZES[unit]


def _of_all(objects: list[Object]) -> Iterator[str]:
    names = Counter((one["kind"], one["metadata"]["name"]) for one in objects)
    yield from (f"{kind} {name}: it is there twice" for (kind, name), count in names.items() if count > 1)
    spaces = {one["metadata"].get("namespace") for one in objects if one["kind"] not in OF_THE_CLUSTER}
    if len(spaces) > 1:
        yield f"they lie in {len(spaces)} namespaces: {sorted(map(str, spaces))}"
    for one in objects:
        if one["kind"] in RIGHTS:
            yield f"{one['kind']} {one['metadata']['name']}: the service needs no right in the cluster"
        if one["kind"] == "Secret":
            yield f"Secret {one['metadata']['name']}: a secret lies in git"


def find_named(objects: list[Object], kind: str, name: str) -> Object | None:
    """The object of that kind and name, or None."""
    return next((one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)), None)


def _fits(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a selector finds pods with these labels; an empty one finds all."""
    fits = selector.get("matchLabels", {}).items() <= labels.items()
    for one in selector.get("matchExpressions", []):
        fits &= (labels.get(one["key"]) in one["values"]) == (one["operator"] == "In")
    return fits


def selected_by(selector: Object, objects: list[Object]) -> list[Object]:
    """The objects whose pods a selector finds."""
    return [one for one in objects if (made := pod(one)) and _fits(selector, made["metadata"].get("labels", {}))]


def selector_of(one: Object) -> Object:
    """The selector of an object, whatever its kind calls it."""
    spec = one["spec"]
    if one["kind"] == "Service":
        return {"matchLabels": spec["selector"]}
    return spec.get("podSelector", spec.get("selector", NOBODY))


def open_ports(one: Object) -> dict[str | int, int]:
    """The open ports of an object's pods, by name and by number."""
    ports = [port for container in containers(one) for port in container.get("ports", [])]
    return {key: port["containerPort"] for port in ports for key in (port.get("name", ""), port["containerPort"])}


def settings_of(container: Object) -> dict[str, str]:
    """The environment of a container."""
    return {one["name"]: one.get("value", "") for one in container.get("env", [])}


def covering(kind: str, one: Object, objects: list[Object]) -> list[Object]:
    """The objects of a kind whose selector finds the pods of another."""
    return [other for other in objects if other["kind"] == kind and one in selected_by(selector_of(other), objects)]


# --- pods ---


def _of_pods(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    template = pod(one)
    assert template is not None
    spec = template["spec"]
    if "selector" in one["spec"] and not selected_by(one["spec"]["selector"], [one]):
        yield "its selector does not find its own pods"
    if find_named(objects, "ServiceAccount", spec.get("serviceAccountName", "")) is None:
        yield f"there is no ServiceAccount {spec.get('serviceAccountName')}"
    if spec.get("automountServiceAccountToken") is not False:
        yield "a token of the cluster is mounted"
    if not covering("NetworkPolicy", one, objects):
        yield "no NetworkPolicy covers it"
    yield from _unrestricted(spec)
    yield from _volumes(one, objects)
    names = [container["name"] for container in containers(one)]
    yield from (f"two containers are named {name}" for name in _twice(names))
    for container in containers(one):
        yield from _of_container(container, objects, facts)
    for service in (other for other in objects if other["kind"] == "Service"):
        if one in selected_by(selector_of(service), objects) and one["kind"] in ("CronJob", "Job"):
            yield f"Service {service['metadata']['name']} sends requests to it"


def _unrestricted(spec: Object) -> Iterator[str]:
    security = spec.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "the pod is not restricted"
    if not security.get("runAsUser", 0) > 0:
        yield "the pod does not say which user it runs as, or is root"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "it shares a namespace of the host"
    if spec.get("enableServiceLinks") is not False:
        yield "variables of every Service come into its environment"
    if spec.get("shareProcessNamespace"):
        yield "its containers see each other's processes"


def _volumes(one: Object, objects: list[Object]) -> Iterator[str]:
    template = pod(one)
    assert template is not None
    spec = template["spec"]
    volumes = spec.get("volumes", [])
    claims = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
    named = {volume["name"] for volume in volumes} | claims
    yield from (f"two volumes are named {name}" for name in _twice([volume["name"] for volume in volumes]))
    mounts = {mount["name"] for container in containers(one) for mount in container.get("volumeMounts", [])}
    yield from (f"there is no volume {mount}" for mount in sorted(mounts - named))
    yield from (f"nothing mounts the volume {volume}" for volume in sorted(named - mounts))
    for volume in volumes:
        if "hostPath" in volume:
            yield f"the volume {volume['name']} is the host's"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"the volume {volume['name']} has no limit"
        for kind, key in (("secret", "secretName"), ("configMap", "name")):
            source = volume.get(kind, {}).get(key)
            if (
                source
                and source not in MADE_BY_HAND
                and find_named(objects, kind[0].upper() + kind[1:], source) is None
            ):
                yield f"there is no {kind[0].upper() + kind[1:]} {source}"


def _of_container(container: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    resources = container.get("resources", {})
    for what in ("cpu", "memory", "ephemeral-storage"):
        for bound in ("requests", "limits"):
            if what not in resources.get(bound, {}):
                yield f"{bound} name no {what}"
        asked, most = resources.get("requests", {}).get(what, 0), resources.get("limits", {}).get(what, 1 << 60)
        if size(asked) > size(most):
            yield f"it asks for more {what} than its limit"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or not security.get("readOnlyRootFilesystem"):
        yield "the container is not restricted"
    if security.get("privileged") or security.get("capabilities", {}) != {"drop": ["ALL"]}:
        yield "the container has capabilities"
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield "the container is root"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "it opens a port of the host"
    yield from (f"two mounts are at {at}" for at in _twice([m["mountPath"] for m in container.get("volumeMounts", [])]))
    if not re.search(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"]):
        yield f"the image {container['image']} has no digest and no tag of its own"
    yield from _of_environment(container, objects, facts)


def _of_environment(container: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    names = [one["name"] for one in container.get("env", [])]
    yield from (f"the setting {name} is set twice" for name in _twice(names))
    for one in container.get("env", []):
        for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            if asked := one.get("valueFrom", {}).get(key):
                source = find_named(objects, kind, asked["name"])
                if asked["name"] not in MADE_BY_HAND and asked["key"] not in (source or {}).get("data", {}):
                    yield f"{one['name']}: there is no {kind} {asked['name']} with the key {asked['key']}"
    if container["name"] != SCORE:
        return
    known = facts.settings
    unknown = [name for name in names if name not in known and not name.startswith(facts.stores)]
    yield from (f"the service has no setting {name}" for name in sorted(set(unknown)))
    if settings_of(container).get("IMAGE", container["image"]) != container["image"]:
        yield "the setting IMAGE is another image than that of the container"


def _twice(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


# --- the service's workload ---


def _of_stateful_set(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec = one["spec"]
    if spec.get("podManagementPolicy") != "Parallel":
        yield "a broken revision cannot be replaced without a hand: podManagementPolicy is not Parallel"
    if spec.get("updateStrategy") != {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}:
        yield "its updateStrategy does not roll every replica"
    if set(spec.get("persistentVolumeClaimRetentionPolicy", {"no": ""}).values()) != {"Retain"}:
        yield "its logs are deleted with it"
    governing = find_named(objects, "Service", spec.get("serviceName", ""))
    if governing is None:
        yield f"there is no Service {spec.get('serviceName')} that governs it"
    elif governing["spec"].get("clusterIP") != "None" or one not in selected_by(selector_of(governing), objects):
        yield f"the Service {spec['serviceName']} gives its replicas no names"
    spreads = pod(one)["spec"].get("topologySpreadConstraints", [])  # type: ignore[index]
    if {spread["topologyKey"] for spread in spreads} < {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
        yield "it is not spread over hosts and zones"
    if any(not selected_by(spread.get("labelSelector", NOBODY), [one]) for spread in spreads):
        yield "a spread constraint counts other pods"
    yield from _replicas(one, objects, facts)
    budgets = covering("PodDisruptionBudget", one, objects)
    if len(budgets) != 1:
        yield "no PodDisruptionBudget covers it" if not budgets else "two budgets cover it, so it cannot be evicted"
    yield from _of_log(one)
    for container in containers(one):
        if container["name"] == SCORE:
            yield from _of_service(one, container, facts)


def _replicas(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    name = (one["kind"], one["metadata"]["name"])
    scalers = [other for other in objects if other["kind"] == "HorizontalPodAutoscaler" and _target(other) == name]
    if scalers and "replicas" in one["spec"]:
        yield "it sets replicas, which the autoscaler rules"
    if len(scalers) > 1:
        yield "two autoscalers rule it"
    if not scalers and one["spec"].get("replicas", 1) < 2 - facts.may_be_open:
        yield "one replica alone cannot be replaced without a gap"


def _of_log(one: Object) -> Iterator[str]:
    claims = {claim["metadata"]["name"]: claim["spec"] for claim in one["spec"].get("volumeClaimTemplates", [])}
    places = {m["mountPath"]: m for box in containers(one) for m in box.get("volumeMounts", [])}
    claim = claims.get(places.get(LOG_DIR, {}).get("name", ""))
    if claim is None:
        yield "its log does not outlive the pod"
        return
    if places[LOG_DIR].get("readOnly"):
        yield "its log cannot be written"
    if claim["accessModes"] != ["ReadWriteOnce"]:
        yield "two nodes may write one log"
    if NO_DISK.search(claim.get("storageClassName", "")):
        yield f"the storage class {claim['storageClassName']} is no disk that outlives its node"
    environment = settings_of(service_of(one))
    remote = "://" in environment.get("LOG_SINK", "")
    most = whole(environment, "LOG_MAX_BYTES", (4 if remote else 8) << 30)
    if size(claim["resources"]["requests"]["storage"]) < 1.1 * most:
        yield "its volume is smaller than what LOG_MAX_BYTES lets it hold"
    security = pod(one)["spec"].get("securityContext", {})  # type: ignore[index]
    if security.get("fsGroup") is None:
        yield "without an fsGroup its volume may belong to root"


def _of_service(one: Object, container: Object, facts: Facts) -> Iterator[str]:
    ports = open_ports(one)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe not in container:
            yield f"it has no {probe}"
        elif container[probe]["httpGet"]["port"] not in ports:
            yield f"{probe} asks port {container[probe]['httpGet']['port']}, which is not open"
        elif container[probe]["httpGet"]["path"] not in facts.routes:
            yield f"{probe} asks {container[probe]['httpGet']['path']}, which the service does not have"
    asks = {
        name: container.get(f"{name}Probe", {}).get("httpGet", {}).get("path") for name in ("readiness", "liveness")
    }
    if asks["readiness"] != "/readyz":
        yield "readinessProbe does not ask /readyz"
    if asks["liveness"] != "/livez":
        yield "livenessProbe does not ask /livez, so a full disk would restart it"
    started = container.get("startupProbe", {})
    if started.get("periodSeconds", 10) * started.get("failureThreshold", 3) < 30:
        yield "startupProbe gives it less than 30 seconds to recover its log"
    environment = settings_of(container)
    if environment.get("PORT", "8000") not in map(str, ports.values()):
        yield "the service listens on a port that is not open"
    waits = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = pod(one)["spec"].get("terminationGracePeriodSeconds", 30)  # type: ignore[index]
    if not waits:
        yield "it stops while requests still arrive: preStop does not sleep"
    asks_ready = container.get("readinessProbe", {})
    noticed = asks_ready.get("periodSeconds", 10) * asks_ready.get("failureThreshold", 3) + 2
    if whole(environment, "DRAIN_SECONDS", 1) < noticed:
        yield f"its drain ends before the cluster knows that it is not ready: DRAIN_SECONDS is below {noticed}"
    if waits + whole(environment, "STOP_SECONDS", 9) >= grace:
        yield "it is killed before it has shipped its log: terminationGracePeriodSeconds is too short"
    if environment.get("AUTH") == "open" and not facts.may_be_open:
        yield "it serves without authentication"
    named = environment.get("AUTH_TOKENS_FILE", "")
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    if environment.get("AUTH") != "open" and not any(named.startswith(f"{mount}/") for mount in mounts):
        yield "no tokens are mounted where AUTH_TOKENS_FILE says"


# --- what stands around it ---


def _target(scaler: Object) -> tuple[str, str]:
    target = scaler["spec"]["scaleTargetRef"]
    return target["kind"], target["name"]


def _of_scaler(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec = one["spec"]
    target = find_named(objects, *_target(one))
    if target is None or target["apiVersion"] != spec["scaleTargetRef"]["apiVersion"]:
        yield f"it scales {' '.join(_target(one))}, which is not there"
        return
    if spec.get("minReplicas", 1) < 2:
        yield "its floor is below two replicas"
    if spec.get("minReplicas", 1) > spec["maxReplicas"]:
        yield "minReplicas is above maxReplicas"
    for metric in spec.get("metrics", []):
        aim = metric.get("resource", {}).get("target", {})
        if aim.get("type") != "AverageValue":
            yield "it scales by a share of the request"
        elif size(aim["averageValue"]) >= size(containers(target)[0]["resources"]["limits"]["cpu"]):
            yield "no replica can use what it scales at"


def _of_budget(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    if not selected_by(selector_of(one), objects):
        yield "it selects nothing"
    if one["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "a replica that is not ready stops a drain"
    if not str(one["spec"].get("maxUnavailable", "0")).rstrip("%") > "0":
        yield "it lets nothing be evicted, so no node can be drained"


def _of_policy(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec, found = one["spec"], selected_by(selector_of(one), objects)
    if not found or not spec["podSelector"]:
        yield "it selects nothing" if not found else "it selects every pod of the namespace"
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, []):
            if not rule.get(side) or not rule.get("ports"):
                yield f"{direction}: it is open to all"
            for port in rule.get("ports", []):
                if not isinstance(port.get("port"), int):
                    yield f"{direction}: port {port.get('port')} is not a number, which some network plugins need"
                elif direction == "ingress" and not any(port["port"] in open_ports(each) for each in found):
                    yield f"no pod opens port {port['port']}"
        if spec.get(direction) and direction.capitalize() not in spec["policyTypes"]:
            yield f"policyTypes leave out {direction}, for which it has rules"


def _denied(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    """That some policy of the pods is about each direction, so that what no rule allows is denied."""
    listed = {name for policy in covering("NetworkPolicy", one, objects) for name in policy["spec"]["policyTypes"]}
    if covering("NetworkPolicy", one, objects) and listed != {"Ingress", "Egress"}:
        yield "its policies leave a direction open"


def _of_network(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec, found = one["spec"], selected_by(selector_of(one), objects)
    if not found:
        yield "it selects nothing"
    for port in spec.get("ports", []):
        asked = port.get("targetPort", port["port"])
        yield from (f"no pod opens port {asked}" for each in found if asked not in open_ports(each))
    if spec.get("type", "ClusterIP") != "ClusterIP":
        yield "it opens the service past the gateway"
    twins = [o for o in objects if o["kind"] == "Service" and o["spec"]["selector"] == spec["selector"]]
    if len(twins) > 1:
        yield "another Service has the same selector, which AKS Automatic refuses"


def _of_job(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec = one["spec"]
    job = spec["jobTemplate"]["spec"]
    if not spec.get("suspend"):
        yield "it runs by itself"
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "two of its jobs may run at once"
    if not (job.get("activeDeadlineSeconds") and "backoffLimit" in job and job.get("ttlSecondsAfterFinished")):
        yield "its jobs have no bound"


def _of_store(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    """That a log which is shipped to a store gets there: names, HTTPS, and an identity."""
    environment = settings_of(service_of(one))
    kind = environment.get("LOG_SINK", "").partition("://")[0]
    if kind not in KEYS:
        return
    rules = [rule for policy in covering("NetworkPolicy", one, objects) for rule in policy["spec"].get("egress", [])]
    reached = {(port["port"], port.get("protocol", "TCP")) for rule in rules for port in rule.get("ports", [])}
    if own := environment.get("AZURE_STORAGE_ENDPOINT", ""):
        yield from _of_own_store(own, reached, objects)
        return
    yield from _unreached({*NAMES, (443, "TCP")}, reached)
    account = find_named(objects, "ServiceAccount", pod(one)["spec"].get("serviceAccountName", "")) or {}  # type: ignore[index]
    annotation, label, setting = KEYS[kind]
    if annotation not in account.get("metadata", {}).get("annotations", {}):
        yield f"its log cannot be written: the ServiceAccount has no {annotation}"
    if label and pod(one)["metadata"]["labels"].get(label) != "true":  # type: ignore[index]
        yield f"its log cannot be written: the pods have no label {label}"
    if setting and setting not in environment:
        yield f"its log cannot be written: {setting} is not set"


def _unreached(needed: set[tuple[int, str]], reached: set[tuple[int, str]]) -> Iterator[str]:
    for port, protocol in sorted(needed - reached):
        yield f"its log cannot leave: no policy allows port {port} over {protocol}"


def _of_own_store(endpoint: str, reached: set[tuple[int, str]], objects: list[Object]) -> Iterator[str]:
    """That a store in the cluster is there, at the port that is asked and allowed."""
    host, _, port = urlsplit(endpoint).netloc.partition(":")
    service = find_named(objects, "Service", host)
    if service is None:
        yield f"its log cannot leave: there is no Service {host}"
        return
    if int(port) not in {each["port"] for each in service["spec"]["ports"]}:
        yield f"its log cannot leave: the Service {host} has no port {port}"
    opened = {each for one in selected_by(selector_of(service), objects) for each in open_ports(one).values()}
    yield from _unreached({*NAMES, *((each, "TCP") for each in opened)}, reached)


NAMES = {(53, "UDP"), (53, "TCP")}  # a long answer comes over TCP
# What each store asks for: an annotation of the account, a label of the pods, a setting.
KEYS = {
    "az": ("azure.workload.identity/client-id", "azure.workload.identity/use", "AZURE_STORAGE_ACCOUNT_NAME"),
    "s3": ("eks.amazonaws.com/role-arn", "", "AWS_REGION"),
    "gs": ("iam.gke.io/gcp-service-account", "", ""),
}
RULES: dict[Rule, str] = {
    _of_pods: "StatefulSet Deployment CronJob Job",
    _of_stateful_set: "StatefulSet",
    _of_store: "StatefulSet",
    _denied: "StatefulSet Deployment CronJob",
    _of_scaler: "HorizontalPodAutoscaler",
    _of_budget: "PodDisruptionBudget",
    _of_policy: "NetworkPolicy",
    _of_network: "Service",
    _of_job: "CronJob",
}
