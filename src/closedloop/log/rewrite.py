"""Files of a table written again as fewer, or without some of their rows: the one way in which upkeep changes a table.

The rows are written by deltalake into a table of their own, below ``_scratch``; their files are moved beside the
table's, synced, and a single commit exchanges them for those they come from. Until that commit nothing has changed, and
what it replaces stays where it is: :mod:`closedloop.log.clean` removes it later. Each row gets two columns that the
table does not have: ``arrival``, the commit that brought it, and ``bounded``, the latest time at which it can have been
received as far as the commits tell (:class:`closedloop.log.history.Bounds`).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from arro3.core import RecordBatch, RecordBatchReader, Schema
from arro3.core import Table as ArrowTable
from deltalake import CommitProperties, DeltaTable, QueryBuilder, WriterProperties, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from closedloop.log import history, ledger
from closedloop.log.attempts import announce
from closedloop.log.halt import refuse
from closedloop.log.history import Bounds, Commit
from closedloop.log.lease import Lease
from closedloop.log.sink import Sink, SinkError
from closedloop.log.store import Store

SCRATCH = "_scratch"
ARRIVAL, BOUNDED = "arrival", "bounded"
_BOUND = "bound"  # of all rows of a shipper's file, while it is read
_ATTEMPTS = 100  # commits of shippers that may come between, one after the other
_ONE_FILE = 1 << 40  # bytes: what is written at once is one file
_STATISTICS = {"delta.dataSkippingStatsColumns": "received,spool,segment"}


class Changed(SinkError):  # noqa: N818 - said like a state
    """A file that was to be replaced is no longer in the table: another process has replaced it."""


@dataclass(frozen=True)
class Data:
    """A file of a table's newest version, and the commits whose rows it holds."""

    path: str
    size: int
    rows: int
    first: int
    last: int

    @property
    def raw(self) -> bool:
        """Whether a shipper wrote it, so that it lacks the columns of upkeep."""
        return history.arrivals(self.path) is None

    @property
    def known(self) -> bool:
        """Whether it is known how much memory its rows take."""
        return history.memory_of(self.path) is not None

    @property
    def memory(self) -> int:
        """How many bytes of memory its rows take; at least that many where it was never read."""
        return history.memory_of(self.path) or self.size


class Table:
    """A table as it is now, for upkeep: its files in the order of arrival, its commits, and the bounds they set.

    ``before`` is the same table as it was, whose commits need not be read again.

    Raises:
        SinkError: a file came with a commit that is not there, or the log is damaged.
        DeltaError, OSError, ValueError: the sink does not answer.
    """

    def __init__(self, sink: Sink, name: str, before: Table | None = None) -> None:
        opened = sink.open(name)
        if opened is None:
            raise SinkError(f"{sink.place}: there is no table {name}")
        self.sink, self.name, self.opened, self.version = sink, name, opened, opened.version()
        # Its own columns, and not ours: what a later release added to it outlives a compaction of this one.
        self.schema = Schema.from_arrow(opened.schema())
        self.paths: dict[int, list[str]] = {}  # of versions whose files were looked up: they never change
        self.store = Store(sink)
        self.listing = history.listing(self.store, name)
        known = {} if before is None else before.commits  # a commit never changes
        there = [version for version in self.listing.commits if version <= self.version]
        self.commits: dict[int, Commit] = {version: known[version] for version in there if version in known}
        self.commits |= history.read(self.store, name, (version for version in there if version not in known))
        self.ledger = ledger.load(self.store, name)
        self.bounds = Bounds(history.points_of(self.commits, self.ledger.floors, self.version))
        arrival = history.first_added(self.commits)
        self.files = sorted(files_of(opened, arrival), key=lambda file: (file.first, file.last, file.path))


def files_of(opened: DeltaTable, arrival: dict[str, int]) -> list[Data]:
    """The files of a table, each with the commits whose rows it holds.

    Raises:
        SinkError: a file came with a commit that is not in ``arrival``.
    """
    found = opened.get_add_actions()
    columns = [found.column(name).to_pylist() for name in ("path", "size_bytes", "num_records")]
    files = []
    for path, size, rows in zip(*columns, strict=True):
        span = history.arrivals(path) or (arrival.get(path, -1),) * 2
        if span[0] < 0 or rows is None:
            raise SinkError(f"{path} came with a commit that is not there any more: was it removed by another tool?")
        files.append(Data(path, size, rows, *span))
    return files


