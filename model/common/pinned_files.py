"""Parts of kind ``files`` of the data pin: a folder's files, each with its size and sha256.

A run reads exactly the files that the part names, through a folder below build/pinned that holds nothing else.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from closedloop.data import sources
from closedloop.data.schema import DataError
from model.common import cli
from model.common.provenance import PIN, ROOT

_BLOCK_BYTES = 1 << 20
_LFS = b"version https://git-lfs.github.com/spec/"
FIX = "restore it from git, or pin what is there with: make data-pin"


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def location_of(folder: Path) -> str:
    """Return a folder's place in the repository, as a part names it.

    Raises:
        DataError: it lies outside the repository, where no other machine has it.
    """
    place = folder.resolve()
    if not place.is_relative_to(ROOT):
        raise DataError(
            f"{folder}: lies outside the repository, so only this machine has it; copy it into the repository, or "
            "upload it and name its address (az://, s3://, gs:// or https://)"
        )
    return place.relative_to(ROOT).as_posix()


def part_of(folder: Path, files: Mapping[str, str | list[str]]) -> dict[str, Any]:
    """Return the part that pins a folder of the repository as it is now.

    Args:
        folder: the folder, or one file of it.
        files: ``files:`` of the parameters, which says which files belong to the fleet. Where it is empty these are the
            files of the standard layout, or else all files of the folder (a public set).

    Raises:
        DataError: the folder lies outside the repository, or lacks what ``files`` names.
    """
    base = folder.parent if folder.is_file() else folder
    location = location_of(base)
    if not folder.exists():
        raise DataError(f"{folder}: no such file or folder; give the folder that holds your tables")
    names = (
        [folder.name] if folder.is_file() else [path.relative_to(base).as_posix() for path in _of_fleet(base, files)]
    )
    return {"kind": "files", "location": location, "files": [entry(base, name) for name in sorted(names)]}


def entry(folder: Path, name: str) -> dict[str, Any]:
    """Return what a part says of one file.

    Raises:
        DataError: the file is a pointer of Git LFS, whose content is elsewhere.
    """
    path = folder / name
    _refuse_pointer(path)
    return {"path": name, "size": path.stat().st_size, "sha256": digest_of(path)}


def _of_fleet(folder: Path, files: Mapping[str, str | list[str]]) -> list[Path]:
    """Return the files of a folder that belong to the fleet."""
    if files:
        return sorted({path for paths in sources.named(folder, files).values() for path in paths})
    native = sources.native(folder)
    if "telemetry" in native:
        return sorted(native.values())
    found = [path for path in folder.rglob("*") if path.is_file()]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        raise DataError(f"{folder}: has no file; give the folder that holds your tables")
    return sorted(found)


def fetch(part: Mapping[str, Any]) -> Path:
    """Return a folder with exactly the files of a part, each checked.

    Raises:
        DataError: a file is missing, or is not the one that is pinned.
    """
    found = {file["path"]: _in_repository(part["location"], file) for file in part["files"]}
    return stage(part, found)


def stage(part: Mapping[str, Any], files: Mapping[str, Path]) -> Path:
    """Return a fresh folder in which each name leads to its file."""
    folder = cli.BUILD / "pinned" / "parts" / hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
    shutil.rmtree(folder, ignore_errors=True)
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.resolve())
    return folder


def _in_repository(location: str, file: Mapping[str, Any]) -> Path:
    """Return a file of the repository, after a check of its size and content."""
    path, shown = ROOT / location / file["path"], f"{location}/{file['path']}"
    if not path.is_file():
        raise DataError(f"{shown}: is pinned by {PIN.name} and is not there; {FIX}")
    _refuse_pointer(path)
    refuse_other(shown, file, path.stat().st_size, digest_of(path))
    return path


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise DataError(f"{path}: is a pointer of Git LFS, not the data; run: git lfs pull")


def refuse_other(shown: str, file: Mapping[str, Any], size: int, sha256: str) -> None:
    """Check that a file is the one that is pinned.

    Raises:
        DataError: its size or content differs.
    """
    if size != file["size"]:
        raise DataError(f"{shown}: has {size:,} bytes, and {PIN.name} pins {file['size']:,}; {FIX}")
    if sha256 != file["sha256"]:
        raise DataError(f"{shown}: is sha256 {sha256[:12]}…, and {PIN.name} pins {file['sha256'][:12]}…; {FIX}")


def unpinned(folder: Path, files: Mapping[str, str | list[str]], pinned: Iterable[str]) -> list[str]:
    """Return the files of a folder that belong to the fleet by their names and that no pin names."""
    known = set(pinned)
    try:
        there = [path.relative_to(folder).as_posix() for path in _of_fleet(folder, files)]
    except DataError:  # a file that is named is not there: reading says so
        return []
    return [name for name in there if name not in known]
