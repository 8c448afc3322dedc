"""The strict schemas of Kubernetes and of custom resources, as validators of objects."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

Object = dict[str, Any]
# A Go module, and where its definitions of custom resources lie. The oldest Gateway API in use is checked too, since a
# field of a newer one would be dropped there without a word.
MODULES = (
    ("sigs.k8s.io/gateway-api@v1.2.1", "config/crd/standard/*.yaml"),
    ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard/*.yaml"),
    ("github.com/prometheus-operator/prometheus-operator@v0.85.0", "example/prometheus-operator-crd/*.yaml"),
    ("github.com/sigstore/policy-controller@v0.13.1", "config/300-*.yaml"),
)


class Loader(yaml.SafeLoader):
    """Reads ``=`` as a text, as YAML 1.2 does."""


Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_yaml_str)
# Azure's custom resources are those of the Prometheus Operator under another name.
SAME = {"monitoring.coreos.com": "azmonitoring.coreos.com"}


class Schemas:
    """The schemas of one minor of Kubernetes, from the folder that the package kubernetes-validate has of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._validators: dict[str, Any] = {}

    @cached_property
    def _definitions(self) -> Registry[Any]:
        text = (self.folder / "_definitions.json").read_text(encoding="utf-8")
        return Resource.from_contents(json.loads(text)) @ Registry()

    def knows(self, one: Object) -> bool:
        """Whether the kind is one of Kubernetes itself."""
        return self._file(one).exists()

    def errors(self, one: Object) -> list[str]:
        """What the API server would refuse in an object."""
        file = self._file(one)
        if not file.exists():
            return [f"this Kubernetes has no {one['kind']} of {one['apiVersion']}"]
        if file.name not in self._validators:
            schema = json.loads(file.read_text(encoding="utf-8"))
            self._validators[file.name] = jsonschema.Draft202012Validator(schema, registry=self._definitions)
        return [said(error) for error in self._validators[file.name].iter_errors(one)]

    def _file(self, one: Object) -> Path:
        group, _, version = one["apiVersion"].rpartition("/")
        name = "-".join([one["kind"].lower(), *filter(None, [group.partition(".")[0]]), version])
        return self.folder / f"{name}.json"


def said(error: jsonschema.ValidationError) -> str:
    """One line for an error: where, and what."""
    return f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def definitions(gone: list[str]) -> Iterator[tuple[str, Object]]:
    """Each definition of a custom resource, with its module; ``gone`` takes a reason for each module not had."""
    if shutil.which("go") is None:
        gone.append("go is not on PATH, so the definitions of custom resources cannot be had")
        return
    for module, pattern in MODULES:
        words = ["go", "mod", "download", "-json", module]
        done = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            gone.append(f"{module} cannot be had: {done.stdout.strip() or done.stderr.strip()}")
            continue
        for file in sorted(Path(json.loads(done.stdout)["Dir"]).glob(pattern)):
            for one in yaml.load_all(file.read_text(encoding="utf-8"), Loader):
                if one and one["kind"] == "CustomResourceDefinition":
                    yield module, one


def custom(gone: list[str]) -> dict[tuple[str, str], list[Any]]:
    """The validators of custom resources by API version and kind; ``gone`` takes a reason for each module not had."""
    found: dict[tuple[str, str], list[Any]] = {}
    for _, definition in definitions(gone):
        for key, schema in _versions(definition):
            found.setdefault(key, []).append(jsonschema.Draft202012Validator(schema))
    return found


def _versions(definition: Object) -> Iterator[tuple[tuple[str, str], Object]]:
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        for group in (spec["group"], SAME.get(spec["group"])):
            if group:
                yield (f"{group}/{version['name']}", spec["names"]["kind"]), schema


def strict(schema: Any, top: bool = True) -> Any:
    """A structural schema that refuses unknown fields, as the API server does with strict validation."""
    if isinstance(schema, list):
        return [strict(one, top=False) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {
        key: {name: strict(one, top=False) for name, one in value.items()}
        if key == "properties"
        else strict(value, top=False)
        for key, value in schema.items()
        if key not in ("default", "description", "format") and not re.match("x-kubernetes", key)
    }
    if top:
        made["properties"] |= {"metadata": {"type": "object"}, "apiVersion": {}, "kind": {}}
    open_to_all = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in made and not open_to_all:
        made["additionalProperties"] = False
    return made
