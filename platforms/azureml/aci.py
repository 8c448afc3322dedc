"""Run the release in build/release as one container group of Azure: ``python3 platforms/azureml/aci.py``.

The group is replaced in place, with an outage of about a minute: it has one address and no second deployment. What is
served is its tag ``served``, set after the smoke test; a run that was stopped anywhere is completed by the next one, or
that gives back what the tag names. README.md here says what such a group can lose. Logins are those of ``az``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FILES = Path("build/release")
GROUP_FILE = Path(__file__).with_name("aci") / "group.yml"
NOT_FOUND = 3  # the exit code of `az … show` for what is not there
DONE = "Succeeded"
PAUSES_SECONDS = (2, 5, 10, 20, 40, 40, 0)
REMOTE = ("az://", "s3://", "gs://")


class AciError(Exception):
    """A command failed, a setting is missing or the release does not serve; the message says how to fix it."""


def setting(name: str) -> str:
    """Return an environment variable.

    Raises:
        AciError: it is not set.
    """
    if not (value := os.environ.get(name, "")):
        raise AciError(f"{name} is not set; platforms/azureml/README.md says what it is")
    return value


def az(*words: str, asks: bool = False) -> Any:
    """Return what a command of az prints as JSON; None where it asks for something that is not there.

    Raises:
        AciError: it failed.
    """
    try:
        command = ["az", *words, "--output", "json", "--only-show-errors"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise AciError("az is not on PATH; install it, and run: az login") from None
    if asks and done.returncode == NOT_FOUND:  # elsewhere it is the resource group that is not there
        return None
    if done.returncode:
        said = " ".join(done.stderr.split())[:500]
        raise AciError(f"az {' '.join(words[:2])}: {said or f'exit code {done.returncode}'}; fix that and run it again")
    return json.loads(done.stdout) if done.stdout.strip() else None


def group(image: str, served: str) -> dict[str, Any]:
    """Return what `az container create` gets: group.yml with the image and this place's settings.

    Raises:
        AciError: a setting is missing, or the log would end with the group.
    """
    sink = setting("LOG_SINK")
    if not sink.startswith(REMOTE):
        raise AciError(
            f"LOG_SINK={sink}: nothing outlives a container group; write az://container/path, s3://… or gs://…"
        )
    made: dict[str, Any] = yaml.safe_load(GROUP_FILE.read_text(encoding="utf-8"))
    made |= {"name": name(), "location": os.environ.get("ACI_LOCATION") or made["location"]}
    inside = made["properties"]
    inside["subnetIds"] = [{"id": setting("ACI_SUBNET")}]
    box = inside["containers"][0]["properties"]
    box["image"] = image
    given = {"LOG_SINK": sink, "IMAGE": image, "AZURE_STORAGE_ACCOUNT_NAME": os.environ.get("LOG_AZURE_ACCOUNT", "")}
    box["environmentVariables"] += [{"name": key, "value": value} for key, value in given.items() if value]
    if secret := os.environ.get("AZURE_STORAGE_SAS_TOKEN", ""):
        box["environmentVariables"].append({"name": "AZURE_STORAGE_SAS_TOKEN", "secureValue": secret})
    if identity := os.environ.get("ACI_IDENTITY", ""):
        made["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}
        if registry := os.environ.get("ACI_REGISTRY", ""):
            inside["imageRegistryCredentials"] = [{"server": registry, "identity": identity}]
    tokens = base64.b64encode(setting("ACI_TOKENS").encode()).decode()  # Azure wants it so
    inside["volumes"][0]["secret"] = {"tokens.json": tokens}
    content = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    made["tags"] = {"content": content} | ({"served": served} if served else {})
    return made


def name() -> str:
    """Return the group's name."""
    return os.environ.get("ACI_NAME") or "closedloop"


def show() -> dict[str, Any] | None:
    """Return the group as it is; None where there is none."""
    found = az("container", "show", "--resource-group", setting("ACI_RESOURCE_GROUP"), "--name", name(), asks=True)
    return None if found is None else dict(found)


def create(image: str, served: str) -> None:
    """Make or replace the group. The file with its secrets is readable by this user alone, and goes afterwards."""
    with written(group(image, served)) as path:
        az("container", "create", "--resource-group", setting("ACI_RESOURCE_GROUP"), "--file", path)


