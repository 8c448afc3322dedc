"""Mistakes to plant into manifests, and a part of what must be said of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Object = dict[str, Any]


class Plant(NamedTuple):
    """A mistake: words of the fault that must be found, and what makes it in a list of objects."""

    says: str
    make: Callable[[list[Object]], object]


def find(objects: list[Object], kind: str, name: str = "score") -> Object:
    """The object of that kind and name."""
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


def spec(objects: list[Object], kind: str, name: str = "score") -> Object:
    """Its spec."""
    return find(objects, kind, name)["spec"]


def pod(objects: list[Object]) -> Object:
    """The spec of the service's pods."""
    return spec(objects, "StatefulSet")["template"]["spec"]


def box(objects: list[Object]) -> Object:
    """The container of the service."""
    return pod(objects)["containers"][0]


def admission(objects: list[Object]) -> Object:
    """The spec of the policy of images, whose name is the project's."""
    return next(one["spec"] for one in objects if one["kind"] == "ClusterImagePolicy")


def port(objects: list[Object]) -> Object:
    """The port of the first rule of the service's policy."""
    return spec(objects, "NetworkPolicy")["ingress"][0]["ports"][0]


def env(objects: list[Object], name: str) -> Object:
    """A setting of the service."""
    return next(one for one in box(objects)["env"] if one["name"] == name)