@dataclass(frozen=True)
class Written:
    """A file that was written and moved beside the table's, as the commit will add it."""

    action: AddAction
    rows: int


class ScratchFolder:
    """A place below ``_scratch`` for one rewriting; removed at the end, however it ends."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._place = f"{SCRATCH}/{table.name}/{uuid4().hex}"

    def __enter__(self) -> ScratchFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.store.delete_folder(self._place)

    def rows(
        self, file: Data, where: str = "true", emptied: Iterable[str] = (), of: str = "false"
    ) -> RecordBatchReader:
        """The rows of a file for which an SQL condition holds, with the columns of upkeep, in their order.

        Columns of ``emptied`` are null in the rows for which the condition ``of`` holds.
        """
        bound = self._table.bounds.at(file.last)  # whoever wrote the file knew all commits before that one
        known = "received" if file.raw else BOUNDED
        until = known if bound is None else f"least({known}, {_time(bound)})"
        extra = f"{f'CAST({file.first} AS BIGINT) AS ' if file.raw else ''}{ARRIVAL}, {until} AS {BOUNDED}"
        names = ", ".join(
            f'CASE WHEN NOT ({of}) THEN "{name}" END AS "{name}"' if name in emptied else f'"{name}"'
            for name in self._table.schema.names
        )
        return self.query(file, f"SELECT {names}, {extra} FROM rows WHERE {where}")  # noqa: S608 - our own names

    def raw_rows(self, files: list[Data]) -> RecordBatchReader:
        """The rows of several files of shippers as :meth:`rows` has them, in the order of commits and records.

        A shipper's file is small, and what is asked of it costs less than asking.
        """
        names = ", ".join(f'"{name}"' for name in self._table.schema.names)
        statement = (
            f"SELECT {names}, CAST({ARRIVAL} AS BIGINT) AS {ARRIVAL}, "  # noqa: S608 - our own names
            f'least(received, to_timestamp_micros({_BOUND})) AS {BOUNDED} FROM rows ORDER BY {ARRIVAL}, "index"'
        )
        whole = self._table.schema.field("segment")
        schema = self._table.schema.append(whole.with_name(ARRIVAL)).append(whole.with_name(_BOUND))
        values: dict[str, dict[str, str | None]] = {}
        for file in files:
            bound = self._table.bounds.at(file.last)
            values[file.path] = {ARRIVAL: str(file.first), _BOUND: None if bound is None else str(bound)}
        return self._ask(files, schema, values, statement)

    def query(self, file: Data, statement: str) -> RecordBatchReader:
        """What a statement finds in the table ``rows``: the file, with the columns that it really has."""
        schema = self._table.schema if file.raw else _wide(self._table.schema)
        return self._ask([file], schema, {file.path: {}}, statement)

    def _ask(
        self, files: list[Data], schema: Schema, values: dict[str, dict[str, str | None]], statement: str
    ) -> RecordBatchReader:
        """What a statement finds in the table ``rows`` of these files; ``values`` are their partition values."""
        place, store, sink = f"{self._place}/{uuid4().hex}", self._table.store, self._table.sink
        for file in files:
            store.copy(f"{self._table.name}/{file.path}", f"{place}/{file.path}")
        create_table_with_add_actions(
            sink.location(place),
            DeltaSchema.from_arrow(schema),
            [
                AddAction(file.path, file.size, values[file.path], 0, True, json.dumps({"numRecords": file.rows}))
                for file in files
            ],
            partition_by=list(values[files[0].path]),
            storage_options=sink.options or None,
        )
        opened = DeltaTable(sink.location(place), storage_options=sink.options or None)
        builder = QueryBuilder({"datafusion.execution.target_partitions": "1"}).register("rows", opened)
        return builder.execute(statement)

    def write(self, batches: Iterable[RecordBatch], first: int, last: int) -> Written | None:
        """Write rows as one file beside the table's; None if there are none."""
        place, store, sink = f"{self._place}/{uuid4().hex}", self._table.store, self._table.sink
        found = [batch for batch in batches if batch.num_rows]
        if not found:
            return None
        memory = sum(batch.nbytes for batch in found)
        # One batch: deltalake's writer deals several out to its threads, which takes them out of their order.
        schema = Schema([found[0].schema.field(name).with_nullable(True) for name in found[0].schema.names])
        rows = ArrowTable.from_batches([RecordBatch.from_arrays(x.columns, schema=schema) for x in found])
        del found
        write_deltalake(
            sink.location(place),
            rows.combine_chunks(),
            storage_options=sink.options or None,
            configuration=_STATISTICS,
            target_file_size=_ONE_FILE,
            writer_properties=WriterProperties(compression="ZSTD", compression_level=3),
        )
        content = store.read(history.commit_path(place, 0)) or b""
        added = [action["add"] for action in map(json.loads, content.splitlines()) if "add" in action]
        count = sum(json.loads(add["stats"])["numRecords"] for add in added)
        if len(added) != 1 or count != rows.num_rows:
            raise SinkError(f"{self._table.name}: wrote {count} of {rows.num_rows} rows in {len(added)} files: stopped")
        (add,) = added
        name = history.compacted_name(first, last, uuid4().hex, memory)
        store.move(f"{place}/{add['path']}", f"{self._table.name}/{name}")
        return Written(AddAction(name, add["size"], {}, add["modificationTime"], False, add["stats"]), count)


