# Databricks notebook source
# MAGIC %md
# MAGIC # Serve a release on Azure Container Instances or AKS
# MAGIC This runs the image of a release by its digest. It is for a try-out beside the pipeline: the releases on GitHub
# MAGIC stay the truth about what is served. Nothing outlives a container group, so its log goes to `LOG_SINK` every two
# MAGIC seconds. `CREDENTIAL` is a service credential of Unity Catalog that may write to the resource group. `TOKENS` is
# MAGIC a secret, as scope/key, with the content of `AUTH_TOKENS_FILE`.

# COMMAND ----------
"""Serve a release: TARGET is aci or aks, and the other widgets say which release and where."""

import base64
import io
import json
import re
import urllib.request
import zipfile

NAMES = ("REPOSITORY", "RELEASE", "TARGET", "SUBSCRIPTION", "GROUP", "NAME", "REGION", "SUBNET", "LOG_SINK")
notebook = dbutils  # noqa: F821 - Databricks gives it to a notebook
asked = {name: notebook.widgets.get(name) for name in (*NAMES, "OVERLAY", "CREDENTIAL", "TOKENS")}
azure, github = "https://management.azure.com", "https://api.github.com"


def call(method: str, address: str, content: object = None, token: str = "", accept: str = "application/json") -> bytes:
    """Return what a server answers; an error is its own."""
    body = None if content is None else json.dumps(content).encode()
    head = {"Accept": accept, "Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    request = urllib.request.Request(address, body, head, method=method)  # noqa: S310 - https, above
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


release = json.loads(call("GET", f"{github}/repos/{asked['REPOSITORY']}/releases/tags/{asked['RELEASE']}"))
found = re.search(r"```json\n(\{\n \"closedloop\": .*?\n\})\n```", release["body"].replace("\r\n", "\n"), re.DOTALL)
facts = json.loads(found[1]) if found else {}
by_digest = re.search(r"@sha256:[0-9a-f]{64}$", facts.get("image", ""))
if release["draft"] or facts.get("withdrawn") or not by_digest:
    raise SystemExit(f"{asked['RELEASE']} is a draft, was withdrawn or has no image by digest: choose another release")
credential = notebook.credentials.getServiceCredentialsProvider(asked["CREDENTIAL"])
token = credential.get_token(f"{azure}/.default").token
place = f"{azure}/subscriptions/{asked['SUBSCRIPTION']}/resourceGroups/{asked['GROUP']}/providers"
if asked["TARGET"] == "aks":  # the release's own manifests, which name the image by digest
    name = f"manifests-{asked['OVERLAY']}.yaml"
    asset = next(one for one in release["assets"] if one["name"] == name)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, call("GET", asset["url"], accept="application/octet-stream"))
    run = {"command": f"kubectl apply -f {name}", "context": base64.b64encode(packed.getvalue()).decode()}
    address = f"{place}/Microsoft.ContainerService/managedClusters/{asked['NAME']}/runCommand?api-version=2024-09-01"
    call("POST", address, run, token)
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