OTHER = {"app": "x"}
# In the base; they are found without any tool.
BASE: dict[str, Plant] = {
    # the Services
    "a Service of other pods": Plant("it selects nothing", lambda o: spec(o, "Service")["selector"].update(OTHER)),
    "a Service of a closed port": Plant(
        "no pod opens port web", lambda o: spec(o, "Service")["ports"][0].update(targetPort="web")
    ),
    "a Service of a wrong number": Plant(
        "no pod opens port 8080", lambda o: spec(o, "Service")["ports"][0].update(targetPort=8080)
    ),
    "a Service past the gateway": Plant("past the gateway", lambda o: spec(o, "Service").update(type="LoadBalancer")),
    "a port of the nodes": Plant("past the gateway", lambda o: spec(o, "Service").update(type="NodePort")),
    "two Services of one selector": Plant(
        "the same selector", lambda o: spec(o, "Service", "score-replicas")["selector"].pop("app.kubernetes.io/part-of")
    ),
    "replicas without names": Plant("no names", lambda o: spec(o, "Service", "score-replicas").pop("clusterIP")),
    "an object twice": Plant("it is there twice", lambda o: o.append(find(o, "Service"))),
    # the policies
    "a policy of a closed port": Plant("no pod opens port 8080", lambda o: port(o).update(port=8080)),
    "a policy of a named port": Plant("is not a number", lambda o: port(o).update(port="http")),
    "a policy of every pod": Plant("it selects every pod", lambda o: spec(o, "NetworkPolicy").update(podSelector={})),
    "a policy of one direction": Plant("a direction open", lambda o: spec(o, "NetworkPolicy")["policyTypes"].pop()),
    "a policy that forgets a direction": Plant(
        "policyTypes leave out ingress", lambda o: spec(o, "NetworkPolicy").update(policyTypes=["Egress"])
    ),
    "a policy for callers from anywhere": Plant(
        "ingress: it is open to all", lambda o: spec(o, "NetworkPolicy")["ingress"][0].pop("from")
    ),
    "a policy for calls to anywhere": Plant(
        "egress: it is open to all", lambda o: spec(o, "NetworkPolicy")["egress"].append({})
    ),
    "no policy": Plant("no NetworkPolicy covers it", lambda o: o.remove(find(o, "NetworkPolicy"))),
    # the budget
    "a budget of other pods": Plant(
        "no PodDisruptionBudget covers it",
        lambda o: spec(o, "PodDisruptionBudget")["selector"]["matchLabels"].update(OTHER),
    ),
    "no budget": Plant("no PodDisruptionBudget covers it", lambda o: o.remove(find(o, "PodDisruptionBudget"))),
    "two budgets": Plant(
        "two budgets cover it",
        lambda o: o.append(find(o, "PodDisruptionBudget") | {"metadata": {"name": "other"}}),
    ),
    "a budget that stops every drain": Plant(
        "lets nothing be evicted", lambda o: spec(o, "PodDisruptionBudget").update(maxUnavailable=0)
    ),
    "a broken pod that stops a drain": Plant(
        "stops a drain", lambda o: spec(o, "PodDisruptionBudget").pop("unhealthyPodEvictionPolicy")
    ),
    # the workload
    "a selector that finds nothing": Plant(
        "its own pods", lambda o: spec(o, "StatefulSet")["selector"]["matchLabels"].update(OTHER)
    ),
    "a governing Service that is not there": Plant(
        "no Service x", lambda o: spec(o, "StatefulSet").update(serviceName="x")
    ),
    "one pod after the other": Plant("is not Parallel", lambda o: spec(o, "StatefulSet").pop("podManagementPolicy")),
    "a rollout by hand": Plant(
        "does not roll", lambda o: spec(o, "StatefulSet").update(updateStrategy={"type": "OnDelete"})
    ),
    "a rollout of a part": Plant(
        "does not roll", lambda o: spec(o, "StatefulSet")["updateStrategy"]["rollingUpdate"].update(partition=1)
    ),
    "logs that go with the workload": Plant(
        "its logs are deleted",
        lambda o: spec(o, "StatefulSet")["persistentVolumeClaimRetentionPolicy"].update(whenScaled="Delete"),
    ),
    "no replica": Plant("without a gap", lambda o: spec(o, "StatefulSet").update(replicas=0)),
    "a spread of other pods": Plant(
        "counts other pods",
        lambda o: pod(o)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(OTHER),
    ),
    "no spread over zones": Plant("hosts and zones", lambda o: pod(o)["topologySpreadConstraints"].pop(0)),
    # the account
    "an account that is not there": Plant("no ServiceAccount x", lambda o: pod(o).update(serviceAccountName="x")),
    "a mounted token": Plant("token of the cluster", lambda o: pod(o).pop("automountServiceAccountToken")),
    "a right": Plant("no right in the cluster", lambda o: o.append({"kind": "RoleBinding", "metadata": {"name": "x"}})),
    "a cluster-admin": Plant(
        "no right in the cluster", lambda o: o.append({"kind": "ClusterRoleBinding", "metadata": {"name": "x"}})
    ),
    "a secret in git": Plant("lies in git", lambda o: o.append({"kind": "Secret", "metadata": {"name": "x"}})),
    "an object of another namespace": Plant(
        "2 namespaces", lambda o: find(o, "Service")["metadata"].update(namespace="other")
    ),
    # probes and the stop
    "a probe of a closed port": Plant(
        "asks port web", lambda o: box(o)["readinessProbe"]["httpGet"].update(port="web")
    ),
    "a probe of no route": Plant("does not have", lambda o: box(o)["startupProbe"]["httpGet"].update(path="/healthz")),
    "a liveness that follows the disk": Plant(
        "would restart it", lambda o: box(o)["livenessProbe"]["httpGet"].update(path="/readyz")
    ),
    "a readiness that is always true": Plant(
        "does not ask /readyz", lambda o: box(o)["readinessProbe"]["httpGet"].update(path="/livez")
    ),
    "no readiness": Plant("no readinessProbe", lambda o: box(o).pop("readinessProbe")),
    "no liveness": Plant("no livenessProbe", lambda o: box(o).pop("livenessProbe")),
    "no time to start": Plant("less than 30 seconds", lambda o: box(o)["startupProbe"].pop("failureThreshold")),
    "no wait before the stop": Plant("preStop does not sleep", lambda o: box(o).pop("lifecycle")),
    "a stop that is cut short": Plant("is too short", lambda o: pod(o).update(terminationGracePeriodSeconds=20)),
    "a drain that the probe does not see": Plant(
        "DRAIN_SECONDS is below 6", lambda o: env(o, "DRAIN_SECONDS").update(value="3")
    ),
    "a stop that takes too long": Plant("is too short", lambda o: env(o, "STOP_SECONDS").update(value="60")),
    # volumes
    "a mount of no volume": Plant(
        "no volume cache", lambda o: box(o)["volumeMounts"].append({"name": "cache", "mountPath": "/x"})
    ),
    "a volume nobody mounts": Plant(
        "nothing mounts the volume tmp", lambda o: pod(o).update(volumes=[{"name": "tmp", "emptyDir": {}}])
    ),
    "two mounts at one place": Plant(
        "two mounts are at /log", lambda o: box(o)["volumeMounts"].append(box(o)["volumeMounts"][0])
    ),
    "a log that dies with its pod": Plant(
        "does not outlive",
        lambda o: (
            spec(o, "StatefulSet").pop("volumeClaimTemplates"),
            pod(o).update(volumes=[{"name": "log", "emptyDir": {}}]),
        ),
    ),
    "a log elsewhere": Plant("does not outlive", lambda o: box(o)["volumeMounts"][0].update(mountPath="/logs")),
    "a log that cannot be written": Plant(
        "cannot be written", lambda o: box(o)["volumeMounts"][0].update(readOnly=True)
    ),
    "a log of two nodes": Plant("two nodes", lambda o: claim(o).update(accessModes=["ReadWriteMany"])),
    "a log on the node's NVMe": Plant(
        "no disk that outlives", lambda o: claim(o).update(storageClassName="local-nvme")
    ),
    "a log on a share of files": Plant(
        "no disk that outlives", lambda o: claim(o).update(storageClassName="azurefile-csi")
    ),
    "a log that outgrows its volume": Plant(
        "is smaller", lambda o: claim(o)["resources"]["requests"].update(storage="5Gi")
    ),
    "a secret nobody makes": Plant(
        "no Secret other", lambda o: pod(o).update(volumes=[{"name": "x", "secret": {"secretName": "other"}}])
    ),
    "a map nobody makes": Plant(
        "no ConfigMap other", lambda o: pod(o).update(volumes=[{"name": "x", "configMap": {"name": "other"}}])
    ),
    "a folder of the host": Plant(
        "is the host's", lambda o: pod(o).update(volumes=[{"name": "x", "hostPath": {"path": "/"}}])
    ),
    "a volume of root": Plant("without an fsGroup", lambda o: pod(o)["securityContext"].pop("fsGroup")),
    # settings
    "a setting with a typo": Plant(
        "no setting STOP_SECOND", lambda o: env(o, "STOP_SECONDS").update(name="STOP_SECOND")
    ),
    "a setting set twice": Plant("set twice", lambda o: box(o)["env"].append(box(o)["env"][0])),
    "a key that is not there": Plant(
        "no ConfigMap x with the key y",
        lambda o: env(o, "STOP_SECONDS").update(valueFrom={"configMapKeyRef": {"name": "x", "key": "y"}}),
    ),
    "another port": Plant("listens on a port", lambda o: box(o)["env"].append({"name": "PORT", "value": "9000"})),
    "tokens that are not mounted": Plant("no tokens are mounted", lambda o: env(o, "AUTH").update(value="tokens")),
    "another image in IMAGE": Plant("is another image", lambda o: env(o, "IMAGE").update(value="closedloop:dev")),
    # the restricted profile
    "no limit": Plant("limits name no memory", lambda o: box(o)["resources"]["limits"].pop("memory")),
    "no request": Plant("requests name no cpu", lambda o: box(o)["resources"]["requests"].pop("cpu")),
    "no limit of the node's disk": Plant(
        "no ephemeral-storage", lambda o: box(o)["resources"]["limits"].pop("ephemeral-storage")
    ),
    "a request above its limit": Plant(
        "more memory than its limit", lambda o: box(o)["resources"]["requests"].update(memory="2Gi")
    ),
    "a writable root": Plant(
        "not restricted", lambda o: box(o)["securityContext"].update(readOnlyRootFilesystem=False)
    ),
    "more rights by sudo": Plant("not restricted", lambda o: box(o)["securityContext"].pop("allowPrivilegeEscalation")),
    "a capability": Plant(
        "has capabilities", lambda o: box(o)["securityContext"]["capabilities"].update(add=["NET_ADMIN"])
    ),
    "a privileged container": Plant("has capabilities", lambda o: box(o)["securityContext"].update(privileged=True)),
    "root": Plant("not restricted", lambda o: pod(o)["securityContext"].update(runAsNonRoot=False)),
    "user 0": Plant("or is root", lambda o: pod(o)["securityContext"].update(runAsUser=0)),
    "root in the container": Plant("the container is root", lambda o: box(o)["securityContext"].update(runAsUser=0)),
    "no seccomp": Plant("not restricted", lambda o: pod(o)["securityContext"].pop("seccompProfile")),
    "the host's network": Plant("namespace of the host", lambda o: pod(o).update(hostNetwork=True)),
    "the host's processes": Plant("namespace of the host", lambda o: pod(o).update(hostPID=True)),
    "a port of the host": Plant("port of the host", lambda o: box(o)["ports"][0].update(hostPort=8000)),
    "variables of all Services": Plant("variables of every Service", lambda o: pod(o).pop("enableServiceLinks")),
    "an image without a tag": Plant("no digest and no tag", lambda o: box(o).update(image="closedloop")),
    "the latest image": Plant("no digest and no tag", lambda o: box(o).update(image="closedloop:latest")),
    "a second container without bounds": Plant(
        "limits name no cpu", lambda o: pod(o)["containers"].append({"name": "x", "image": "x:1"})
    ),
}


