"""Mistakes that every schema, kube-score and the other rules let through: what manifest_strict.py is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .manifest_mistakes import Object, Plant, box, claim, pod, spec

TOGETHER = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
REQUIRED = {"requiredDuringSchedulingIgnoredDuringExecution": [TOGETHER]}


def put(at: Callable[[list[Object]], Object], **fields: Any) -> Callable[[list[Object]], object]:
    """Set fields of what is found."""
    return lambda objects: at(objects).update(fields)


def workload(objects: list[Object]) -> Object:
    """The spec of the workload."""
    return spec(objects, "StatefulSet")


def security(objects: list[Object]) -> Object:
    """The securityContext of the pods."""
    found: Object = pod(objects)["securityContext"]
    return found


def own_security(objects: list[Object]) -> Object:
    """The securityContext of the container."""
    found: Object = box(objects)["securityContext"]
    return found


def probe(name: str) -> Callable[[list[Object]], Object]:
    """Find a probe of the service."""
    return lambda objects: box(objects)[f"{name}Probe"]


def asked(name: str) -> Callable[[list[Object]], Object]:
    """Find what a probe asks."""
    return lambda objects: box(objects)[f"{name}Probe"]["httpGet"]


def limits(objects: list[Object]) -> Object:
    """The limits of the service, without its requests."""
    box(objects)["resources"]["requests"] = {"cpu": "1m", "memory": "1Ki", "ephemeral-storage": "1Ki"}
    found: Object = box(objects)["resources"]["limits"]
    return found


def service(objects: list[Object]) -> Object:
    """The Service of clients."""
    return spec(objects, "Service")


def own_port(objects: list[Object]) -> Object:
    """Its port."""
    found: Object = service(objects)["ports"][0]
    return found


def caller(block: Object) -> Callable[[list[Object]], object]:
    """Let one peer more call the service."""
    return lambda objects: spec(objects, "NetworkPolicy")["ingress"][0]["from"].append(block)


def for_log(objects: list[Object], rule: int) -> Object:
    """A rule for what the log needs: 0 names, 1 HTTPS."""
    found: Object = spec(objects, "NetworkPolicy", "remote-log")["egress"][rule]
    return found


def scaler(objects: list[Object]) -> Object:
    """The autoscaler."""
    return spec(objects, "HorizontalPodAutoscaler")


def route(objects: list[Object]) -> Object:
    """The first rule of the route of clients."""
    found: Object = spec(objects, "HTTPRoute")["rules"][0]
    return found


def rewritten(path: str) -> Object:
    """The filter that asks the service for another path."""
    changed = {"path": {"type": "ReplaceFullPath", "replaceFullPath": path}}
    return {"type": "URLRewrite", "urlRewrite": changed}


def endpoint(objects: list[Object]) -> Object:
    """What Prometheus reads."""
    found: Object = spec(objects, "PodMonitor")["podMetricsEndpoints"][0]
    return found


def setting(name: str, value: str) -> Callable[[list[Object]], object]:
    """Give the service one setting more, or another value."""

    def make(objects: list[Object]) -> None:
        kept = [each for each in box(objects)["env"] if each["name"] != name]
        box(objects)["env"] = [*kept, {"name": name, "value": value}]

    return make


def mount(path: str) -> Callable[[list[Object]], object]:
    """Mount one volume more."""

    def make(objects: list[Object]) -> None:
        pod(objects)["volumes"].append({"name": "over", "emptyDir": {"sizeLimit": "16Mi"}})
        box(objects)["volumeMounts"].append({"name": "over", "mountPath": path})

    return make


def projected(objects: list[Object]) -> None:
    """Mount a token of the cluster by another way."""
    mount("/token")(objects)
    pod(objects)["volumes"][-1] = {"name": "over", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}


# Found in production with its components.
STRICT: dict[str, Plant] = {
    # where pods run
    "names of the node alone": Plant("sets dnsPolicy", put(pod, dnsPolicy="Default")),
    "every replica on one node": Plant("sets nodeName", put(pod, nodeName="node1")),
    "another scheduler": Plant("sets schedulerName", put(pod, schedulerName="mine")),
    "another runtime": Plant("sets runtimeClassName", put(pod, runtimeClassName="gvisor")),
    "a gate of scheduling": Plant("sets schedulingGates", put(pod, schedulingGates=[{"name": "x"}])),
    "a name of another host": Plant("sets hostAliases", put(pod, hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a"]}])),
    "one name for every replica": Plant("sets hostname", put(pod, hostname="a")),
    "pods that end": Plant("sets activeDeadlineSeconds", put(pod, activeDeadlineSeconds=60)),
    "pods that are not restarted": Plant("sets restartPolicy", put(pod, restartPolicy="Never")),
    "one container more": Plant("sets initContainers", lambda o: pod(o).update(initContainers=[box(o)])),
    "every taint tolerated": Plant("tolerates every taint", put(pod, tolerations=[{"operator": "Exists"}])),
    "the priority of the cluster": Plant("displaces", put(pod, priorityClassName="system-node-critical")),
    "one host": Plant("bound to one host", put(pod, nodeSelector={"kubernetes.io/hostname": "node1"})),
    "each on a host of its own": Plant("podAntiAffinity is required", put(pod, affinity={"podAntiAffinity": REQUIRED})),
    "all on one host": Plant("podAffinity is required", put(pod, affinity={"podAffinity": REQUIRED})),
    "a node that stays": Plant(
        "safe-to-evict is false",
        lambda o: workload(o)["template"]["metadata"].update(
            annotations={"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
        ),
    ),
    "a spread that counts nothing": Plant(
        "counts other pods", lambda o: pod(o)["topologySpreadConstraints"][1].pop("labelSelector")
    ),
    # the workload
    "a rollout of hours": Plant("minReadySeconds", put(workload, minReadySeconds=3600)),
    "replicas of other numbers": Plant("sets ordinals", put(workload, ordinals={"start": 5})),
    "a container of another name": Plant("no container is named score", put(box, name="app")),
    "a volume without files": Plant("sets volumeMode", put(claim, volumeMode="Block")),
    "a volume of certain disks": Plant("sets selector", put(claim, selector={"matchLabels": {"a": "b"}})),
    "a volume that nobody makes": Plant("storageClassName is empty", put(claim, storageClassName="")),
    "two kinds of budget": Plant("takes one", lambda o: spec(o, "PodDisruptionBudget").update(minAvailable=1)),
    # probes and the stop
    "a liveness over TLS": Plant("sets scheme", put(asked("liveness"), scheme="HTTPS")),
    "a readiness of another host": Plant("sets host", put(asked("readiness"), host="example.com")),
    "a readiness that comes late": Plant("initialDelaySeconds", put(probe("readiness"), initialDelaySeconds=300)),
    "a liveness of two successes": Plant("successThreshold", put(probe("liveness"), successThreshold=2)),
    "a restart without an end": Plant(
        "terminationGracePeriodSeconds", put(probe("liveness"), terminationGracePeriodSeconds=1)
    ),
    "a start without an end": Plant("a start that hangs", put(probe("startup"), failureThreshold=100_000)),
    "a start that never ends": Plant(
        "sets postStart", lambda o: box(o)["lifecycle"].update(postStart={"exec": {"command": ["sleep", "infinity"]}})
    ),
    # the container
    "too little memory": Plant("limit of memory", put(limits, memory="64Mi")),
    "no room beside the log": Plant("limit of ephemeral-storage", put(limits, **{"ephemeral-storage": "1Ki"})),
    "no seccomp in the container": Plant(
        "sets seccompProfile", put(own_security, seccompProfile={"type": "Unconfined"})
    ),
    "no AppArmor": Plant("sets appArmorProfile", put(security, appArmorProfile={"type": "Unconfined"})),
    "the whole of /proc": Plant("sets procMount", put(own_security, procMount="Unmasked")),
    "settings of the kernel": Plant("sets sysctls", put(security, sysctls=[{"name": "kernel.msgmax", "value": "1"}])),
    "another label of SELinux": Plant("sets seLinuxOptions", put(security, seLinuxOptions={"type": "spc_t"})),
    "files of root's group": Plant("group of root", put(security, fsGroup=0)),
    "a token of the cluster": Plant("may hold a token", projected),
    "a mount over the bundle": Plant("hides what the image has", mount("/model")),
    "a mount over the program": Plant("hides what the image has", mount("/opt/venv/lib")),
    "a mount over everything": Plant("hides what the image has", mount("/")),
    "a log in a folder of its volume": Plant("sets subPath", lambda o: box(o)["volumeMounts"][0].update(subPath="x")),
    # settings
    "another bundle": Plant("was judged: MODEL_DIR", setting("MODEL_DIR", "/log/model")),
    "a number in words": Plant("refuses its settings: DRAIN_SECONDS", setting("DRAIN_SECONDS", "six")),
    "a size with its unit": Plant("refuses its settings: LOG_MAX_BYTES", setting("LOG_MAX_BYTES", "8Gi")),
    "a sink of no store": Plant("refuses its settings: LOG_SINK", setting("LOG_SINK", "AZ://requests/closedloop")),
    "a sink with one slash": Plant("neither a store nor", setting("LOG_SINK", "az:/requests/closedloop")),
    "a sink that nobody set": Plant("neither a store nor", setting("LOG_SINK", "parameter")),
    "a log over plain HTTP": Plant("over plain HTTP", setting("AZURE_ALLOW_HTTP", "true")),
    "a key in git": Plant("a secret lies in git", setting("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")),
    "tokens of another name": Plant("the Secret has tokens.json", setting("AUTH_TOKENS_FILE", "/tokens/token.json")),
    "one key of the tokens": Plant(
        "sets items", lambda o: pod(o)["volumes"][0]["secret"].update(items=[{"key": "a", "path": "tokens.json"}])
    ),
    # the Service and the policies
    "a Service for another protocol": Plant("is not what the service speaks", put(own_port, protocol="UDP")),
    "a Service of another port": Plant("its port is not 80", put(own_port, port=8080)),
    "a Service of one caller, one replica": Plant("sets sessionAffinity", put(service, sessionAffinity="ClientIP")),
    "a Service of each node alone": Plant("sets internalTrafficPolicy", put(service, internalTrafficPolicy="Local")),
    "a Service of names alone": Plant("the pods' own ports", put(service, clusterIP="None")),
    "callers of every namespace that has a name": Plant(
        "that nobody named",
        caller(
            {"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]}}
        ),
    ),
    "callers of all namespaces but one": Plant(
        "that nobody named",
        caller({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}}),
    ),
    "callers from half of all addresses": Plant("that nobody named", caller({"ipBlock": {"cidr": "0.0.0.0/1"}})),
    "calls to half of all addresses": Plant(
        "that nobody named", lambda o: for_log(o, 1)["to"][0].update(ipBlock={"cidr": "128.0.0.0/1"})
    ),
    "a store over UDP": Plant("port 443 over TCP", lambda o: for_log(o, 1)["ports"][0].update(protocol="UDP")),
    "names over TCP alone": Plant("port 53 over UDP", lambda o: for_log(o, 0)["ports"].pop(0)),
    # the autoscaler, the gateway, the monitor
    "a scaler that only scales down": Plant(
        "never scales up", lambda o: scaler(o)["behavior"]["scaleUp"].update(selectPolicy="Disabled")
    ),
    "a scaler by memory": Plant("by CPU alone", lambda o: scaler(o)["metrics"][0]["resource"].update(name="memory")),
    "a scaler without a metric": Plant("by CPU alone", lambda o: scaler(o).pop("metrics")),
    "a route of another method": Plant("has no PUT /score", lambda o: route(o)["matches"][0].update(method="PUT")),
    "a route to nobody": Plant("a weight is 0", lambda o: route(o)["backendRefs"][0].update(weight=0)),
    "a route to the metrics by another name": Plant("URLRewrite", put(route, filters=[rewritten("/metrics")])),
    "a route without scoring": Plant("clients need /score", lambda o: route(o)["matches"].pop(0)),
    "two protocols at one port": Plant("share a port", lambda o: spec(o, "Gateway")["listeners"][1].update(port=80)),
    "a monitor that comes seldom": Plant("a scrape each 30", put(endpoint, interval="5m")),
    "a monitor over TLS": Plant("does not speak TLS", put(endpoint, scheme="https")),
    "a monitor of another namespace": Plant(
        "other namespaces", lambda o: spec(o, "PodMonitor").update(namespaceSelector={"matchNames": ["x"]})
    ),
}
