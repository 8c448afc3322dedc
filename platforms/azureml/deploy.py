"""Deploy the release in build/release to an endpoint of Azure ML: ``python -m platforms.azureml.deploy``.

AZUREML_TARGET chooses the files: ``managed`` and ``kubernetes`` run the released image, ``server`` runs its score.py in
Azure's own inference server, which logs nothing. README.md here lists the settings. Logins are those of ``az``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from azure.ai.ml import MLClient, load_environment, load_model, load_online_deployment, load_online_endpoint
from azure.core.exceptions import AzureError, ClientAuthenticationError, ResourceNotFoundError
from azure.identity import AzureCliCredential
from marshmallow import ValidationError

from platforms.azureml import rollout, smoke
from platforms.azureml.release import WORK, DeployError, Release, read, server_files

HERE = Path(__file__).parent
TARGETS = ("managed", "kubernetes", "server")
LONGEST_NAME, FEEDBACK = 32, "-feedback"  # of an endpoint; what the second one's name ends with
REMOTE = ("az://", "s3://", "gs://")


def setting(name: str) -> str:
    """Return an environment variable.

    Raises:
        DeployError: it is not set.
    """
    if not (value := os.environ.get(name, "")):
        raise DeployError(f"{name} is not set; platforms/azureml/README.md says what it is")
    return value


def workspace() -> Any:
    """Return the client of the workspace that the environment names.

    Raises:
        DeployError: a name is not set, or there is no such workspace for who is logged in.
    """
    names = ("AZURE_SUBSCRIPTION_ID", "AZUREML_RESOURCE_GROUP", "AZUREML_WORKSPACE")
    values = [setting(name) for name in names]
    client = MLClient(AzureCliCredential(), *values, enable_telemetry=False)
    try:
        client.workspaces.get(values[-1])
    except ResourceNotFoundError as error:
        named = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise DeployError(f"there is no such workspace: {named}; correct what is wrong: {error}") from error
    except ClientAuthenticationError as error:  # also: az is not installed, or nobody is logged in
        raise DeployError(f"az gives no login ({error}); install az, run: az login") from error
    return client


def endpoint_name(target: str) -> str:
    """Return the endpoint's name.

    Raises:
        DeployError: Azure takes no such name, or has no room for the name of the endpoint that takes feedback.
    """
    name = os.environ.get("AZUREML_ENDPOINT") or "closedloop"
    most = LONGEST_NAME - (0 if target == "server" else len(FEEDBACK))
    if not re.fullmatch(r"[a-z](?:-?[a-z0-9]){2,}", name) or len(name) > most:
        raise DeployError(
            f"AZUREML_ENDPOINT={name}: write 3 to {most} small letters, digits and single dashes, a letter first"
        )
    return name


def log_settings() -> dict[str, str]:
    """Return the settings of the log, which must leave an instance within seconds.

    Raises:
        DeployError: LOG_SINK names no object store.
    """
    sink = os.environ.get("LOG_SINK", "")
    if not sink.startswith(REMOTE):
        raise DeployError(
            f"LOG_SINK={sink or 'not set'}: no volume outlives an instance of Azure ML, so the log needs an object "
            "store; write az://container/path, s3://… or gs://…"
        )
    found = {"LOG_SINK": sink, "AZURE_STORAGE_ACCOUNT_NAME": os.environ.get("LOG_AZURE_ACCOUNT", "")}
    if secret := os.environ.get("AZUREML_SINK_SECRET", ""):
        found["AZURE_STORAGE_SAS_TOKEN"] = f"${{{{keyvault:{secret}}}}}"  # Azure reads it when an instance starts
    return {name: value for name, value in found.items() if value}


def overrides(release: Release, target: str, environment: str) -> dict[str, Any]:
    """Return what of deployment.yml is the release's or this workspace's."""
    found: dict[str, Any] = {
        "model": f"azureml:closedloop:{release.version}",
        "environment": f"azureml:{environment}",
        "tags": {"image": release.image_at(""), "commit": release.commit, "bundle": release.bundle_digest},
    }
    if target == "server":
        code, _ = server_files(HERE.parents[1])
        return found | {"code_configuration": {"code": str(code.resolve()), "scoring_script": "score/score.py"}}
    settings = log_settings() | {"IMAGE": release.image}
    return found | {f"environment_variables.{name}": value for name, value in settings.items()}


def deployment(release: Release, target: str, endpoint: str, environment: str) -> Any:
    """Return the deployment of a release; its name is a digest of all that it is."""
    file = HERE / target / "deployment.yml"
    found = overrides(release, target, environment) | {"endpoint_name": endpoint}
    content = json.dumps([file.read_text(encoding="utf-8"), found], sort_keys=True)
    found["name"] = f"r{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    return load_online_deployment(file, params_override=[found])


def register(client: Any, release: Release) -> None:
    """Register the bundle as a model, unless it is there."""
    try:
        client.models.get("closedloop", version=release.version)
    except ResourceNotFoundError:
        tags = {"bundle_digest": release.bundle_digest, "commit": release.commit}
        found = {"version": release.version, "tags": tags, "path": str((WORK / "bundle").resolve())}
        print(f"registering the model closedloop:{release.version}")
        client.models.create_or_update(load_model(HERE / "model.yml", params_override=[found]))


def environment(client: Any, release: Release, target: str, route: str) -> str:
    """Register the environment of a target for a route, unless it is there; return its name and version."""
    found: dict[str, Any]
    if target == "server":
        file = HERE / "server/environment.yml"
        _, context = server_files(HERE.parents[1])
        files = b"".join(path.read_bytes() for path in sorted(context.iterdir()))
        found = {"version": hashlib.sha256(files).hexdigest()[:16], "build.path": str(context.resolve())}
    else:
        file = HERE / "environment.yml"
        image = release.image_at(os.environ.get("AZUREML_IMAGE", ""))
        digest = hashlib.sha256(f"{file.read_text(encoding='utf-8')}{image}{route}".encode())
        found = {"version": digest.hexdigest()[:16], "image": image}
        found["inference_config.scoring_route.path"] = route
    wanted = load_environment(file, params_override=[found])
    try:
        client.environments.get(wanted.name, version=wanted.version)
    except ResourceNotFoundError:
        print(f"registering the environment {wanted.name}:{wanted.version}")
        client.environments.create_or_update(wanted)
    return f"{wanted.name}:{wanted.version}"


def serve(client: Any, release: Release, target: str, name: str, route: str) -> None:
    """Have an endpoint serve a route of the release, or what it served before."""
    endpoint = load_online_endpoint(HERE / target / "endpoint.yml", params_override=[{"name": name}])
    wanted = deployment(release, target, name, environment(client, release, target, route))

    def check(there: Any, one: str) -> str | None:
        return smoke.patient(smoke.Asked(there.scoring_uri, key_of(client, name), one), release, route)

    rollout.roll(client, endpoint, wanted, check)


def needs_second(client: Any, name: str) -> bool:
    """Whether feedback takes an endpoint of its own; one that is there is never left with an older release."""
    if rollout.settled(lambda: client.online_endpoints.get(f"{name}{FEEDBACK}")) is not None:
        return True
    there = client.online_endpoints.get(name)
    return not smoke.passes_on(smoke.Asked(there.scoring_uri, key_of(client, name)))


def key_of(client: Any, name: str) -> str:
    """Return the key, or the token, that an endpoint asks for."""
    keys = client.online_endpoints.get_keys(name)
    return str(getattr(keys, "primary_key", None) or keys.access_token)


def deploy() -> None:
    """Deploy the release; a second endpoint takes feedback where the first one passes on its scoring route alone."""
    target = setting("AZUREML_TARGET")
    if target not in TARGETS:
        raise DeployError(f"AZUREML_TARGET={target}: choose among {', '.join(TARGETS)}")
    if target != "server":
        log_settings()  # before anything is made
    name = endpoint_name(target)
    release, client = read(), workspace()
    register(client, release)
    serve(client, release, target, name, "/score")
    if target == "server":
        print("nothing is logged: Azure's own server has no log that the next model could learn from")
    elif needs_second(client, name):
        print(f"{name}{FEEDBACK} takes feedback, since {name} passes on /score alone")
        serve(client, release, target, f"{name}{FEEDBACK}", "/feedback")
    else:
        print(f"{name} takes /feedback too")


def main() -> int:
    """Deploy, and return the exit code; 1: it failed, and the message says why, and what is served."""
    try:
        deploy()
    except (DeployError, AzureError, ValidationError) as error:  # the last: of a file beside this one
        print(f"platforms.azureml.deploy: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