def claim(objects: list[Object]) -> Object:
    """The claim for the log's volume."""
    return spec(objects, "StatefulSet")["volumeClaimTemplates"][0]["spec"]


# In components.
FULL: dict[str, Plant] = {
    "a service open to all": Plant(
        "without authentication", lambda o: box(o)["env"].append({"name": "AUTH", "value": "open"})
    ),
    "a scaler of another workload": Plant(
        "StatefulSet scores, which",
        lambda o: spec(o, "HorizontalPodAutoscaler")["scaleTargetRef"].update(name="scores"),
    ),
    "a scaler of another API": Plant(
        "which is not there",
        lambda o: spec(o, "HorizontalPodAutoscaler")["scaleTargetRef"].update(apiVersion="apps/v1beta1"),
    ),
    "a floor above the ceiling": Plant(
        "above maxReplicas", lambda o: spec(o, "HorizontalPodAutoscaler").update(minReplicas=11)
    ),
    "a floor of one": Plant("below two", lambda o: spec(o, "HorizontalPodAutoscaler").update(minReplicas=1)),
    "a share of the request": Plant(
        "share of the request",
        lambda o: spec(o, "HorizontalPodAutoscaler")["metrics"][0]["resource"].update(
            target={"type": "Utilization", "averageUtilization": 70}
        ),
    ),
    "a load that nobody reaches": Plant(
        "no replica can use",
        lambda o: spec(o, "HorizontalPodAutoscaler")["metrics"][0]["resource"]["target"].update(averageValue="2"),
    ),
    "replicas beside a scaler": Plant("the autoscaler rules", lambda o: spec(o, "StatefulSet").update(replicas=2)),
    "two scalers": Plant(
        "two autoscalers", lambda o: o.append(find(o, "HorizontalPodAutoscaler") | {"metadata": {"name": "other"}})
    ),
    "one replica without a scaler": Plant("without a gap", lambda o: o.remove(find(o, "HorizontalPodAutoscaler"))),
    # the log in a store
    "a log without names": Plant(
        "no policy allows port 53", lambda o: spec(o, "NetworkPolicy", "remote-log")["egress"].pop(0)
    ),
    "a log without a way": Plant(
        "no policy allows port 443", lambda o: spec(o, "NetworkPolicy", "remote-log")["egress"].pop()
    ),
    "a log without an identity": Plant(
        "has no azure.workload", lambda o: find(o, "ServiceAccount")["metadata"].pop("annotations")
    ),
    "pods without the identity": Plant(
        "have no label azure.workload",
        lambda o: spec(o, "StatefulSet")["template"]["metadata"]["labels"].pop("azure.workload.identity/use"),
    ),
    "a log without an account": Plant(
        "ACCOUNT_NAME is not set", lambda o: box(o)["env"].remove(env(o, "AZURE_STORAGE_ACCOUNT_NAME"))
    ),
    "calls to every address": Plant(
        "egress: it is open to all", lambda o: spec(o, "NetworkPolicy", "remote-log")["egress"][1].pop("to")
    ),
    # the gateway
    "a route of no gateway": Plant(
        "there is no Gateway scores", lambda o: spec(o, "HTTPRoute")["parentRefs"][0].update(name="scores")
    ),
    "a route of no listener": Plant(
        "the listener tls", lambda o: spec(o, "HTTPRoute")["parentRefs"][0].update(sectionName="tls")
    ),
    "a route to no Service": Plant(
        "no Service scores", lambda o: spec(o, "HTTPRoute")["rules"][0]["backendRefs"][0].update(name="scores")
    ),
    "a route to a closed port": Plant(
        "with the port 8000", lambda o: spec(o, "HTTPRoute")["rules"][0]["backendRefs"][0].update(port=8000)
    ),
    "a route for another host": Plant(
        "its host is not", lambda o: spec(o, "HTTPRoute").update(hostnames=["other.example.com"])
    ),
    "a route for everything": Plant("to everyone", lambda o: spec(o, "HTTPRoute")["rules"][0].pop("matches")),
    "a route to the metrics": Plant(
        "to everyone", lambda o: spec(o, "HTTPRoute")["rules"][0]["matches"][0]["path"].update(value="/metrics")
    ),
    "a route that is not there": Plant(
        "no route /scores", lambda o: spec(o, "HTTPRoute")["rules"][0]["matches"][0]["path"].update(value="/scores")
    ),
    "tokens over plain HTTP": Plant(
        "plain HTTP", lambda o: spec(o, "HTTPRoute")["parentRefs"][0].update(sectionName="http")
    ),
    "a certificate nobody makes": Plant(
        "nobody makes", lambda o: spec(o, "Gateway")["listeners"][1]["tls"].update(certificateRefs=[{"name": "x"}])
    ),
    "routes of every namespace": Plant(
        "may add routes",
        lambda o: spec(o, "Gateway")["listeners"][0]["allowedRoutes"].update(namespaces={"from": "All"}),
    ),
    "a gateway that may not call": Plant("lets its proxies", lambda o: o.remove(find(o, "NetworkPolicy", "gateway"))),
    # monitoring
    "a monitor of other pods": Plant(
        "PodMonitor score: it selects nothing", lambda o: spec(o, "PodMonitor")["selector"]["matchLabels"].update(OTHER)
    ),
    "a monitor of a closed port": Plant(
        "no pod opens port metrics", lambda o: spec(o, "PodMonitor")["podMetricsEndpoints"][0].update(port="metrics")
    ),
    "a monitor of no route": Plant(
        "no route /metric", lambda o: spec(o, "PodMonitor")["podMetricsEndpoints"][0].update(path="/metric")
    ),
    "a monitor that may not call": Plant(
        "lets Prometheus read", lambda o: o.remove(find(o, "NetworkPolicy", "monitoring"))
    ),
    "an alert on no metric": Plant("no metric closedloop_redy", lambda o: rule(o).update(expr="closedloop_redy == 0")),
    "an alert on a counter without its end": Plant(
        "no metric closedloop_requests", lambda o: rule(o).update(expr="rate(closedloop_requests[5m]) > 0")
    ),
    "an alert on another exporter's metric": Plant(
        "no metric node_load1", lambda o: rule(o).update(expr="node_load1 > 1 and closedloop_ready == 0")
    ),
    "an alert on no label": Plant(
        "has no label code", lambda o: rule(o).update(expr='rate(closedloop_requests_total{code="500"}[5m]) > 0')
    ),
    "an alert grouped by no label": Plant(
        "has a label pods", lambda o: rule(o).update(expr="min by (namespace, pods) (closedloop_ready) == 0")
    ),
    "a summary of a label that is summed away": Plant(
        "its summary names pod",
        lambda o: rule(o).update(
            expr="min by (namespace) (closedloop_ready) == 0", annotations={"summary": "{{ $labels.pod }}"}
        ),
    ),
    "an alert without a runbook": Plant("no summary or no runbook", lambda o: rule(o).update(alert="Other")),
    "an alert with another's runbook": Plant(
        "does not lead to its runbook", lambda o: rule(o)["annotations"].update(runbook="README.md#x")
    ),
    "an alert without a severity": Plant("has no severity", lambda o: rule(o).pop("labels")),
    "an alert of one sample": Plant("one sample fires it", lambda o: rule(o).pop("for")),
    "an alert twice": Plant(
        "two alerts are named", lambda o: spec(o, "PrometheusRule")["groups"][0]["rules"].append(rule(o))
    ),
    "a panel on no metric": Plant(
        "no metric closedloop_redy",
        lambda o: find(o, "ConfigMap", "score-dashboard")["data"].update(
            {
                "dashboard.json": find(o, "ConfigMap", "score-dashboard")["data"]["dashboard.json"].replace(
                    "closedloop_ready{", "closedloop_redy{"
                )
            }
        ),
    ),
    # admission
    "admission that only warns": Plant("only warns", lambda o: admission(o).update(mode="warn")),
    "admission of every image": Plant("everyone else", lambda o: admission(o)["images"][0].update(glob="**")),
    "admission of packages below this one": Plant(
        "does not look at ghcr.io/owner/repository",
        lambda o: admission(o)["images"][0].update(glob="ghcr.io/owner/repository/**"),
    ),
    "admission of tags alone": Plant("does not look at", lambda o: admission(o)["images"].pop(0)),
    "admission of packages of a like name": Plant(
        "everyone else", lambda o: admission(o)["images"][0].update(glob="ghcr.io/owner/repository**")
    ),
    "admission of anyone": Plant("anyone signed", lambda o: authority(o)["keyless"].pop("identities")),
    "admission of every branch": Plant(
        "another workflow or branch",
        lambda o: authority(o)["keyless"]["identities"][0].update(
            subject="https://github.com/o/r/.github/workflows/ci.yml@refs/heads/x"
        ),
    ),
    "admission of old signatures": Plant("GitHub's attestations", lambda o: authority(o).pop("signatureFormat")),
}


