"""The ruler of a commit: the code, the parameters and the data that its models are judged with.

Two models can be compared only if they are judged with the same ruler. It is computed from the files of a commit, so it
is available for every commit that is checked out, and there is no list of what belongs to it.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

SECTIONS = ("labels", "judge", "gate", "split", "source")  # of params.yaml
ACCESS = ("endpoint", "public", "region")  # of a part: how its place is reached
PARTS = "parts of the data pin"
TABLES = "tables that the data pin gives"
Ruler = Mapping[str, str]


def ruler(package: Path, params: Mapping[str, Any], pin: Mapping[str, Any]) -> dict[str, str]:
    """The entries of a commit's ruler, by name; :func:`changes` compares two rulers.

    The code is the folder ``judge/`` and the modules of ``data/`` that it imports, directly or through each other.

    Args:
        package: the commit's ``src/closedloop``; older layouts are read too.
        params: content of its ``params.yaml``.
        pin: content of its ``data.lock.json``: ``parts``, and the ``fingerprint`` of the tables that they give. Tables
            that no commit pins have parts alone.
    """
    judge = package / "judge"
    result = {"code of judge/": _digest(judge, _files(judge))}
    for path in _imported(package, judge.rglob("*.py"), f"{package.name}.data"):
        result[f"code of {path.relative_to(package).as_posix()}"] = _digest(package, [path])
    for section in SECTIONS:
        result[f"{section} in params.yaml"] = json.dumps(params.get(section), sort_keys=True)
    parts = [_data(part) for part in pin.get("parts", [])]
    result[PARTS] = json.dumps([_without_version(part) for part in parts], sort_keys=True)
    if "fingerprint" in pin:
        result[TABLES] = json.dumps({"parts": parts, "fingerprint": pin["fingerprint"]}, sort_keys=True)
    return result


def changes(one: Ruler, other: Ruler) -> list[str]:
    """Names of the entries in which two rulers differ, sorted.

    A newer version of the same Delta tables is not a change. Other tables from the same parts are a change: then a
    simulator or a reader makes something else of them.
    """
    names = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    if TABLES in names and _pinned_parts(one) != _pinned_parts(other):
        names.remove(TABLES)
    return sorted(names)


def _pinned_parts(one: Ruler) -> Any:
    """The parts with their versions, None where nothing is pinned."""
    return json.loads(one[TABLES])["parts"] if TABLES in one else None


def _data(part: Mapping[str, Any]) -> dict[str, Any]:
    """What a part says of its data. Files are known by their digests, so they may move; tables are where they lie."""
    others = (*ACCESS, "location", "account") if part.get("kind") == "files" else ACCESS
    return {key: value for key, value in part.items() if key not in others}


def _without_version(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in ("version", "versions")}


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, except caches and hidden files."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path for path in found if not path.name.startswith(".")]


def _digest(folder: Path, files: Iterable[Path]) -> str:
    """``sha256:…`` of names and contents; the order of the files and their line endings do not matter."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(json.dumps([name, len(content)]).encode() + content)
    return "sha256:" + digest.hexdigest()


def _imported(package: Path, files: Iterable[Path], within: str) -> list[Path]:
    """The modules of the package ``within`` that files import, directly or through each other, sorted by path."""
    found: set[Path] = set()
    todo = list(files)
    while todo:
        for name in _imports(package, todo.pop()):
            if f"{name}.".startswith(f"{within}."):
                place = package.joinpath(*name.split(".")[1:])
                modules = {path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()}
                todo += modules - found
                found |= modules
    return sorted(found)


def _imports(package: Path, path: Path) -> Iterator[str]:
    """Names that a file may import as modules, including the packages that contain them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # for another version of Python, or broken: its bytes still count
    own = (package.name, *path.relative_to(package).parent.parts)
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = own[: len(own) + 1 - node.level] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))
