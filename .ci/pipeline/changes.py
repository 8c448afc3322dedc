"""What a release changes for those who call the service, in plain words: model, features, thresholds, interface.

It is compared with the release that is served: the manifests of the two bundles, and the two OpenAPI documents.
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import champion, github, release_facts

TITLE = "## What changes for those who call the service"
KEPT = re.compile(rf"^{re.escape(TITLE)}\n\n(.*?)\n\nImage: ", re.MULTILINE | re.DOTALL)
DOCUMENT = "openapi.json"
WORDS = ("description", "title", "example", "examples")  # keys of a schema
OF_NAMES = ("properties", "patternProperties", "$defs", "dependentSchemas")  # their keys are names, which may be such
VALUES = ("enum", "const", "default")  # hold values, no schemas
MUST = " required"  # at the end of a form: what callers may not leave out
MOST = 8  # names in one line


@dataclass(frozen=True)
class Side:
    """What a release says of itself to callers: the manifest of its bundle, and its OpenAPI document if it has one."""

    manifest: dict[str, Any]
    document: dict[str, Any] | None


def manifest(archive: Path) -> dict[str, Any]:
    """Return the manifest in the archive of a bundle.

    Raises:
        PipelineError: it holds none.
    """
    try:
        with tarfile.open(archive) as packed:
            file = packed.extractfile("bundle/manifest.json")
            found: dict[str, Any] = json.loads(file.read()) if file else {}
            return found
    except (tarfile.TarError, zlib.error, EOFError, KeyError, OSError, ValueError) as error:
        raise github.PipelineError(f"{archive.name} cannot be read: {error}") from error


def named(names: list[str]) -> str:
    """Return some names as code, and how many more there are."""
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(f"`{name}`" for name in names[:MOST]) + more


def both(what: str, before: list[str], now: list[str]) -> Iterator[str]:
    """Yield a line for what is new in a list, and one for what is gone from it."""
    for how, some in (
        ("New", [it for it in now if it not in before]),
        ("Gone", [it for it in before if it not in now]),
    ):
        if some:
            yield f"{how} {what}: {named(some)}."


def thresholds(heads: dict[str, Any]) -> dict[str, float]:
    """Return the threshold of each head of a bundle by its name."""
    found = {"anomaly": heads["anomaly"]["threshold"]} if (heads.get("anomaly") or {}).get("threshold") else {}
    return found | {name: one["threshold"] for name, one in (heads.get("failure") or {}).items()}


def of_model(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield what differs between the manifests of two bundles."""
    if before["model_digest"] == now["model_digest"]:
        yield "The model is the same one: the same request gets the same scores."
        return
    yield "The model is another one: the same request gets other scores."
    yield from both("features", before["features"]["names"], now["features"]["names"])
    for key in ("sensors", "components", "errors", "models"):
        yield from both(
            f"{key} that a request may name", *(list(one["schema"].get(key) or []) for one in (before, now))
        )
    old, new = before.get("history_hours"), now.get("history_hours")
    if old != new:
        yield f"A request needs {new:g} hours of history, not {old:g}."
    older, newer = thresholds(before["heads"]), thresholds(now["heads"])
    rows = [f"{name} {older[name]:.4g} → {newer[name]:.4g}" for name in newer if name in older]
    moved = [
        row for row, name in zip(rows, [it for it in newer if it in older], strict=True) if older[name] != newer[name]
    ]
    if moved:
        yield f"Alarm thresholds: {', '.join(moved)}."
    yield from both("alarms", list(older), list(newer))