def rule(objects: list[Object]) -> Object:
    """The first alert."""
    first: Object = spec(objects, "PrometheusRule")["groups"][0]["rules"][0]
    return first


def authority(objects: list[Object]) -> Object:
    """Whom the admission believes."""
    return admission(objects)["authorities"][0]


# What the API server refuses.
SCHEMA: dict[str, Plant] = {
    "a field with a typo": Plant("readinesProbe", lambda o: box(o).update(readinesProbe=box(o).pop("readinessProbe"))),
    "a number that is a text": Plant("is not of type", lambda o: spec(o, "StatefulSet").update(replicas="two")),
    "a removed API": Plant(
        "no PodDisruptionBudget of policy/v1beta1",
        lambda o: find(o, "PodDisruptionBudget").update(apiVersion="policy/v1beta1"),
    ),
    "an unknown kind": Plant(
        "'Statefulset' is not one of", lambda o: find(o, "StatefulSet").update(kind="Statefulset")
    ),
    "a setting that is a number": Plant("is not of type", lambda o: env(o, "STOP_SECONDS").update(value=20)),
    "a field in the wrong place": Plant(
        "serviceAccountName", lambda o: spec(o, "StatefulSet").update(serviceAccountName="score")
    ),
    "a list that is a map": Plant("is not of type", lambda o: spec(o, "Service").update(ports={"http": 80})),
    "a field that is missing": Plant(
        "'selector' is a required property", lambda o: spec(o, "StatefulSet").pop("selector")
    ),
}
