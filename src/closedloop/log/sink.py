"""Where the log is shipped to: a folder, or a place of an object store, that holds one Delta table for each kind."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from closedloop.log.folders import unfit
from closedloop.log.tables import FORMAT, SCHEMAS

REMOTE = ("az", "abfs", "abfss", "s3", "gs")
# The names by which object_store knows its options; what the environment sets of them is passed on.
PREFIXES = ("AZURE_", "AWS_", "GOOGLE_")
# Its own patience is minutes; ours is a round of the shipper, which tries again.
_PATIENCE = {"connect_timeout": "5s", "timeout": "30s", "max_retries": "5", "retry_timeout": "10s"}
_FORMAT = "closedloop.format"
_CONFIGURATION: dict[str, str | None] = {
    _FORMAT: FORMAT,
    # A pin names a version of the table: it stays readable until someone takes it away on purpose.
    "delta.enableExpiredLogCleanup": "false",
    # A shipper holds the statistics of all files in memory: these alone help to find rows.
    "delta.dataSkippingStatsColumns": "received,spool,segment",
}
FAULTS = (DeltaError, OSError, ValueError)  # what deltalake raises


class SinkError(RuntimeError):
    """The sink was refused or does not answer. The message is one line, and holds no credential."""


@dataclass(frozen=True)
class Sink:
    """A place for the log's tables; ``options`` are those of the object store."""

    place: str
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def at(cls, place: str, environ: Mapping[str, str]) -> Sink:
        """The sink at a path or at an ``az://``, ``s3://`` or ``gs://`` address.

        Raises:
            SinkError: an address of another kind, or a folder that cannot hold Delta tables.
        """
        scheme, found, rest = place.partition("://")
        if not found:
            path = str(Path(place).absolute())
            if why := unfit(path):
                raise SinkError(f"{one_line(ValueError(path))}: {why}")
            return cls(path)
        if scheme not in REMOTE or not rest.strip("/"):
            known = ", ".join(f"{name}://" for name in REMOTE)
            raise SinkError(f"{_clean(place)}: no place for the log; name a folder, or an address with {known}")
        given = {name: value for name, value in environ.items() if value and name.startswith(PREFIXES)}
        return cls(place.rstrip("/"), _PATIENCE | given)

    @property
    def folder(self) -> Path | None:
        """Where the sink is on this machine; None for an object store."""
        return None if "://" in self.place else Path(self.place)

    def location(self, table: str) -> str:
        """The path or address of a table."""
        return f"{self.place}/{table}"

    def open(self, table: str, version: int | None = None) -> DeltaTable | None:
        """A table as it is now, or was at a version; None where there is none yet.

        Raises:
            SinkError: it has another format, or lacks that version.
            DeltaError, OSError, ValueError: the sink does not answer.
        """
        try:
            opened = DeltaTable(self.location(table), version=version, storage_options=self.options or None)
        except TableNotFoundError:
            return None
        found = opened.metadata().configuration.get(_FORMAT, "unknown")
        if found != FORMAT:
            raise SinkError(
                f"{_clean(self.location(table))} has format {found}, this version writes and reads {FORMAT}: use the "
                "version that made it, or another LOG_SINK"
            )
        return opened

    def create(self, table: str) -> None:
        """Make a table if it is not there. Of folders, only the sink's own is made, in one that is there.

        Raises:
            DeltaError, OSError, ValueError: the sink does not answer.
        """
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
        with contextlib.suppress(CommitFailedError):  # another process has just made it
            DeltaTable.create(
                self.location(table),
                SCHEMAS[table],
                mode="ignore",
                configuration=_CONFIGURATION,
                storage_options=self.options or None,
                raise_if_key_not_exists=False,
            )


def one_line(error: BaseException) -> str:
    """What an error says, in one line of at most 400 characters and without what may be secret in an address."""
    return _clean(" ".join(re.sub(r"\x1b\[\d*m|↳", "", str(error) or type(error).__name__).split()))[:400]


def _clean(text: str) -> str:
    """The text without user names, passwords and queries of addresses: a query may hold a signature."""
    return re.sub(r"\?\S+", "?…", re.sub(r"://[^/\s@]*:[^/\s@]*@", "://…@", text))
