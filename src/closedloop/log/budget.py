"""How much of its disk the log takes: the spool, its quarantine, and the sink where that lies on the same disk.

A sink is too large to be measured for each request. The shipper measures it now and then and writes it into
``ship.json``, and the service reads it there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

STATUS = "ship.json"
_LEAST_SECONDS = 10.0  # between two looks,
_SHARE = 100  # and so many times as long as a look took


class _Reported(msgspec.Struct):
    sink_bytes: int | None = None


_decoder = msgspec.json.Decoder(_Reported)


def reported(log_dir: Path) -> int:
    """The bytes of the sink on this disk, as the shipper saw them last; 0 until it has said so."""
    try:
        return _decoder.decode((log_dir / STATUS).read_bytes()).sink_bytes or 0
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return 0


class SinkSize:
    """The bytes of a sink that shares its disk with the spool: measured seldom, since each look is a walk."""

    def __init__(self, log_dir: Path, sink: Path | None) -> None:
        self._log_dir, self._sink = log_dir, sink
        self._next = float("-inf")
        self._bytes: int | None = None

    def look(self) -> int | None:
        """The bytes when they were last measured; None for a sink elsewhere, or none yet."""
        begun = time.monotonic()
        if self._sink is None or begun < self._next:
            return self._bytes
        self._bytes = _bytes_of(self._sink) if _same_disk(self._log_dir, self._sink) else None
        took = time.monotonic() - begun
        self._next = begun + max(_LEAST_SECONDS, _SHARE * took)
        return self._bytes


def _same_disk(log_dir: Path, sink: Path) -> bool:
    try:
        return log_dir.stat().st_dev == sink.stat().st_dev
    except FileNotFoundError:
        return False


def _bytes_of(folder: Path) -> int:
    """The bytes of all files below a folder; a file that has two names there counts once."""
    size, seen = 0, set()
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = Path(place, name).lstat()
            except FileNotFoundError:  # upkeep has just removed it
                continue
            if found.st_nlink > 1:
                if found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
            size += found.st_size
    return size
