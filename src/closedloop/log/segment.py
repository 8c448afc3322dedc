"""The segment that is being written, and the recovery of one that was left open."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from closedloop.log.durable import reserve, sync_file, sync_folder, sync_records
from closedloop.log.frame import HEADER_BYTES, OPEN, SEALED, header, pack, seed_of, segment_name

_FREE_BYTES = 64 << 10  # a disk with less room than this counts as full


class OpenSegment:
    """A segment that grows; ``size`` is how much of it is acknowledged.

    ``first_record`` is when its first record came, by the monotonic clock; None while there is none.

    Raises:
        OSError: from every method, when the disk refuses; then nothing after ``size`` counts.
    """

    def __init__(self, folder: Path, spool: str, number: int) -> None:
        self.path = folder / segment_name(number, OPEN)
        self.size = 0
        self._seed = seed_of(spool, number)
        self.first_record: float | None = None
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            reserve(self._descriptor, _FREE_BYTES)
            os.ftruncate(self._descriptor, 0)
            self._write(header(spool, number, time.time_ns() // 1000))
            sync_file(self._descriptor)
            sync_folder(folder)
        except OSError:
            self.abandon()
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise

    def append(self, payloads: list[bytes], *, sync: bool) -> int:
        """Write and, if asked, sync the records; the bytes written."""
        before = self.size
        self._write(b"".join(pack(payload, self._seed) for payload in payloads), sync=sync)
        if self.first_record is None:
            self.first_record = time.monotonic()
        return self.size - before

    def remaining(self, seconds: float) -> float | None:
        """Seconds until the first record is that old; None while there is none."""
        if self.first_record is None:
            return None
        return max(0.0, self.first_record + seconds - time.monotonic())

    def seal(self) -> None:
        """Make the segment final, or remove it if it is empty."""
        if self.first_record is None:
            self.path.unlink()
        else:
            sync_file(self._descriptor)
            self.path.rename(self.path.with_suffix(SEALED))
        self.abandon()
        sync_folder(self.path.parent)

    def abandon(self) -> None:
        """Close the file as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # what was acknowledged does not hang on it
                os.close(descriptor)

    def _write(self, data: bytes, *, sync: bool = False) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        if os.fstat(self._descriptor).st_size != self.size + len(data):
            raise OSError(errno.EIO, "the file is shorter than what was written")
        if sync:
            sync_records(self._descriptor)
        self.size += len(data)


def cut_and_seal(path: Path, end: int) -> None:
    """Seal an open segment after its first ``end`` bytes, through a new descriptor; remove it if no record is left."""
    if end <= HEADER_BYTES:
        path.unlink()
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, end)
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        path.rename(path.with_suffix(SEALED))
    sync_folder(path.parent)
