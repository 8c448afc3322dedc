"""The cell that serves a release from a notebook: by digest, with a log that outlives the group, none withdrawn."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "platforms/databricks/serve_release.py"
CELL = NOTEBOOK.read_text(encoding="utf-8").split("# COMMAND ----------")[-1]
IMAGE = "ghcr.io/someone/fleet@sha256:" + "a" * 64
ASKED = {
    "REPOSITORY": "someone/fleet",
    "RELEASE": "v7",
    "TARGET": "aci",
    "SUBSCRIPTION": "sub",
    "GROUP": "rg",
    "NAME": "score",
    "REGION": "westeurope",
    "SUBNET": "/subnets/x",
    "LOG_SINK": "az://log/fleet",
    "OVERLAY": "azure",
    "CREDENTIAL": "may-deploy",
    "TOKENS": "closedloop/tokens",
}


@pytest.fixture
def serve(monkeypatch):
    """Run the cell with other widgets and facts; what Azure was asked, as (method, address, content)."""

    def run(facts=(), **widgets):
        known = {"closedloop": 2, "image": IMAGE, "model_digest": "sha256:m", "withdrawn": None} | dict(facts)
        body = f"Text\n\n```json\n{json.dumps(known, indent=1)}\n```"
        release = {"body": body, "draft": False, "assets": [{"name": "manifests-azure.yaml", "url": "https://x/asset"}]}
        asked = []

        def answer(request, timeout):
            content = json.loads(request.data) if request.data else None
            if "management.azure.com" in request.full_url:
                assert request.headers["Authorization"] == "Bearer of-azure"
                asked.append((request.method, request.full_url, content))
            else:
                assert "Authorization" not in request.headers
            said = b"kind: StatefulSet" if request.full_url.endswith("asset") else json.dumps(release).encode()
            return io.BytesIO(said)

        monkeypatch.setattr(urllib.request, "urlopen", answer)
        login = SimpleNamespace(get_token=lambda scope: SimpleNamespace(token="of-azure"))  # noqa: S106
        dbutils = SimpleNamespace(
            widgets=SimpleNamespace(get=(ASKED | widgets).__getitem__),
            secrets=SimpleNamespace(get=lambda scope, key: '{"tokens": []}'),
            credentials=SimpleNamespace(getServiceCredentialsProvider=lambda name: login),
        )
        exec(compile(CELL, str(NOTEBOOK), "exec"), {"dbutils": dbutils})  # noqa: S102 - it is our own
        return asked

    return run


def test_a_container_group_runs_the_released_image_and_ships_its_log(serve):
    ((method, address, content),) = serve()
    assert method == "PUT"
    assert "/resourceGroups/rg/providers/Microsoft.ContainerInstance/containerGroups/score?" in address
    box = content["properties"]["containers"][0]["properties"]
    assert box["image"] == IMAGE
    values = {one["name"]: one["value"] for one in box["environmentVariables"]}
    assert values["LOG_VOLUME"] == "ephemeral"
    assert values["LOG_SINK"] == "az://log/fleet"
    assert content["properties"]["ipAddress"]["type"] == "Private"  # it has no TLS of its own


def test_a_cluster_gets_the_manifests_of_the_release(serve):
    ((method, address, content),) = serve(TARGET="aks")
    assert method == "POST"
    assert "/managedClusters/score/runCommand?" in address
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(content["context"])))
    assert archive.read("manifests-azure.yaml") == b"kind: StatefulSet"
    assert content["command"] == "kubectl apply -f manifests-azure.yaml"


@pytest.mark.parametrize("facts", [{"withdrawn": "2026-01-01"}, {"image": "ghcr.io/someone/fleet:latest"}])
def test_what_was_withdrawn_or_has_no_digest_is_not_served(serve, facts):
    with pytest.raises(SystemExit, match="choose another release"):
        serve(facts)


def test_a_log_that_would_end_with_the_group_is_refused(serve):
    with pytest.raises(SystemExit, match="nothing outlives a container group"):
        serve(LOG_SINK="/var/log")
