"""Read and write the files of a bundle: only known names, sizes within limits, no links. Nothing is interpreted."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as _parse
from safetensors.numpy import save as _serialize

from closedloop.data.schema import DataError

MIB = 2**20
MANIFEST, REFERENCE = "manifest.json", "reference.safetensors"
LIMITS = {MANIFEST: 4 * MIB, "card.md": MIB, REFERENCE: 64 * MIB}  # bytes
HEAD_LIMIT = 256 * MIB
HEADER_LIMIT = MIB  # of a safetensors file: a bundle's largest are a few hundred bytes
MOST_FILES = 256
_HEAD = re.compile(r"heads/[a-z0-9_-]{1,64}\.safetensors")


class BundleError(DataError):
    """The bundle was refused. The message says in one line what is wrong and how to fix it."""


def sha256(data: bytes) -> str:
    """``sha256:…`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of a safetensors file of the arrays; they do not depend on the order of the arrays."""
    return _serialize({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def unpack(name: str, data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file.

    Raises:
        BundleError: the bytes are not a safetensors file.
    """
    if int.from_bytes(data[:8], "little") > HEADER_LIMIT:
        raise BundleError(
            f"{name} is not a safetensors file (its header would exceed {HEADER_LIMIT} bytes); train again"
        )
    try:
        return _parse(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{name} is not a safetensors file ({reason}); train again") from None


def listing(folder: Path) -> dict[str, int]:
    """Size in bytes of each file of a bundle, without opening any.

    Raises:
        BundleError: there is no bundle, it contains something that does not belong there, or a file is too large.
    """
    try:
        found = _scan(folder, "")
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}; train a bundle or set the folder") from None
    missing = [name for name in LIMITS if name not in found]
    if missing:
        raise BundleError(f"{missing[0]} is missing, so the bundle is incomplete; copy it again or train again")
    return found


def _scan(folder: Path, prefix: str) -> dict[str, int]:
    found: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name, status = prefix + entry.name, entry.stat(follow_symlinks=False)
            if not prefix and entry.name == "heads" and stat.S_ISDIR(status.st_mode):
                found |= _scan(folder / entry.name, "heads/")
                continue
            _fits(name, status.st_size)
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{name} is not a regular file; copy the bundle without links")
            if len(found) == MOST_FILES:
                raise BundleError(f"it has more than {MOST_FILES} files; train again")
            found[name] = status.st_size
    return found


def _fits(name: str, size: int) -> None:
    limit = HEAD_LIMIT if _HEAD.fullmatch(name) else LIMITS.get(name)
    if limit is None:
        raise BundleError(f"{name!r} does not belong in a bundle; remove it or train again")
    if size > limit:
        raise BundleError(f"{name} has {size} bytes, more than the {limit} allowed; train again")


def read(folder: Path, name: str, size: int) -> bytes:
    """The bytes of a file that :func:`listing` found; links are not followed.

    Raises:
        BundleError: it cannot be read, or it changed in the meantime.
    """
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(size + 1)
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}; fix its permissions or copy it again") from None
    if len(data) != size:
        raise BundleError(f"{name} changed while it was read; copy the bundle again")
    return data


def write_files(files: Mapping[str, bytes], folder: Path, is_ours: Callable[[Path], bool]) -> None:
    """Write all files into ``folder``, or none; an existing folder is replaced if it is empty or ``is_ours``.

    Raises:
        BundleError: the folder holds something else, or a file is too large to be read back.
    """
    for name, data in files.items():
        _fits(name, len(data))
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not is_ours(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is not a bundle; choose another folder or remove it")
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        fresh.chmod(0o755)
        for name, data in files.items():
            path = fresh / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