def exchange(
    table: Table, lease: Lease, removed: list[Data], added: list[Written], about: dict[str, Any], *, changes: bool
) -> int:
    """Commit files in place of others; the version that has them. What was written is on the disk before and after.

    ``changes`` says whether rows were left out.

    Raises:
        Changed: a file that was to go is no longer there.
        Held: the lease ran out.
        SinkError: the sink is halted.
    """
    store, sink = table.store, table.sink
    store.sync()
    gone = {file.path for file in removed}
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        AddAction(x.path, x.size, x.partition_values, x.modification_time, changes, x.stats)
        for x in (written.action for written in added)
    ]
    actions += [RemoveAction(file.path, changes, now, file.size, {}) for file in removed]
    # repair compares these with what reached the disk
    about = {**about, "seen": table.version, "numFilesAdded": len(added), "numFilesRemoved": len(removed)}
    for attempt in range(_ATTEMPTS):
        refuse(sink)
        lease.renew()
        opened = sink.open(table.name)
        there = set(opened.get_add_actions().column("path").to_pylist()) if opened is not None else set()
        if opened is None or not gone <= there:
            raise Changed(f"{table.name}: another process has replaced what was to be replaced: run it again")
        announce(store, table.name, opened.version() + 1)
        properties = CommitProperties(about, max_commit_retries=0)
        try:
            opened.create_write_transaction(actions, "append", opened.schema(), commit_properties=properties)
        except CommitFailedError:
            time.sleep(random.uniform(0, 0.02 * min(attempt + 1, 10)))  # noqa: S311
            continue
        store.sync()
        return opened.version()
    raise SinkError(f"{table.name}: {_ATTEMPTS} commits of shippers came between: run it again")


def sweep_scratch(table: Table, say: Callable[[str], None]) -> None:
    """Remove what a killed rewriting of this table left. Call it with the lease: nobody else is writing there."""
    left = [file.path for file in table.store.list(f"{SCRATCH}/{table.name}")]
    for place in sorted({"/".join(path.split("/")[:3]) for path in left}):
        say(f"{table.name}: removing {place}, which a killed process left")
        table.store.delete_folder(place)


def _wide(schema: Schema) -> Schema:
    """The columns of a file of upkeep."""
    received = schema.field("received")
    return schema.append(schema.field("segment").with_name(ARRIVAL)).append(received.with_name(BOUNDED))


def _time(microseconds: int) -> str:
    return f"to_timestamp_micros({microseconds})"
