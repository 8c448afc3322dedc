"""Rules for what an API server accepts and a cluster runs, until something else goes wrong; and mistakes for each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .manifest_mistakes import Object, Plant, box, pod, port, rule, spec
from .manifest_rules import LOG_DIR, SCORE, Facts, Rule, containers, settings_of
from .manifest_rules import pod as template_of

EVERYWHERE = {"0.0.0.0/0", "::/0"}
PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
INTERVAL_S = 30  # between two scrapes, as the PodMonitors have it


def _of_workload(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    if one["spec"].get("revisionHistoryLimit", 10) < 2:
        yield "it keeps no revision to go back to"
    inside = template_of(one)["spec"]  # type: ignore[index]
    for spread in inside.get("topologySpreadConstraints", []):
        if spread.get("whenUnsatisfiable") != "ScheduleAnyway":
            yield "a replica waits for ever where a zone or a host is gone"
    security = inside.get("securityContext", {})
    if security.get("runAsGroup", 0) == 0 or 0 in security.get("supplementalGroups", []):
        yield "it is in the group of root"
    for volume in inside.get("volumes", []):
        if volume.get("secret", {}).get("defaultMode", 0o440) & 0o007:
            yield f"everyone in the pod may read the secret {volume['name']}"
    for container in containers(one):
        if container["name"] == SCORE:
            yield from _of_container(container, facts)


def _of_container(container: Object, facts: Facts) -> Iterator[str]:
    if "envFrom" in container:
        yield "it takes settings that stand nowhere here: envFrom"
    if "command" in container or "args" in container:
        yield "it does not run the program of the image"
    if container.get("imagePullPolicy") not in ("IfNotPresent", "Always"):
        yield "its image is never pulled"
    alive = container.get("livenessProbe", {"periodSeconds": 30})
    if alive.get("periodSeconds", 10) * alive.get("failureThreshold", 3) < 20 or alive.get("timeoutSeconds", 1) < 2:
        yield "a short pause restarts it: livenessProbe must take at least 20 seconds, and 2 for an answer"
    environment = settings_of(container)
    if environment.get("LOG_DIR", LOG_DIR) != LOG_DIR:
        yield f"its log is not at {LOG_DIR}, where its volume is"
    if environment.get("LOG_DURABILITY", "fsync") != "fsync":
        yield "a node that fails loses what was acknowledged: LOG_DURABILITY is not fsync"


def _of_network(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    if one["spec"].get("externalIPs"):
        yield "it opens the service past the gateway"
    if one["spec"].get("publishNotReadyAddresses"):
        yield "it sends requests to replicas that are not ready"


def _of_budget(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    if one["spec"].get("maxUnavailable", 1) not in (0, 1):
        yield "more than one replica may be evicted at once"


def _of_policy(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for allowed in one["spec"].get(direction, []):
            for peer in allowed.get(side, []):
                block = peer.get("ipBlock", {})
                open_to_all = block.get("cidr") in EVERYWHERE and (
                    direction == "ingress" or not PRIVATE <= set(block.get("except", []))
                )
                if open_to_all or peer in ({"namespaceSelector": {}}, {"namespaceSelector": {}, "podSelector": {}}):
                    yield f"{direction}: it is open to all, or to the nodes' metadata and private networks"
            for each in allowed.get("ports", []):
                if direction == "ingress" and each.get("protocol", "TCP") != "TCP":
                    yield f"ingress: {each['protocol']} is not what the service speaks"
                if "endPort" in each:
                    yield f"{direction}: a range of ports is open"


def _of_gateway(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    for listener in one["spec"]["listeners"]:
        if listener["protocol"] == "HTTPS" and listener.get("tls", {}).get("mode", "Terminate") != "Terminate":
            yield f"its listener {listener['name']} does not end TLS, so no HTTPRoute fits it"


def _of_route(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    for each in one["spec"]["rules"]:
        for named in each.get("filters", []):
            if named["type"] == "RequestRedirect" and named["requestRedirect"].get("scheme") != "https":
                yield "it redirects to itself, not to HTTPS"


def _of_alerts(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    for each in (each for group in one["spec"]["groups"] for each in group["rules"]):
        for number, unit in re.findall(r"\[(\d+)([smhd])\]", each["expr"]):
            if int(number) * seconds[unit] < 4 * INTERVAL_S:
                yield f"{each['alert']}: [{number}{unit}] holds too few scrapes for a rate"


RULES: dict[Rule, str] = {
    _of_workload: "StatefulSet",
    _of_network: "Service",
    _of_budget: "PodDisruptionBudget",
    _of_policy: "NetworkPolicy",
    _of_gateway: "Gateway",
    _of_route: "HTTPRoute",
    _of_alerts: "PrometheusRule",
}


# Found in production with its components.
LATER: dict[str, Plant] = {
    "no revision to go back to": Plant(
        "no revision to go back", lambda o: spec(o, "StatefulSet").update(revisionHistoryLimit=0)
    ),
    "a spread that keeps a replica waiting": Plant(
        "waits for ever",
        lambda o: pod(o)["topologySpreadConstraints"][1].update(whenUnsatisfiable="DoNotSchedule"),
    ),
    "the group of root": Plant("group of root", lambda o: pod(o)["securityContext"].update(runAsGroup=0)),
    "one more group, of root": Plant(
        "group of root", lambda o: pod(o)["securityContext"].update(supplementalGroups=[0])
    ),
    "tokens that everyone may read": Plant(
        "may read the secret tokens", lambda o: pod(o)["volumes"][0]["secret"].update(defaultMode=0o444)
    ),
    "settings of another object": Plant(
        "envFrom", lambda o: box(o).update(envFrom=[{"configMapRef": {"name": "more"}}])
    ),
    "another program": Plant("the program of the image", lambda o: box(o).update(command=["sleep", "infinity"])),
    "an image that is never pulled": Plant("never pulled", lambda o: box(o).update(imagePullPolicy="Never")),
    "a liveness of one try": Plant("a short pause", lambda o: box(o)["livenessProbe"].update(failureThreshold=1)),
    "a liveness of one second": Plant("a short pause", lambda o: box(o)["livenessProbe"].pop("timeoutSeconds")),
    "a log beside its volume": Plant(
        "is not at /log", lambda o: box(o)["env"].append({"name": "LOG_DIR", "value": "/scratch"})
    ),
    "a log that is not synced": Plant(
        "is not fsync", lambda o: box(o)["env"].append({"name": "LOG_DURABILITY", "value": "off"})
    ),
    "an address of the outside": Plant(
        "past the gateway", lambda o: spec(o, "Service").update(externalIPs=["203.0.113.7"])
    ),
    "requests to what is not ready": Plant(
        "that are not ready", lambda o: spec(o, "Service").update(publishNotReadyAddresses=True)
    ),
    "a budget of all": Plant("evicted at once", lambda o: spec(o, "PodDisruptionBudget").update(maxUnavailable="100%")),
    "callers from every address": Plant(
        "ingress: it is open to all",
        lambda o: spec(o, "NetworkPolicy")["ingress"][0].update({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
    ),
    "callers from every namespace": Plant(
        "ingress: it is open to all",
        lambda o: spec(o, "NetworkPolicy")["ingress"][0].update({"from": [{"namespaceSelector": {}}]}),
    ),
    "calls to the node's metadata": Plant(
        "egress: it is open to all",
        lambda o: spec(o, "NetworkPolicy", "remote-log")["egress"][1]["to"][0]["ipBlock"]["except"].remove(
            "169.254.0.0/16"
        ),
    ),
    "a policy for another protocol": Plant("is not what the service speaks", lambda o: port(o).update(protocol="UDP")),
    "a policy of a range": Plant("a range of ports", lambda o: port(o).update(endPort=9000)),
    "TLS that goes through": Plant(
        "does not end TLS", lambda o: spec(o, "Gateway")["listeners"][1]["tls"].update(mode="Passthrough")
    ),
    "a redirect in a circle": Plant(
        "redirects to itself",
        lambda o: spec(o, "HTTPRoute", "score-redirect")["rules"][0]["filters"][0]["requestRedirect"].pop("scheme"),
    ),
    "a rate of one scrape": Plant(
        "too few scrapes", lambda o: rule(o).update(expr="rate(closedloop_requests_total[30s]) > 1")
    ),
}
