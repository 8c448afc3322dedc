# Databricks notebook source
# MAGIC %md
# MAGIC # Serve a release on Azure Container Instances or AKS
# MAGIC This runs the image of a release by its digest. It is for a try-out beside the pipeline: the releases on GitHub
# MAGIC stay the truth about what is served. Nothing outlives a container group, so its log goes to `LOG_SINK` every two
# MAGIC seconds. `CREDENTIAL` is a service credential of Unity Catalog that may write to the resource group. `TOKENS` is
# MAGIC a secret, as scope/key, with the content of `AUTH_TOKENS_FILE`. The first run makes the fields above and stops;
# MAGIC fill them in and run it again. The repository and its packages must be public: nothing here logs in to GitHub.

# COMMAND ----------
"""Serve a release: TARGET is aci or aks, and the other widgets say which release and where."""

import base64
import io
import json
import re
import time
import urllib.request
import zipfile
from typing import Any

ALL = ("REPOSITORY", "RELEASE", "SUBSCRIPTION", "GROUP", "NAME", "CREDENTIAL")
OF_TARGET = {"aci": ("REGION", "SUBNET", "LOG_SINK", "TOKENS"), "aks": ("OVERLAY",)}
AKS = "6dae42f8-4368-4678-94ff-3960e28e3630"  # Entra's id of every AKS cluster that it guards
notebook = dbutils  # noqa: F821 - Databricks gives it to a notebook
notebook.widgets.dropdown("TARGET", "aci", [*OF_TARGET])
for field in (*ALL, *OF_TARGET["aci"], *OF_TARGET["aks"]):
    notebook.widgets.text(field, "")  # what a job passes, or a person wrote, stays
target = notebook.widgets.get("TARGET")
asked = {name: notebook.widgets.get(name) for name in (*ALL, *OF_TARGET[target])}
if empty := [name for name, value in asked.items() if not value]:
    raise SystemExit(f"fill in above, then run this cell again: {', '.join(empty)}")
azure, github = "https://management.azure.com", "https://api.github.com"


def ask(method: str, address: str, content: object = None, token: str = "", accept: str = "application/json") -> Any:
    """Return what a server answers, to be read; an error is its own."""
    body = None if content is None else json.dumps(content).encode()
    head = {"Accept": accept, "Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    request = urllib.request.Request(address, body, head, method=method)  # noqa: S310 - https, above
    return urllib.request.urlopen(request, timeout=60)  # noqa: S310


def call(method: str, address: str, content: object = None, token: str = "", accept: str = "application/json") -> bytes:
    """Return the content of an answer."""
    with ask(method, address, content, token, accept) as answer:
        return bytes(answer.read())


def settled(answer: Any, token: str) -> dict[str, Any]:
    """Return what Azure says of a thing that it was still busy with, once it is done."""
    until = time.monotonic() + 600
    while answer.status == 202 and time.monotonic() < until:
        time.sleep(5)
        answer = ask("GET", answer.headers["Location"], token=token)
    with answer:
        found: dict[str, Any] = json.loads(answer.read() or b"{}")
    return found.get("properties") or {"reason": f"Azure answered {answer.status} for ten minutes"}


release = json.loads(call("GET", f"{github}/repos/{asked['REPOSITORY']}/releases/tags/{asked['RELEASE']}"))
found = re.search(r"```json\n(\{\n \"closedloop\": .*?\n\})\n```", release["body"].replace("\r\n", "\n"), re.DOTALL)
facts = json.loads(found[1]) if found else {}
by_digest = re.search(r"@sha256:[0-9a-f]{64}$", facts.get("image", ""))
if release["draft"] or facts.get("withdrawn") or not by_digest:
    raise SystemExit(f"{asked['RELEASE']} is a draft, was withdrawn or has no image by digest: choose another release")
credential = notebook.credentials.getServiceCredentialsProvider(asked["CREDENTIAL"])
token = credential.get_token(f"{azure}/.default").token
place = f"{azure}/subscriptions/{asked['SUBSCRIPTION']}/resourceGroups/{asked['GROUP']}/providers"
if target == "aks":  # the release's own manifests, which name the image by digest
    name = f"manifests-{asked['OVERLAY']}.yaml"
    asset = next(one for one in release["assets"] if one["name"] == name)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, call("GET", asset["url"], accept="application/octet-stream"))
    run = {"command": f"kubectl apply -f {name}", "context": base64.b64encode(packed.getvalue()).decode()}
    cluster, version = f"{place}/Microsoft.ContainerService/managedClusters/{asked['NAME']}", "api-version=2024-09-01"
    about = json.loads(call("GET", f"{cluster}?{version}", token=token))["properties"]
    if (about.get("aadProfile") or {}).get("managed"):
        run["clusterToken"] = credential.get_token(f"{AKS}/.default").token
    result = settled(ask("POST", f"{cluster}/runCommand?{version}", run, token), token)
    print(result.get("logs") or result.get("reason") or "")
    if result.get("exitCode") != 0:
        raise SystemExit(f"kubectl ended with {result.get('exitCode')}; what it said stands above")
elif asked["LOG_SINK"].startswith(("az://", "s3://", "gs://")):
    tokens = notebook.secrets.get(*asked["TOKENS"].split("/"))
    values = {
        "LOG_VOLUME": "ephemeral",
        "LOG_SINK": asked["LOG_SINK"],
        "AUTH": "tokens",
        "AUTH_TOKENS_FILE": "/tokens/tokens.json",
    }
    probe = {"httpGet": {"path": "/livez", "port": 8000, "scheme": "http"}, "initialDelaySeconds": 10}
    box = {"image": facts["image"], "ports": [{"port": 8000}], "resources": {"requests": {"cpu": 1, "memoryInGB": 2}}}
    box["environmentVariables"] = [{"name": key, "value": value} for key, value in values.items()]
    box |= {"volumeMounts": [{"name": "tokens", "mountPath": "/tokens", "readOnly": True}], "livenessProbe": probe}
    inside = {"osType": "Linux", "restartPolicy": "Always", "containers": [{"name": "score", "properties": box}]}
    inside["volumes"] = [{"name": "tokens", "secret": {"tokens.json": base64.b64encode(tokens.encode()).decode()}}]
    inside |= {
        "subnetIds": [{"id": asked["SUBNET"]}],
        "ipAddress": {"type": "Private", "ports": [{"port": 8000, "protocol": "TCP"}]},
    }
    address = f"{place}/Microsoft.ContainerInstance/containerGroups/{asked['NAME']}?api-version=2023-05-01"
    call("PUT", address, {"location": asked["REGION"], "properties": inside}, token)
else:
    raise SystemExit(
        f"LOG_SINK={asked['LOG_SINK']}: nothing outlives a container group; write az://…, s3://… or gs://…"
    )
print(f"{asked['NAME']} gets {facts['image']}, the model {facts['model_digest']}")
