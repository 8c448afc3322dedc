"""Write the software bill of materials of the image as CycloneDX: ``make sbom`` writes build/sbom.json.

It lists every Python package that is found in the image, with the hashes that the lock allows, and the model with its
digest and training data. The same image gives the same bytes. System packages of the base image are not listed; the
vulnerability scan reads those.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build/sbom.json"
# Runs inside the image: prints its packages and its bundle's manifest.
ASK = r"""
import importlib.metadata as m, json, os, pathlib, platform, re
def plain(name):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()
def about(d):
    needs = {plain(r) for r in d.requires or [] if "extra ==" not in r}
    says = d.metadata.get("License-Expression") or ""
    return {"name": plain(d.metadata["Name"]), "version": d.version, "license": says, "needs": sorted(needs)}
home = [p for p in __import__("sys").path if p.startswith("/opt/venv")]
found = sorted((about(d) for d in m.distributions(path=home)), key=lambda x: x["name"])
manifest = json.loads(pathlib.Path(os.environ["MODEL_DIR"], "manifest.json").read_text())
print(json.dumps({"python": platform.python_version(), "packages": found, "manifest": manifest}))
"""


class DiffersError(Exception):
    """The image's packages are not those of the lock; the message has one line for each difference."""


def locked(path: Path, python: str) -> dict[str, tuple[str, list[str]]]:
    """Return the packages that a lock requires on Linux with this Python: name to version and hashes."""
    environment = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    environment |= {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    found = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        pin, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
        requirement = Requirement(pin)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found[requirement.name] = (str(requirement.specifier).removeprefix("=="), hashes)
    return found


def differences(lock: dict[str, tuple[str, list[str]]], packages: dict[str, str], own: str) -> list[str]:
    """Return a line for each difference between an image's packages and the lock; our own wheel is in no lock."""
    lost = [f"{name}=={lock[name][0]} is locked and not in the image" for name in set(lock) - set(packages)]
    other = [
        f"{name}=={packages[name]} is in the image, {version} is locked"
        for name, (version, _) in lock.items()
        if packages.get(name, version) != version
    ]
    extra = [f"{name}=={packages[name]} is in the image and not locked" for name in set(packages) - set(lock) - {own}]
    return sorted(lost + other + extra)


def model(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the bundle as a component: its digests, and what it was trained on."""
    training = manifest["training"]
    heads = manifest["heads"]
    failure = [name for name, head in heads["failure"].items() if head]
    approaches = [*(["unsupervised"] if heads["anomaly"] else []), *(["supervised"] if failure else [])]
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": "bundle",
        "version": manifest["bundle_digest"],
        "description": f"Anomaly score and failure probabilities of {', '.join(failure) or 'no component'}",
        "properties": [
            {"name": "closedloop:bundle-digest", "value": manifest["bundle_digest"]},
            {"name": "closedloop:model-digest", "value": manifest["model_digest"]},
            {"name": "closedloop:commit", "value": str(manifest["provenance"]["commit"])},
        ],
        "modelCard": {
            "modelParameters": {
                "task": "anomaly detection and failure prediction",
                "approach": {"type": approaches[-1]} if approaches else {},
                "datasets": [
                    {
                        "type": "dataset",
                        "name": f"five tables, {training['period'][0]} to {training['period'][1]}",
                        "contents": {
                            "properties": [{"name": "closedloop:fingerprint", "value": training["fingerprint"]}]
                        },
                    }
                ],
            }
        },
    }


def library(package: dict[str, Any], lock: dict[str, tuple[str, list[str]]]) -> dict[str, Any]:
    """Return an installed package as a component, with the hashes that the lock allows."""
    name, version = package["name"], package["version"]
    entry = {"type": "library", "bom-ref": name, "name": name, "version": version}
    if name in lock:
        hashes = [{"alg": "SHA-256", "content": digest} for digest in sorted(lock[name][1])]
        locator = f"pkg:pypi/{name}@{version}"
        # The lock allows any of these: the wheel of each platform, and the source.
        entry |= {
            "purl": locator,
            "externalReferences": [{"type": "distribution", "url": locator, "hashes": hashes}],
        }
    if package["license"]:
        entry["licenses"] = [{"expression": package["license"]}]
    return entry


def document(image: dict[str, Any], labels: dict[str, str], lock: dict[str, Any], own: str) -> dict[str, Any]:
    """Return the whole document; ``labels`` are the image labels, ``own`` is the name of our wheel.

    Raises:
        DiffersError: lock and image are not the same.
    """
    packages = {package["name"]: package["version"] for package in image["packages"]}
    if found := differences(lock, packages, own):
        raise DiffersError("\n".join(found))
    components = [library(package, lock) for package in image["packages"]]
    refs = set(packages)
    product = {
        "type": "container",
        "bom-ref": "image",
        "name": own,
        "version": labels.get("org.opencontainers.image.version") or "0",
        "properties": [{"name": f"oci:{name}", "value": value} for name, value in sorted(labels.items()) if value],
    }
    needs = [{"ref": p["name"], "dependsOn": [name for name in p["needs"] if name in refs]} for p in image["packages"]]
    body = {
        "metadata": {
            **({"timestamp": made} if (made := labels.get("org.opencontainers.image.created")) else {}),
            "component": product,
        },
        "components": [*components, model(image["manifest"])],
        "dependencies": [{"ref": "image", "dependsOn": [own, "model"]}, {"ref": "model", "dependsOn": []}, *needs],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(body, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def main() -> int:
    """Write the document and return the exit code; 1: image and lock differ, or the document is not valid CycloneDX."""
    engine, name = os.environ.get("DOCKER", "docker"), os.environ.get("IMAGE", "closedloop:dev")
    run = [engine, "run", "--rm", "--interactive", "--network=none", "--entrypoint=python", name, "-c", ASK]
    inspect = [engine, "inspect", "--format={{json .Config.Labels}}", name]
    try:
        image, labels = (
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for command in (run, inspect)
        )
    except subprocess.CalledProcessError as error:
        print(f"make sbom: {name} cannot be read: {error.stderr.strip()}", file=sys.stderr)
        return 1
    project = re.search(r'^name = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    try:
        made = document(
            image, labels or {}, locked(ROOT / "requirements/serve.txt", image["python"]), project[1] if project else ""
        )
    except DiffersError as error:
        print(f"make sbom: {name} differs from requirements/serve.txt:\n{error}", file=sys.stderr)
        return 1
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    if said := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"make sbom: the document is not valid CycloneDX 1.6: {said}", file=sys.stderr)
        return 1
    OUT.write_text(text, encoding="utf-8")
    print(f"wrote {OUT.relative_to(ROOT)}: {len(image['packages'])} packages and the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
