"""Sealed segments of a spool into Delta tables, each exactly once, whatever ends the process in between.

The application id of each commit is the spool's id, its transaction version the segment's number, and its metadata hold
the sha256 of the segment. Segments go strictly in order. Before each write the table is loaded again: a segment that it
has already is compared and left out. A segment is removed only when a table that was loaded anew says that it holds it.

What standing orders of erasure name is left out. The orders are read after the table was loaded, and an erasure commits
to the table after it has given its order: so a write that does not know of the order fails, and is made again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from arro3.core import DataType, RecordBatchReader, Schema
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from closedloop.log import ledger, orders, pins, quarantine
from closedloop.log.attempts import Attempts
from closedloop.log.budget import STATUS, SinkSize
from closedloop.log.commits import SegmentId
from closedloop.log.durable import sync_disk, sync_folder
from closedloop.log.frame import SegmentError
from closedloop.log.halt import halt, halted
from closedloop.log.repair import RepairError, Spools, take_back_torn
from closedloop.log.sealed import SealedSegment, read_sealed, sealed
from closedloop.log.shipped import Settled, ShipError, holds
from closedloop.log.sink import FAULTS, Sink, SinkError, one_line
from closedloop.log.state import SpoolError, lock, read_state
from closedloop.log.tables import SCHEMAS, misfit

_CONFLICTS = 50  # commits of others that may come between, one after the other, before a round gives up
_NOTE_SECONDS = 1.0  # between two writes of ship.json within a round


class Status(msgspec.Struct):
    """What a shipper has done since it began, and what it has left: the content of ``ship.json``.

    ``last_error`` is None when the last round had none. ``oldest_unsent_us`` is when the oldest segment that is left
    was written to last, in microseconds UTC. ``quarantined_records`` counts what could not be shipped and was kept.
    ``sink_bytes`` is None for a sink that is not on the disk of the spool.
    """

    pid: int
    shipped_segments: int = 0
    shipped_records: int = 0
    last_shipped_segment: int | None = None
    failures: int = 0
    last_error: str | None = None
    unsent_segments: int = 0
    unsent_bytes: int = 0
    oldest_unsent_us: int | None = None
    quarantined_segments: int = 0
    quarantined_records: int = 0
    quarantined_bytes: int = 0
    sink_bytes: int | None = None

    @property
    def disk_bytes(self) -> int:
        """What the log takes of its disk, but for what is not sealed."""
        return self.unsent_bytes + self.quarantined_bytes + (self.sink_bytes or 0)


class Shipper:
    """The one shipper of a spool's folder; ``say`` hears in one line of what a person should know.

    Raises:
        SpoolError: another process ships this folder.
        OSError: the folder is not there, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        sink: Sink,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._sink, self._say = folder, sink, say
        self._tables: dict[str, DeltaTable] = {}
        self._lock = lock(folder / "ship.lock")
        self._noted = float("-inf")
        self._unwritten = False
        self._looked = self._guarded = False
        self._sink_size = SinkSize(folder, sink.folder)
        self.status = Status(pid=os.getpid())
        self._note()

    def close(self) -> None:
        """Let the folder go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def round(self) -> bool:
        """Ship all that is sealed, in order; whether nothing is left. Writes ``ship.json``."""
        try:
            self._look()
            for path in sealed(self._folder):
                self._ship(path, read_state(self._folder)[0])
                if time.monotonic() - self._noted > _NOTE_SECONDS:  # each note looks at all that is left
                    self._note()
            self.status.last_error = None
        except (ShipError, SinkError, SpoolError, *FAULTS) as error:
            self.status.failures += 1
            line = one_line(error)
            if line != self.status.last_error:
                self._say(f"not shipped: {line}")
            self.status.last_error = line
            self._tables.clear()
            self._looked = False
        self._note()
        return self.status.unsent_segments == 0

    def _look(self) -> None:
        """Take back what a power cut tore before this shipper began, also where it has nothing to ship.

        Raises:
            ShipError: the sink is halted, or was now.
        """
        if self._looked or self._sink.folder is None:
            return
        if why := halted(self._sink):
            raise ShipError(why)
        for table in SCHEMAS:
            self._repair(self._sink.folder, table)
        self._looked = True

    def _ship(self, path: Path, spool: str) -> None:
        """Bring one segment into every table it concerns, then remove it.

        Raises:
            ShipError: the sink holds something else under its number, or others kept committing.
            SinkError, DeltaError, OSError, ValueError: the sink refused it.
        """
        try:
            segment = read_sealed(path, spool, orders.find(self._sink))
        except SegmentError as error:
            self._count_kept(quarantine.keep_whole(self._folder, path), 0, str(error))
            return
        for table in sorted(segment.rows.batches):
            self._bring(table, segment)
        at = self._finish(segment)
        self.status.shipped_segments += 1
        self.status.shipped_records += segment.rows.count
        self.status.last_shipped_segment = segment.number
        if kept := segment.kept:
            self._count_kept(at, len(kept), f"{kept[0].where}: {kept[0].why}")

    def _bring(self, table: str, segment: SealedSegment) -> None:
        """Write until the table holds the segment.

        Raises:
            ShipError: the sink is halted, or others kept committing.
        """
        if why := halted(self._sink):
            raise ShipError(why)
        for attempt in range(_CONFLICTS):
            opened = self._load(table)
            if opened is None:
                self._sink.create(table)
                continue
            if holds(opened, segment.spool, segment.number, segment.sha256, self._cleaned_up(table)):
                self._make_durable()
                return
            if (standing := orders.find(self._sink)).orders != segment.orders.orders:
                segment.orders, segment.rows = standing, read_sealed(segment.path, segment.spool, standing).rows
            if table not in segment.rows.batches:  # all of it was erased
                return
            try:
                self._write(opened, table, segment)
            except CommitFailedError:  # of another shipper, or of our own whose answer was lost
                time.sleep(random.uniform(0, 0.02 * min(attempt + 1, 10)))  # noqa: S311
        raise ShipError(
            f"segment {segment.number}: {table} had {_CONFLICTS} commits of others in between: trying again"
        )

    def _cleaned_up(self, table: str) -> Settled:
        """Ask what upkeep stored of the commits that it removed."""

        def settled(spool: str, number: int) -> str | None:
            found = ledger.newest_shipped(self._sink, table, spool)
            return found.sha256 if found is not None and found.segment == number else None

        return settled

    def _load(self, table: str) -> DeltaTable | None:
        """The table as it is now."""
        known = self._tables.get(table)
        if known is not None:
            known.update_incremental()
            return known
        opened = self._sink.open(table)
        if opened is not None:
            self._tables[table] = opened
        return opened

    def _repair(self, sink: Path, table: str) -> None:
        """Take back what a power cut tore, or halt the sink where that could lose records.

        Raises:
            ShipError: the sink was halted.
        """
        try:
            taken = take_back_torn(sink / table, Spools((self._folder,)))
        except RepairError as error:
            halt(sink, error.why)
            raise ShipError(halted(self._sink) or str(error)) from None
        if taken:
            versions = ", ".join(map(str, taken))
            self._say(f"{table}: took back what a power cut tore (version {versions}); its segments are shipped again")

    def _write(self, opened: DeltaTable, table: str, segment: SealedSegment) -> None:
        spool, number, sha256 = segment.spool, segment.number, segment.sha256
        self._require_fit(opened, table)
        if segment.rows.later and not self._guarded:
            pins.guard(self._sink)  # before the first row that another release's upkeep would spoil
            self._guarded = True
        if self._sink.folder is not None:
            with contextlib.suppress(OSError):  # on a full disk only shipping makes room; without it repair may halt
                Attempts(self._folder).note(table, opened.version() + 1, SegmentId(spool, number, sha256))
        write_deltalake(
            opened,
            RecordBatchReader.from_batches(SCHEMAS[table], segment.rows.batches[table]),
            mode="append",
            schema_mode="merge",  # a later release may have added columns: they are null
            commit_properties=CommitProperties(
                custom_metadata={"spool": spool, "segment": number, "sha256": sha256},
                max_commit_retries=0,  # delta-rs would write again without looking whether it is there
                app_transactions=[Transaction(spool, number)],
            ),
        )

    def _require_fit(self, opened: DeltaTable, table: str) -> None:
        """Refuse a table whose columns have other types: to merge schemas would cast our values, and lose them.

        Raises:
            ShipError: that is so.
        """
        found, ours = (
            DataType.struct([schema.field(name) for name in schema.names])
            for schema in (Schema.from_arrow(opened.schema()), SCHEMAS[table])
        )
        if where := misfit(found, ours, table):
            raise ShipError(f"{where} in the sink: use the version that made it, or another LOG_SINK")

    def _make_durable(self) -> None:
        """Have a local sink's files on its disk before the segment goes; an object store answers when it has them."""
        if self._sink.folder is not None:
            sync_disk(self._sink.folder)

    def _finish(self, segment: SealedSegment) -> Path:
        """Remove a segment that was shipped, and keep what could not be; where that is."""
        at = path = segment.path
        if segment.kept:
            try:
                at = quarantine.keep(self._folder, segment.spool, segment.number, segment.kept)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                return quarantine.keep_whole(self._folder, path)  # takes no room, and shipping goes on to make some
        path.unlink()
        sync_folder(self._folder)
        return at

    def _count_kept(self, path: Path, records: int, why: str) -> None:
        """Count and say what went to the quarantine."""
        self.status.quarantined_segments += 1
        self.status.quarantined_records += records
        more = f" (and {records - 1} more)" if records > 1 else ""
        self._say(f"kept {path}, which holds what cannot be shipped: {one_line(ValueError(why))}{more}")

    def _note(self) -> None:
        """Write ``ship.json``, if it can be written: of a full disk nobody but the shipper makes room."""
        left = [path.stat() for path in sealed(self._folder) if path.exists()]
        status = self.status
        status.unsent_segments = len(left)
        status.unsent_bytes = sum(found.st_size for found in left)
        status.quarantined_bytes = quarantine.size_bytes(self._folder)
        status.sink_bytes = self._sink_size.look()
        status.oldest_unsent_us = left[0].st_mtime_ns // 1000 if left else None
        fresh = self._folder / (STATUS + ".new")
        try:
            fresh.write_bytes(msgspec.json.encode(status) + b"\n")
            fresh.replace(self._folder / STATUS)
        except OSError as error:
            if not self._unwritten:
                self._say(f"{STATUS} cannot be written, shipping goes on: {one_line(error)}")
            self._unwritten = True
        else:
            self._unwritten = False
        self._noted = time.monotonic()
