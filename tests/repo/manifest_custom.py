"""The rules for custom resources: gateway, monitoring and admission; and all rules together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pipeline import image_push

from . import manifest_rules, promql
from .manifest_rules import MADE_BY_HAND, Facts, Object, Rule, applied, find_named, open_ports, selected_by

INSIDE = {"/metrics", "/state"}  # routes for the cluster alone
ISSUER = "https://token.actions.githubusercontent.com"


def faults(objects: list[Object], facts: Facts) -> list[str]:
    """Everything that is wrong between these objects, one line each."""
    return [*manifest_rules.faults(objects, facts), *applied(RULES, objects, facts)]


def _of_gateway(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    listeners = one["spec"]["listeners"]
    if len({listener["name"] for listener in listeners}) < len(listeners):
        yield "two listeners have one name"
    for listener in listeners:
        if listener["protocol"] == "HTTPS":
            refs = listener.get("tls", {}).get("certificateRefs", [])
            if not refs or any(ref["name"] not in MADE_BY_HAND for ref in refs):
                yield "its certificate is a Secret that nobody makes"
        if listener.get("allowedRoutes", {}).get("namespaces", {}).get("from") != "Same":
            yield f"any namespace may add routes to its listener {listener['name']}"
        if [kind["kind"] for kind in listener.get("allowedRoutes", {}).get("kinds", [])] != ["HTTPRoute"]:
            yield f"its listener {listener['name']} takes other routes than HTTPRoute"
    proxies = {"gateway.networking.k8s.io/gateway-name": one["metadata"]["name"]}
    policies = [other for other in objects if other["kind"] == "NetworkPolicy"]
    sides = [side for other in policies for rule in other["spec"].get("ingress", []) for side in rule.get("from", [])]
    if not any(side.get("podSelector", {}).get("matchLabels") == proxies for side in sides):
        yield "no NetworkPolicy lets its proxies call the service"


def _of_route(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec = one["spec"]
    for parent in spec["parentRefs"]:
        gateway = find_named(objects, "Gateway", parent["name"])
        listeners = {each["name"]: each for each in (gateway or {"spec": {"listeners": []}})["spec"]["listeners"]}
        listener = listeners.get(parent.get("sectionName", ""))
        if listener is None:
            yield f"there is no Gateway {parent['name']} with the listener {parent.get('sectionName')}"
            continue
        if listener.get("hostname") not in spec.get("hostnames", []):
            yield "its host is not that of the listener"
        backends = [ref for rule in spec["rules"] for ref in rule.get("backendRefs", [])]
        if listener["protocol"] == "HTTP" and backends:
            yield "tokens and answers go over plain HTTP"
        for ref in backends:
            service = find_named(objects, "Service", ref["name"])
            if service is None or ref["port"] not in [port["port"] for port in service["spec"]["ports"]]:
                yield f"there is no Service {ref['name']} with the port {ref['port']}"
    for rule in spec["rules"]:
        for match in rule.get("matches", [{}] if rule.get("backendRefs") else []):
            path = match.get("path", {"type": "PathPrefix", "value": "/"})
            if path["type"] != "Exact" or path["value"] in INSIDE:
                yield f"it shows {sorted(INSIDE)} to everyone"
            elif path["value"] not in facts.routes:
                yield f"the service has no route {path['value']}"


def as_pattern(glob: str) -> re.Pattern[str]:
    """What a glob of the policy-controller finds: ``**`` anything, ``*`` anything within one part of a name."""
    return re.compile(
        "".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in re.split(r"(\*+)", glob))
    )


def image_of(signer: str) -> str:
    """The image of the repository whose workflow signs, as the pipeline pushes it."""
    repository = "/".join(signer.removeprefix("https://github.com/").split("/")[:2])
    return f"{image_push.REGISTRY}/{repository}".lower()


def _of_admission(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    spec = one["spec"]
    if spec.get("mode", "enforce") != "enforce":
        yield "it only warns"
    globs = [as_pattern(image["glob"]) for image in spec["images"]]
    for who in (who for each in spec["authorities"] for who in each.get("keyless", {}).get("identities", [])):
        name = image_of(str(who.get("subject")))
        if not all(any(glob.fullmatch(name + end) for glob in globs) for end in (f"@sha256:{'0' * 64}", ":tag")):
            yield f"it does not look at {name}, which is what a release names"
        if any(glob.fullmatch(f"{name}{end}@sha256:{'0' * 64}") for glob in globs for end in ("-other", "/other")):
            yield "it refuses the images of everyone else"
    for authority in spec["authorities"]:
        identities = authority.get("keyless", {}).get("identities", [])
        if not identities or "static" in authority:
            yield "it admits what anyone signed"
        for who in identities:
            if who.get("issuer") != ISSUER or not str(who.get("subject")).endswith("/release.yml@refs/heads/main"):
                yield "it admits what another workflow or branch signed"
        if authority.get("signatureFormat") != "bundle" or not authority.get("attestations"):
            yield "it does not read GitHub's attestations"


def _of_monitor(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    found = selected_by(one["spec"]["selector"], objects)
    if not found:
        yield "it selects nothing"
    for endpoint in one["spec"]["podMetricsEndpoints"]:
        yield from (
            f"no pod opens port {endpoint['port']}" for each in found if endpoint["port"] not in open_ports(each)
        )
        if endpoint.get("path", "/metrics") not in facts.routes:
            yield f"the service has no route {endpoint['path']}"
    for each in found:
        policies = manifest_rules.covering("NetworkPolicy", each, objects)
        sides = [side for policy in policies for rule in policy["spec"].get("ingress", []) for side in rule["from"]]
        if not any("namespaceSelector" in side and "podSelector" not in side for side in sides):
            yield "no NetworkPolicy lets Prometheus read the metrics"


def _of_alerts(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    names = [rule["alert"] for group in one["spec"]["groups"] for rule in group["rules"]]
    yield from (f"two alerts are named {name}" for name in sorted({name for name in names if names.count(name) > 1}))
    for group in one["spec"]["groups"]:
        for rule in group["rules"]:
            yield from (f"{rule['alert']}: {said}" for said in promql.unknown(rule["expr"], facts.metrics))
            told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"].get("summary", "")))
            for label in sorted(told - promql.result(rule["expr"], facts.metrics)):
                yield f"{rule['alert']}: its summary names {label}, which the result does not have"
            if rule.get("labels", {}).get("severity") not in ("critical", "warning"):
                yield f"{rule['alert']}: it has no severity"
            if "for" not in rule:
                yield f"{rule['alert']}: one sample fires it"
            if rule["alert"].lower() not in facts.runbooks or not rule["annotations"].get("summary"):
                yield f"{rule['alert']}: it has no summary or no runbook"
            elif not rule["annotations"].get("runbook", "").endswith(f"#{rule['alert'].lower()}"):
                yield f"{rule['alert']}: it does not lead to its runbook"


def _of_dashboard(one: Object, objects: list[Object], facts: Facts) -> Iterator[str]:
    for name, text in one.get("data", {}).items():
        if name.endswith(".json"):
            panels = json.loads(text)["panels"]
            for panel in panels:
                for target in panel.get("targets", []):
                    yield from (f"{panel['title']}: {one}" for one in promql.unknown(target["expr"], facts.metrics))
                    shown = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target.get("legendFormat", "")))
                    for label in sorted(shown - promql.result(target["expr"], facts.metrics)):
                        yield f"{panel['title']}: its legend names {label}, which the result does not have"


RULES: dict[Rule, str] = {
    _of_gateway: "Gateway",
    _of_route: "HTTPRoute",
    _of_admission: "ClusterImagePolicy",
    _of_monitor: "PodMonitor",
    _of_alerts: "PrometheusRule",
    _of_dashboard: "ConfigMap",
}