@contextlib.contextmanager
def written(content: dict[str, Any]) -> Iterator[str]:
    """Yield the path of a file that this user alone may read."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:  # mode 0600
        yaml.safe_dump(content, file, sort_keys=False)
        file.flush()
        yield file.name


def image_of(found: dict[str, Any] | None) -> str:
    """Return the image of a group; empty without one."""
    return str(found["containers"][0]["image"]) if found else ""


def fault(found: dict[str, Any], model: str) -> str | None:
    """Return what is wrong with what a group serves; None once its answer names the model."""
    if not (address := (found.get("ipAddress") or {}).get("ip")):
        return f"the smoke test failed: the group {name()} has no address"
    url = f"http://{address}:8000"
    said: str | None = None
    for pause in PAUSES_SECONDS:
        said = ask(url, model)
        if said is None or not pause:
            break
        time.sleep(pause)
    return said


def ask(url: str, model: str) -> str | None:
    """Return what is wrong with a group's answers; None if nothing is."""
    try:
        for path in ("/readyz", "/version"):
            with urllib.request.urlopen(url + path, timeout=10) as answer:  # noqa: S310
                body = answer.read()
        serves = json.loads(body).get("model_digest")
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
        return f"the smoke test failed: {url}: {type(error).__name__}: {error}"
    return None if serves == model else f"the smoke test failed: {url}/version has the model {serves}, not {model}"


def release() -> tuple[str, str]:
    """Return the image and the model's digest of the release in build/release.

    Raises:
        AciError: there is none, it is not whole, or nobody can say which image it is.
    """
    again = "fetch a release: make release-fetch RELEASE=tag"
    try:
        facts = json.loads((FILES / "facts.json").read_text(encoding="utf-8"))
        image, model = str(facts["image"]), str(facts["model_digest"])
    except FileNotFoundError as error:
        raise AciError(f"{error.filename} is missing; {again}") from None
    except KeyError as error:
        raise AciError(f"{FILES}/facts.json does not say {error}; {again}") from None
    except (ValueError, TypeError) as error:
        raise AciError(f"{FILES}/facts.json cannot be read ({error}); {again}") from None
    if (place := os.environ.get("ACI_IMAGE", "")) and "@" in place:
        raise AciError(f"ACI_IMAGE={place}: write the name alone; the digest is the release's")
    image = f"{place}@{image.rpartition('@')[2]}" if place else image
    if "@sha256:" not in image:
        raise AciError(f"the release's image {image!r} has no digest, so nobody can say what would run")
    return image, model


def deploy() -> None:
    """Have the group serve the release, or what it served before.

    Raises:
        AciError: a command failed, or the release does not serve; what was served before is there again, where any was.
    """
    image, model = release()
    wanted = group(image, "")["tags"]["content"]  # a wrong setting is refused before anything is replaced
    found = show()
    tags = (found or {}).get("tags") or {}
    served = str(tags.get("served", "")) or image_of(found)
    try:
        if tags.get("content") != wanted:
            create(image, served)
            found = show()
        said = fault(found or {}, model)
    except AciError as error:  # a quota or a registry may refuse it after Azure took down what ran before
        said = str(error)
    if said:
        raise AciError(f"{said}; {back(served, image)}")
    if ((found or {}).get("tags") or {}).get("served") != image:
        here = ("--resource-group", setting("ACI_RESOURCE_GROUP"), "--name", name())
        at = ("--resource-type", "Microsoft.ContainerInstance/containerGroups")
        az("resource", "tag", *here, *at, "--is-incremental", "--tags", f"served={image}")
    print(f"{name()} serves {image}")


def back(served: str, image: str) -> str:
    """Have the group run what was served before; return what runs then, for a person."""
    if served in ("", image):
        return "no other release was served before that could run instead"
    try:
        found = show()
        if image_of(found) == served and (found or {}).get("provisioningState", DONE) == DONE:
            return f"{served} still runs"  # the new one was refused before anything was replaced
        create(served, served)
    except AciError as error:
        return f"going back to {served} failed too ({error}); what runs now is unknown: run it again"
    return f"{served} runs again"


def main() -> int:
    """Deploy, and return the exit code; 1: it failed, and the message says what runs now."""
    try:
        deploy()
    except AciError as error:
        print(f"platforms.azureml.aci: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
