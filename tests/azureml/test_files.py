"""The files of platforms/azureml are what Azure's own libraries read, without a field that they do not know."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml import load_environment, load_model, load_online_deployment, load_online_endpoint
from azure.mgmt.containerinstance import models as aci

HERE = Path(__file__).resolve().parents[2] / "platforms/azureml"
LOADERS = {
    "endpoint.yml": load_online_endpoint,
    "deployment.yml": load_online_deployment,
    "environment.yml": load_environment,
    "model.yml": load_model,
}
FILES = sorted(path.relative_to(HERE).as_posix() for path in HERE.rglob("*.yml"))
TARGETS = ("managed", "kubernetes", "server")


def faults(file: str, content: dict[str, Any]) -> Iterator[str]:
    """What Azure's library or our rules say against the content of a file."""
    if file == "aci/group.yml":
        yield from of_group(content)
        return
    kind = file.rpartition("/")[2]
    try:
        loaded = LOADERS[kind](io.StringIO(yaml.safe_dump(content)), relative_origin=str(HERE / file))
    except Exception as error:  # noqa: BLE001 - the SDK raises its own, marshmallow's and more
        yield f"the SDK: {error}"
        return
    yield from RULES[kind](file, content, loaded)


def of_endpoint(file: str, content: dict[str, Any], loaded: Any) -> Iterator[str]:
    """The key is asked for, and no traffic is given by a file."""
    if content.get("auth_mode") != "key":
        yield "the smoke test has a key"
    if content.get("traffic") or content.get("mirror_traffic"):
        yield "deploy.py alone gives traffic"
    if (type(loaded).__name__ == "KubernetesOnlineEndpoint") != file.startswith("kubernetes/"):
        yield "an endpoint of another kind"


def of_deployment(file: str, content: dict[str, Any], loaded: Any) -> Iterator[str]:
    """The log leaves the instance, the platform asks for the key, and nothing keeps requests a second time."""
    given = content.get("environment_variables", {})
    if content.get("app_insights_enabled") is not False:
        yield "App Insights would keep requests that no erasure reaches"
    if "data_collector" in content:
        yield "Azure's collector would keep requests that no erasure reaches"
    if not str(content.get("environment", "")).startswith("azureml:"):
        yield "an environment that deploy.py does not register"
    if (type(loaded).__name__ == "KubernetesOnlineDeployment") != file.startswith("kubernetes/"):
        yield "a deployment of another kind"
    if content.get("request_settings", {}).get("request_timeout_ms", 5000) < 30_000:
        yield "a large batch takes longer than that"
    if file.startswith("server/"):
        if given:
            yield "score.py reads no settings of the service"
        return
    if given.get("AUTH") != "platform":
        yield "the endpoint's key is in Authorization, or nobody asks for one"
    if given.get("LOG_VOLUME") != "ephemeral":
        yield "the log would end with the instance"
    if set(given) & {"LOG_SINK", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "MODEL_DIR"}:
        yield "deploy.py gives it, and no secret is in a file"
    if "code_configuration" in content:
        yield "the image has its code inside"


def of_environment(file: str, content: dict[str, Any], loaded: Any) -> Iterator[str]:
    """The routes are the service's, and the image is the release's."""
    routes = content["inference_config"]
    ports = {one["port"] for one in routes.values()}
    paths = [routes[name]["path"] for name in ("liveness_route", "readiness_route", "scoring_route")]
    server = file.startswith("server/")
    if ports != {5001 if server else 8000}:
        yield "another port than the server's"
    if paths != (["/", "/", "/score"] if server else ["/livez", "/readyz", "/score"]):
        yield "other routes than the server's"
    if not server and content.get("image") != "closedloop":
        yield "deploy.py writes the image with its digest"
    if "conda_file" in content:
        yield "libraries without hashes"


def of_model(file: str, content: dict[str, Any], loaded: Any) -> Iterator[str]:
    """The bundle, as it is."""
    if content.get("type") != "custom_model":
        yield "a bundle is no model of MLflow or Triton"


RULES: dict[str, Callable[[str, dict[str, Any], Any], Iterator[str]]] = {
    "endpoint.yml": of_endpoint,
    "deployment.yml": of_deployment,
    "environment.yml": of_environment,
    "model.yml": of_model,
}


def unknown(content: Any, model: Any, where: str = "") -> Iterator[str]:
    """The fields that a model of Azure's library does not have, by its own map of names and types."""
    for key, value in content.items():
        fields = {one["key"].replace("\\\\.", "."): one["type"] for one in model._attribute_map.values()}
        inner = {name.partition(".")[2]: kind for name, kind in fields.items() if name.startswith(f"{key}.")}
        if inner and isinstance(value, dict):
            for name, one in value.items():
                if name not in inner:
                    yield f"{where}{key}.{name}"
                else:
                    yield from below(one, inner[name], f"{where}{key}.{name}.")
        elif key not in fields:
            yield f"{where}{key}"
        else:
            yield from below(value, fields[key], f"{where}{key}.")


def below(value: Any, kind: str, where: str) -> Iterator[str]:
    """The unknown fields of a value of a type by its name."""
    name = kind.strip("[]{}")
    model = getattr(aci, name, None)
    if not hasattr(model, "_attribute_map"):
        return
    values = value if kind.startswith("[") else list(value.values()) if kind.startswith("{") else [value]
    for one in values:
        yield from unknown(one, model, where)


