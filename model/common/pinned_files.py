"""Parts of kind ``files`` of the data pin: a folder's files, each with its size and sha256.

A run reads exactly the files that the part names, through a folder below build/pinned that holds nothing else. What is
downloaded is kept in build/pinned/files by its sha256, and checked again each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from closedloop.data import sources
from closedloop.data.files import file_of
from closedloop.data.schema import DataError
from model.common import cli, places
from model.common.provenance import PIN, ROOT

CACHE = "PINNED_CACHE"  # names the folder of downloads; another commit that is trained below build/commits shares ours
_AT_ONCE = 8  # downloads
_LFS = b"version https://git-lfs.github.com/spec/"
FIX = "restore the file, or pin what is there with: make data-pin"


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(places.BLOCK_BYTES):
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
        folder: the folder.
        files: ``files:`` of the parameters, which says which files belong to the fleet. Where it is empty these are the
            files of the standard layout, or else all files of the folder (a public set).

    Raises:
        DataError: the folder lies outside the repository, or lacks what ``files`` names.
    """
    location = location_of(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder that holds your tables")
    names = [path.relative_to(folder).as_posix() for path in of_fleet(folder, files)]
    return {"kind": "files", "location": location, "files": [entry(folder, name) for name in names]}


def entry(folder: Path, name: str) -> dict[str, Any]:
    """Return what a part says of one file.

    Raises:
        DataError: the file is a pointer of Git LFS, whose content is elsewhere.
    """
    path = folder / name
    _refuse_pointer(path, str(path))
    return {"path": name, "size": path.stat().st_size, "sha256": digest_of(path)}


def of_fleet(folder: Path, files: Mapping[str, str | list[str]]) -> list[Path]:
    """Return the files of a folder that belong to the fleet."""
    if files:
        return sorted({file_of(path) for paths in sources.named(folder, files).values() for path in paths})
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
    if not places.scheme(part["location"]):
        return stage(part, {file["path"]: _in_repository(part["location"], file) for file in part["files"]})
    place = places.at(part)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        paths = pool.map(lambda file: _downloaded(place, part["location"], file), part["files"])
        return stage(part, {file["path"]: path for file, path in zip(part["files"], paths, strict=True)})


def cache() -> Path:
    """Return the folder of downloads."""
    return Path(os.environ.get(CACHE) or cli.BUILD / "pinned" / "files").resolve()


def _downloaded(place: places.Bucket | places.Web, location: str, file: Mapping[str, Any]) -> Path:
    """Return a file's download, made before or now."""
    kept = cache() / file["sha256"]
    if kept.is_file() and (kept.stat().st_size, digest_of(kept)) == (file["size"], file["sha256"]):
        return kept
    cli.say(f"downloading {location}/{file['path']}, {file['size']:,} bytes")
    with _temporary() as fresh:
        size, sha256 = _save(place.blocks(file["path"]), fresh, file["size"])
        refuse_other(f"{location}/{file['path']}", file, size, sha256)
        fresh.replace(kept)
    return kept


def download(place: places.Bucket | places.Web, location: str, names: list[str]) -> list[dict[str, Any]]:
    """Download files that no pin names yet, and return what a part says of each."""

    def one(name: str) -> dict[str, Any]:
        cli.say(f"downloading {location}/{name}")
        with _temporary() as fresh:
            size, sha256 = _save(place.blocks(name), fresh)
            fresh.replace(cache() / sha256)
        return {"path": name, "size": size, "sha256": sha256}

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, sorted(names)))


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    """Yield a file of the cache's own disk, which is gone at the end unless it was given another name."""
    cache().mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=cache())
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _save(blocks: Iterator[bytes], path: Path, most: int | None = None) -> tuple[int, str]:
    """Write a file durably, and return its size and sha256; it ends early where it is larger than ``most`` bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
            if most is not None and size > most:
                break
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


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
    _refuse_pointer(path, shown)
    refuse_other(shown, file, path.stat().st_size, digest_of(path))
    return path


def _refuse_pointer(path: Path, shown: str) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise DataError(f"{shown}: is a pointer of Git LFS, not the data; run: git lfs pull")


def refuse_other(shown: str, file: Mapping[str, Any], size: int, sha256: str) -> None:
    """Check that a file is the one that is pinned.

    Raises:
        DataError: its size or content differs.
    """
    pinned = f"the {file['size']:,} bytes that {PIN.name} pins"
    if size > file["size"]:
        raise DataError(f"{shown}: has more than {pinned}; {FIX}")
    if size < file["size"]:
        raise DataError(f"{shown}: has {size:,} of {pinned}; {FIX}")
    if sha256 != file["sha256"]:
        raise DataError(f"{shown}: is sha256 {sha256[:12]}…, and {PIN.name} pins {file['sha256'][:12]}…; {FIX}")
