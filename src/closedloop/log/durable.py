"""Calls that bring what was written to the disk. Where a system lacks one, the next stronger one takes its place.

On macOS ``fsync`` leaves data in the drive's own cache, and ``F_FULLFSYNC`` does not.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_UNKNOWN = (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY)  # of a file system that has no such call: a network share


def sync_file(descriptor: int) -> None:
    """Bring a file to the disk."""
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_records(descriptor: int) -> None:
    """Bring the content of a file to the disk, and of its metadata what reading it needs."""
    if _FULL_SYNC is None and hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        sync_file(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def sync_disk(folder: Path) -> None:
    """Bring all files of the file system of a folder to the disk.

    Raises:
        OSError: the disk refused.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        os.sync()  # begins to write everything; the next call then empties the drive's cache
        sync_folder(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if call(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"{folder} could not be synced")
    finally:
        os.close(descriptor)


def reserve(descriptor: int, size: int) -> None:
    """Refuse where the disk lacks so many bytes; where it cannot be asked, the first write will tell."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
