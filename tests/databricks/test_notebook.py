"""The cell that serves a release from a notebook: by digest, with a log that outlives the group, none withdrawn."""

from __future__ import annotations

import base64
import io
import json
import time
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


class Widgets:
    """The fields of a notebook: one that was not made cannot be read."""

    def __init__(self, filled):
        self.filled, self.made = filled, set()

    def text(self, name, default):
        self.made.add(name)

    def dropdown(self, name, default, choices):
        assert self.filled[name] in choices
        self.made.add(name)

    def get(self, name):
        if name not in self.made:
            raise KeyError(f"InputWidgetNotDefined: no input widget named {name} is defined")
        return self.filled[name]


class Answer(io.BytesIO):
    """What Azure answers; 202 means that it is still busy."""

    def __init__(self, content=None, status=200, **headers):
        super().__init__(b"" if content is None else json.dumps(content).encode())
        self.status, self.headers = status, headers


def of_azure(request, exit_code, entra):
    if "/commandResults/" in request.full_url:
        return Answer({"id": "1", "properties": {"exitCode": exit_code, "logs": "statefulset configured"}})
    if "/runCommand" in request.full_url:
        return Answer(status=202, Location="https://management.azure.com/commandResults/1")
    return Answer({"properties": {"aadProfile": entra}})


@pytest.fixture
def serve(monkeypatch):
    """Run the cell with other widgets and facts; what Azure was asked, as (method, address, content)."""

    def run(facts=(), entra=False, exit_code=0, **widgets):
        known = {"closedloop": 2, "image": IMAGE, "model_digest": "sha256:m", "withdrawn": None} | dict(facts)
        body = f"Text\n\n```json\n{json.dumps(known, indent=1)}\n```"
        release = {"body": body, "draft": False, "assets": [{"name": "manifests-azure.yaml", "url": "https://x/asset"}]}
        asked = []

        def answer(request, timeout):
            content = json.loads(request.data) if request.data else None
            if "management.azure.com" in request.full_url:
                assert request.headers["Authorization"] == "Bearer of-azure"
                asked.append((request.method, request.full_url, content))
                return of_azure(request, exit_code, {"managed": True} if entra else None)
            assert "Authorization" not in request.headers
            said = b"kind: StatefulSet" if request.full_url.endswith("asset") else json.dumps(release).encode()
            return io.BytesIO(said)

        monkeypatch.setattr(urllib.request, "urlopen", answer)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        of = {"https://management.azure.com/.default": "of-azure"}
        login = SimpleNamespace(get_token=lambda scope: SimpleNamespace(token=of.get(scope, f"of {scope}")))
        dbutils = SimpleNamespace(
            widgets=Widgets(ASKED | widgets),
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


@pytest.mark.parametrize("entra", [False, True])
def test_a_cluster_gets_the_manifests_of_the_release(serve, entra):
    _, (method, address, content), (last, _, _) = serve(TARGET="aks", entra=entra)
    assert (method, last) == ("POST", "GET")
    assert content.get("clusterToken") == ("of 6dae42f8-4368-4678-94ff-3960e28e3630/.default" if entra else None)
    assert "/managedClusters/score/runCommand?" in address
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(content["context"])))
    assert archive.read("manifests-azure.yaml") == b"kind: StatefulSet"
    assert content["command"] == "kubectl apply -f manifests-azure.yaml"


def test_a_kubectl_that_fails_is_no_success(serve, capsys):
    with pytest.raises(SystemExit, match="kubectl ended with 1"):
        serve(TARGET="aks", exit_code=1)
    assert "statefulset configured" in capsys.readouterr().out


@pytest.mark.parametrize(("target", "named"), [("aci", "REGION, SUBNET"), ("aks", "OVERLAY")])
def test_what_is_not_filled_in_is_named(serve, target, named):
    with pytest.raises(SystemExit, match=f"run this cell again: {named}$"):
        serve(TARGET=target, REGION="", SUBNET="", OVERLAY="")


@pytest.mark.parametrize("facts", [{"withdrawn": "2026-01-01"}, {"image": "ghcr.io/someone/fleet:latest"}])
def test_what_was_withdrawn_or_has_no_digest_is_not_served(serve, facts):
    with pytest.raises(SystemExit, match="choose another release"):
        serve(facts)


def test_a_log_that_would_end_with_the_group_is_refused(serve):
    with pytest.raises(SystemExit, match="nothing outlives a container group"):
        serve(LOG_SINK="/var/log")