def of_group(content: dict[str, Any]) -> Iterator[str]:
    """A group that Azure's library knows, closed to the internet, with a log that leaves it."""
    rest = {key: value for key, value in content.items() if key not in ("apiVersion", "name", "type")}
    yield from (f"unknown: {one}" for one in unknown(rest, aci.ContainerGroup))
    (box,) = content["properties"]["containers"]
    given = {one["name"]: one.get("value") for one in box["properties"]["environmentVariables"]}
    if content["properties"].get("ipAddress", {}).get("type") != "Private":
        yield "tokens would cross the internet in plain text"
    if given.get("AUTH") != "tokens":
        yield "nobody else asks for a token here"
    if given.get("LOG_VOLUME") != "ephemeral":
        yield "the log would end with the group"
    probes = [
        box["properties"].get(name, {}).get("httpGet", {}).get("path") for name in ("livenessProbe", "readinessProbe")
    ]
    if probes != ["/livez", "/readyz"]:
        yield "other probes than the service's"
    if content["properties"].get("restartPolicy") != "Always":
        yield "a service that ends is not started again"


def test_every_file_is_known_to_this_test() -> None:
    assert {name.rpartition("/")[2] for name in FILES} == {*LOADERS, "group.yml"}
    assert {name.partition("/")[0] for name in FILES if name.endswith("deployment.yml")} == set(TARGETS)


@pytest.mark.parametrize("file", FILES)
def test_azures_own_library_reads_the_file_and_we_agree(file: str) -> None:
    assert list(faults(file, yaml.safe_load((HERE / file).read_text(encoding="utf-8")))) == []


def put(*path: str | int, value: Any = None) -> Callable[[dict[str, Any]], None]:
    """Set a value of a file, or take it out."""

    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        if value is None:
            del content[path[-1]]
        else:
            content[path[-1]] = value

    return change


BOX = ("properties", "containers", 0, "properties")
SLIPS = {
    "a misspelt field of a deployment": ("managed/deployment.yml", put("instance_cuont", value=2)),
    "a misspelt probe": ("managed/deployment.yml", put("liveness_probe", "inital_delay", value=5)),
    "a misspelt field of an endpoint": ("managed/endpoint.yml", put("auth_mod", value="key")),
    "an authentication that Azure does not have": ("managed/endpoint.yml", put("auth_mode", value="open")),
    "no instance type": ("managed/deployment.yml", put("instance_type")),
    "words for a number": ("kubernetes/deployment.yml", put("instance_count", value="two")),
    "a cluster without a name": ("kubernetes/endpoint.yml", put("compute", value="")),
    "the wrong kind of deployment": ("kubernetes/deployment.yml", put("type", value="managed")),
    "traffic in a file": ("managed/endpoint.yml", put("traffic", value={"release": 100})),
    "an open service": ("managed/deployment.yml", put("environment_variables", "AUTH", value="open")),
    "tokens behind a key": ("kubernetes/deployment.yml", put("environment_variables", "AUTH", value="tokens")),
    "a log that stays": ("managed/deployment.yml", put("environment_variables", "LOG_VOLUME")),
    "a secret in a file": (
        "managed/deployment.yml",
        put("environment_variables", "AZURE_STORAGE_SAS_TOKEN", value="sig=1"),
    ),
    "requests in App Insights": ("managed/deployment.yml", put("app_insights_enabled", value=True)),
    "a timeout of five seconds": ("managed/deployment.yml", put("request_settings", "request_timeout_ms", value=5000)),
    "another probe": ("environment.yml", put("inference_config", "readiness_route", "path", value="/livez")),
    "another port": ("environment.yml", put("inference_config", "scoring_route", "port", value=5001)),
    "no scoring route": ("environment.yml", put("inference_config", "scoring_route")),
    "an image by its tag": ("environment.yml", put("image", value="ghcr.io/o/r:latest")),
    "libraries by conda": ("server/environment.yml", put("conda_file", value={"dependencies": ["python=3.13"]})),
    "settings that score.py does not read": ("server/deployment.yml", put("environment_variables", value={"A": "1"})),
    "a model of MLflow": ("model.yml", put("type", value="mlflow_model")),
    "a misspelt field of a group": ("aci/group.yml", put("properties", "restartPolcy", value="Always")),
    "a misspelt field of a container": ("aci/group.yml", put(*BOX, "livenesProbe", value={})),
    "a public address": ("aci/group.yml", put("properties", "ipAddress", "type", value="Public")),
    "an open group": ("aci/group.yml", put(*BOX, "environmentVariables", 0, "value", value="open")),
    "a group whose log ends with it": ("aci/group.yml", put(*BOX, "environmentVariables", 2, "value", value="kept")),
    "a group that stays down": ("aci/group.yml", put("properties", "restartPolicy", value="Never")),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_planted_slip_is_refused(slip: str) -> None:
    assert len(SLIPS) >= 20
    file, change = SLIPS[slip]
    content = copy.deepcopy(yaml.safe_load((HERE / file).read_text(encoding="utf-8")))
    change(content)
    assert list(faults(file, content)) != []


def test_the_servers_image_is_the_one_of_the_service() -> None:
    """One Python for both, so that their answers are the same bits."""
    bases = [
        re.search(r"^FROM (python:\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in (HERE / "server/Dockerfile", HERE.parents[1] / "docker/Dockerfile")
    ]
    assert bases[0] is not None
    assert bases[1] is not None
    assert bases[0][1] == bases[1][1]