def facts(document: dict[str, Any]) -> dict[str, str]:
    """Return what an OpenAPI document promises, a name for each operation, parameter and field with its form."""
    found = {}
    for path, operations in document.get("paths", {}).items():
        for method, one in operations.items():
            where = f"{method.upper()} {path}"
            found[where] = ", ".join(sorted(one.get("responses", {})))
            for code, answer in one.get("responses", {}).items():
                if promised := {key: answer[key] for key in ("content", "$ref") if key in answer}:
                    found[f"{where}: answer {code}"] = form(promised)
            if "requestBody" in one:
                must = MUST * bool(one["requestBody"].get("required"))
                found[f"{where}: body"] = form(one["requestBody"].get("content", {})) + must
            if login := one.get("security", document.get("security")):
                found[f"{where}: security"] = form(login) + MUST * ({} not in login)
            for parameter in one.get("parameters", []):
                must = MUST * bool(parameter.get("required"))
                found[f"{where}: {parameter['in']} {parameter['name']}"] = form(parameter.get("schema", {})) + must
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        own = {key: value for key, value in schema.items() if key not in ("properties", "required")}
        others = [field for field in schema.get("required", []) if field not in schema.get("properties", {})]
        found[name] = form(own | ({"required": sorted(others)} if others else {}))
        for field, one in schema.get("properties", {}).items():
            found[f"{name}.{field}"] = form(one) + MUST * (field in schema.get("required", []))
    return found


def form(schema: Any) -> str:
    """Return the form of a value, without what only people read."""
    return json.dumps(without_words(schema), sort_keys=True)


def without_words(schema: Any, names: bool = False) -> Any:
    """Return a schema without its descriptions, titles and examples; of a mapping of ``names`` each key is kept."""
    if isinstance(schema, list):
        return [without_words(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {key: without_words(one) for key, one in schema.items()}
    return {
        key: one if key in VALUES else without_words(one, key in OF_NAMES)
        for key, one in schema.items()
        if key not in WORDS
    }


def of_interface(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield what differs between two OpenAPI documents."""
    older, newer = facts(before), facts(now)
    lines = [*both("in the interface", list(older), list(newer))]
    changed = [name for name in newer if name in older and older[name] != newer[name]]
    lines += [f"Changed in the interface: {named(changed)}."] if changed else []
    yield from lines or ["The interface is the same."]


def here(now: Path) -> Side:
    """Return what the files of a release in a folder say.

    Raises:
        PipelineError: its bundle cannot be read.
    """
    document = now / DOCUMENT
    there = json.loads(document.read_text(encoding="utf-8")) if document.is_file() else None
    return Side(manifest(now / champion.ARCHIVE), there)


def of_release(one: release_facts.Release) -> Side:
    """Return what another release says, from its verified files.

    Raises:
        PipelineError: they cannot be had.
    """
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        one = champion.known(one, there)
        champion.verify(champion.download(one.tag, there), one)
        if DOCUMENT in (one.facts.get("files") or {}):
            champion.verify(champion.download(one.tag, there, DOCUMENT), one)
        return here(there)


def since(one: release_facts.Release, now: Path) -> list[str]:
    """Return what the files of a release in a folder change since another release.

    Raises:
        PipelineError: that one's files cannot be had.
    """
    old, new = of_release(one), here(now)
    lines = [f"Compared with {one.tag}, which is served.", *of_model(old.manifest, new.manifest)]
    if old.document is None or new.document is None:
        return [*lines, "The interface is not compared, since one of the two has no OpenAPI document."]
    return [*lines, *of_interface(old.document, new.document)]


def told(known: list[release_facts.Release], now: Path, tag: str) -> str:
    """Return the part of a release's notes that says what it changes; ``tag`` is its own."""
    served = release_facts.latest([one for one in known if one.tag != tag], "served")
    try:
        lines = since(served, now) if served else ["This is the first release."]
    except (github.PipelineError, KeyError, TypeError, AttributeError, ValueError) as error:  # an older format
        lines = [f"What it changes is not known: the served release cannot be compared ({error})."]
    return "\n".join([TITLE, "", *(f"- {line}" for line in lines)])


def kept(text: str) -> str:
    """Return that part as the draft's notes have it; an empty text where they have none."""
    found = KEPT.search(text.replace("\r\n", "\n"))
    return f"{TITLE}\n\n{found[1]}" if found else ""
