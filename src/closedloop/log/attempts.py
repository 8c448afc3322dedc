"""What is about to be committed, kept where a power cut leaves it: whose an unreadable commit was.

A shipper keeps it in its spool. Upkeep has no spool: it keeps the version in the sink (:func:`announce`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from closedloop.log.commits import SegmentId
from closedloop.log.durable import sync_file, sync_folder
from closedloop.log.store import Store

NAME = "attempts.json"
FOLDER = "_upkeep"


class _Attempt(msgspec.Struct):
    version: int
    spool: str
    segment: int
    sha256: str


_decoder = msgspec.json.Decoder(dict[str, _Attempt])


class Attempts:
    """The last attempt for each table. One is enough: a shipper syncs after each commit, before the next one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def segment(self, table: str, version: int) -> SegmentId | None:
        """The segment that was to become this version of a table."""
        found = self._read().get(table)
        if found is None or found.version != version:
            return None
        return SegmentId(found.spool, found.segment, found.sha256)

    def note(self, table: str, version: int, segment: SegmentId) -> None:
        """Say, durably, what is about to be committed.

        Raises:
            OSError: the disk refuses.
        """
        attempts = self._read() | {table: _Attempt(version, segment.spool, segment.number, segment.sha256)}
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(attempts))
            file.flush()
            sync_file(file.fileno())
        fresh.replace(self._path)
        sync_folder(self._path.parent)

    def _read(self) -> dict[str, _Attempt]:
        try:
            return _decoder.decode(self._path.read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):  # without it, what is in doubt is left to a person
            return {}


def announce(store: Store, table: str, version: int) -> None:
    """Say, durably, that upkeep is about to commit this version; all that it committed before is on the disk then.

    An object store has no torn commits.
    """
    if store.sink.folder is not None:
        store.sync()
        store.write(_announcement(table), msgspec.json.encode(version))


def announced(sink: Path, table: str) -> int | None:
    """The version that upkeep announced last in a local sink."""
    try:
        return msgspec.json.decode((sink / _announcement(table)).read_bytes(), type=int)
    except (FileNotFoundError, msgspec.DecodeError):  # without it, what is in doubt is left to a person
        return None


def _announcement(table: str) -> str:
    return f"{FOLDER}/{table}.attempt.json"
