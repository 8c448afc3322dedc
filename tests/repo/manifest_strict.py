"""Rules for what schemas and scanners let through: a field that nobody thought of, a value that the service refuses.

The workload, its container, its Services and its volume may have the fields that are listed here and no others, since
one field more (another host in a probe, a mount over the program) undoes what the other rules promise.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from closedloop.log.folders import unfit
from score.endpoints import ROUTES
from score.settings import Settings, SettingsError

from .manifest_later import INTERVAL_S, PRIVATE
from .manifest_rules import (
    LOG_DIR,
    SCORE,
    Facts,
    Object,
    Rule,
    open_ports,
    pod,
    selected_by,
    selector_of,
    settings_of,
    size,
)

# Where the image keeps its bundle and programs, and what a mount would hide.
OF_THE_IMAGE = ("/model", "/opt", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/dev")
TOKENS = {"score-tokens": "tokens.json"}  # the Secret that is made by hand, and its key
LEAST = {"memory": "256Mi", "ephemeral-storage": "8Mi"}  # below, the kernel or the kubelet ends it in operation
LONGEST_S = 60  # that a rollout may wait for one replica that is ready
NEEDED = {"/score", "/feedback"}
PATH_ONLY = "path port"
FIELDS = {
    "the StatefulSet": "minReadySeconds persistentVolumeClaimRetentionPolicy podManagementPolicy replicas selector "
    "revisionHistoryLimit serviceName template updateStrategy volumeClaimTemplates",
    "the pod": "affinity automountServiceAccountToken containers enableServiceLinks imagePullSecrets nodeSelector "
    "priorityClassName securityContext serviceAccountName terminationGracePeriodSeconds tolerations "
    # for the last four there are other rules
    "topologySpreadConstraints volumes hostNetwork hostPID hostIPC shareProcessNamespace",
    "the pod's securityContext": "fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser seccompProfile "
    "supplementalGroups",
    "the container": "env image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resources "
    # for the last three there are other rules
    "securityContext startupProbe volumeMounts envFrom command args",
    "the container's securityContext": "allowPrivilegeEscalation capabilities privileged readOnlyRootFilesystem "
    "runAsGroup runAsNonRoot runAsUser",
    "lifecycle": "preStop",
    "a mount": "mountPath name readOnly",
    "a probe": "failureThreshold httpGet periodSeconds timeoutSeconds",
    "httpGet of a probe": PATH_ONLY,
    "the claim": "accessModes resources storageClassName",
    "the secret of a volume": "defaultMode optional secretName",
    "a Service": "clusterIP externalIPs ipFamilies ipFamilyPolicy ports publishNotReadyAddresses selector "
    "trafficDistribution type",
}


def _unknown(what: str, given: Object) -> Iterator[str]:
    for name in sorted(set(given) - set(FIELDS[what].split())):
        yield f"{what} sets {name}, which no rule here knows: take it out, or add it and its rule to manifest_strict.py"


def _of_workload(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    template = pod(one)
    assert template is not None
    spec = template["spec"]
    if SCORE not in [box["name"] for box in spec["containers"]]:
        yield f"no container is named {SCORE}, by which the rules and the components find the service"
        return
    yield from _unknown("the StatefulSet", one["spec"])
    yield from _unknown("the pod", spec)
    yield from _unknown("the pod's securityContext", spec.get("securityContext", {}))
    yield from _placed(spec)
    if one["spec"].get("minReadySeconds", 0) > LONGEST_S:
        yield f"each replica of a rollout waits more than {LONGEST_S} seconds: minReadySeconds"
    evictable = template["metadata"].get("annotations", {}).get("cluster-autoscaler.kubernetes.io/safe-to-evict", "")
    if evictable == "false":
        yield "no node under it is ever taken away: safe-to-evict is false"
    if spec.get("securityContext", {}).get("fsGroup") == 0:
        yield "it is in the group of root"
    for claim in one["spec"].get("volumeClaimTemplates", []):
        yield from _unknown("the claim", claim["spec"])
        if claim["spec"].get("storageClassName") == "":
            yield "nobody makes its volume: storageClassName is empty, so leave it out for the cluster's own"
    for volume in spec.get("volumes", []):
        yield from _unknown("the secret of a volume", volume.get("secret", {}))
        if "projected" in volume:
            yield f"the volume {volume['name']} may hold a token of the cluster: projected"
    for box in spec["containers"]:
        if box["name"] == SCORE:
            yield from _of_container(box)
            yield from _of_settings(box, spec.get("volumes", []), facts)


def _placed(spec: Object) -> Iterator[str]:
    """That a replica finds a node again when its own is gone, and leaves one that is broken."""
    if "kubernetes.io/hostname" in spec.get("nodeSelector", {}):
        yield "it is bound to one host"
    for kind in ("podAffinity", "podAntiAffinity"):
        if "requiredDuringSchedulingIgnoredDuringExecution" in spec.get("affinity", {}).get(kind, {}):
            yield f"a replica waits for ever where a host is gone: {kind} is required"
    if any(each.get("operator") == "Exists" and "key" not in each for each in spec.get("tolerations", [])):
        yield "it stays on a node that is broken: it tolerates every taint"
    if spec.get("priorityClassName", "").startswith("system-"):
        yield f"it displaces what the cluster itself needs: {spec['priorityClassName']}"


def _of_container(box: Object) -> Iterator[str]:
    yield from _unknown("the container", box)
    yield from _unknown("the container's securityContext", box.get("securityContext", {}))
    yield from _unknown("lifecycle", box.get("lifecycle", {}))
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield from (f"{name}: {said}" for said in _unknown("a probe", box.get(name, {})))
        yield from (f"{name}: {said}" for said in _unknown("httpGet of a probe", box.get(name, {}).get("httpGet", {})))
    starts = box.get("startupProbe", {})
    if starts.get("periodSeconds", 10) * starts.get("failureThreshold", 3) > 1800:
        yield "a start that hangs is not seen for half an hour: startupProbe"
    for what, least in LEAST.items():
        if size(box.get("resources", {}).get("limits", {}).get(what, least)) < size(least):
            yield f"its limit of {what} is below {least}, with which it does not last"
    for mount in box.get("volumeMounts", []):
        yield from _unknown("a mount", mount)
        at = mount["mountPath"].rstrip("/")
        if not at or any(f"{at}/".startswith(f"{each}/") for each in OF_THE_IMAGE):
            yield f"a mount at {mount['mountPath']} hides what the image has there, and what was tested"


def _of_settings(box: Object, volumes: list[Object], facts: Facts) -> Iterator[str]:
    """That the service takes its settings, by its own reading of them."""
    environment = settings_of(box)
    given = {"LOG_DIR": LOG_DIR, "PORT": "8000"} | environment
    try:
        sink = Settings.from_environ(given).log_sink
    except SettingsError as error:
        yield f"the service refuses its settings: {error}"
        return
    if sink is not None and "://" not in sink and (unfit(sink) or not f"{sink}/".startswith(f"{LOG_DIR}/")):
        yield f"its log goes to {sink}, which is neither a store nor on its volume"
    if "MODEL_DIR" in environment:
        yield "it serves another bundle than the one in its image, which was judged: MODEL_DIR"
    if not facts.may_be_open:
        for name, value in sorted(environment.items()):
            if value and re.search(r"(KEY|SECRET|PASSWORD|TOKEN|SAS)$", name):
                yield f"a secret lies in git: the value of {name}"
        for name in ("AZURE_ALLOW_HTTP", "AWS_ALLOW_HTTP", "AZURE_STORAGE_ALLOW_HTTP"):
            if environment.get(name, "").lower() in ("1", "true", "yes"):
                yield f"its log and its identity go over plain HTTP: {name}"
    named = environment.get("AUTH_TOKENS_FILE", "")
    secrets = {volume["name"]: volume["secret"].get("secretName") for volume in volumes if "secret" in volume}
    for mount in box.get("volumeMounts", []):
        key = TOKENS.get(secrets.get(mount["name"]) or "")
        if key and named != f"{mount['mountPath']}/{key}":
            yield f"AUTH_TOKENS_FILE is {named}, and the Secret has {key}"


def _of_network(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec, found = one["spec"], selected_by(selector_of(one), objects)
    yield from _unknown("a Service", spec)
    for port in spec["ports"]:
        if port.get("protocol", "TCP") != "TCP":
            yield f"{port['protocol']} is not what the service speaks"
        asked = port.get("targetPort", port["port"])
        if spec.get("clusterIP") == "None" and any(open_ports(each).get(asked) != port["port"] for each in found):
            yield f"its names lead to the pods' own ports, of which none is {port['port']}"
    if one["metadata"]["name"] == SCORE and [port["port"] for port in spec["ports"]] != [80]:
        yield "its port is not 80, which the smoke test, the gateway and clients call"


def _of_budget(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    if {"minAvailable", "maxUnavailable"} <= set(one["spec"]):
        yield "it sets minAvailable and maxUnavailable, of which the API server takes one"


def _wide(block: Object, private_too: bool) -> bool:
    """Whether a block of addresses is a large part of all, or of those that are not private."""
    net = ipaddress.ip_network(block["cidr"], strict=False)
    if net.prefixlen >= (8 if net.version == 4 else 16):
        return False
    cut = {ipaddress.ip_network(each) for each in block.get("except", [])}
    inside = [each for each in map(ipaddress.IPv4Network, PRIVATE) if net.version == 4 and each.subnet_of(net)]  # type: ignore[arg-type]
    return private_too or net.version == 6 or not set(inside) <= cut


def _anyone(selector: Object) -> bool:
    """Whether a selector of namespaces finds those that nobody named."""
    named = [
        each
        for each in selector.get("matchExpressions", [])
        if each["operator"] == "In" or (each["operator"] == "Exists" and each["key"] != "kubernetes.io/metadata.name")
    ]
    return not selector.get("matchLabels") and not named


def _of_policy(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for allowed in one["spec"].get(direction, []):
            for peer in allowed.get(side, []):
                wide = "ipBlock" in peer and _wide(peer["ipBlock"], direction == "ingress")
                anyone = "namespaceSelector" in peer and _anyone(peer["namespaceSelector"])
                if wide or (anyone and not (peer.get("podSelector") or {}).get("matchLabels")):
                    yield f"{direction}: it is open to addresses or namespaces that nobody named"


def _of_scaler(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec = one["spec"]
    if [each.get("resource", {}).get("name") for each in spec.get("metrics", [])] != ["cpu"]:
        yield "it does not scale by CPU alone; without metrics it would take a share of the request"
    if spec.get("behavior", {}).get("scaleUp", {}).get("selectPolicy") == "Disabled":
        yield "it never scales up"


METHODS = {route.path: route.methods for route in ROUTES if hasattr(route, "methods")}


def _of_route(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    rules = [rule for rule in one["spec"]["rules"] if rule.get("backendRefs")]
    shown: set[str] = set()
    for rule in rules:
        if any(ref.get("weight", 1) < 1 for ref in rule["backendRefs"]):
            yield "a part of its requests goes to nobody: a weight is 0"
        for each in rule.get("filters", []):
            if each["type"] not in ("ResponseHeaderModifier",):
                yield f"it changes what the service is asked: {each['type']}"
        for match in rule.get("matches", []):
            path, method = match.get("path", {}).get("value", "/"), match.get("method")
            shown.add(path)
            if path in METHODS and method not in (METHODS[path] or ()):
                yield f"the service has no {method} {path}"
    if rules and NEEDED - shown:
        yield f"clients need {', '.join(sorted(NEEDED - shown))}"


def _of_gateway(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    ports = [(each["port"], each["protocol"]) for each in one["spec"]["listeners"]]
    if len({port for port, _ in ports}) < len(set(ports)):
        yield "two protocols share a port"


def _of_monitor(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    if one["spec"].get("namespaceSelector"):
        yield "it looks into other namespaces"
    for endpoint in one["spec"]["podMetricsEndpoints"]:
        if endpoint.get("scheme", "http").lower() != "http":
            yield "the service does not speak TLS"
        if endpoint.get("interval") != f"{INTERVAL_S}s":
            yield f"the alerts count on a scrape each {INTERVAL_S} seconds"


RULES: dict[Rule, str] = {
    _of_workload: "StatefulSet",
    _of_network: "Service",
    _of_budget: "PodDisruptionBudget",
    _of_policy: "NetworkPolicy",
    _of_scaler: "HorizontalPodAutoscaler",
    _of_route: "HTTPRoute",
    _of_gateway: "Gateway",
    _of_monitor: "PodMonitor",
}
