"""The Parquet files of a table at a version, in the order in which their rows arrived.

They are read as files and not through deltalake's engine: those that upkeep wrote hold two columns more than the table
has, when a row came and the latest time at which it can have been received. An older shipper would stop at a table that
had these columns in its schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSystem, LocalFileSystem, PyFileSystem

from closedloop.log import history, ledger
from closedloop.log.history import Bounds
from closedloop.log.sink import Sink, SinkError, one_line
from closedloop.log.store import Store
from closedloop.log.tables import SCHEMAS, TABLES_OF

ARRIVAL, BOUNDED = "arrival", "bounded"  # the columns of upkeep: the commit, and the bounded time
EXTRA = {ARRIVAL: pa.int64(), BOUNDED: pa.timestamp("us", tz="UTC")}
_BATCH_RECORDS = 4096


@dataclass(frozen=True)
class DataFile:
    """One file; ``arrival`` is the commit that brought its rows, None where a column of it says so for each."""

    path: str
    arrival: int | None


class Files:
    """The files of a table at a version.

    Raises:
        SinkError: the table needs a reader that this is not.
    """

    def __init__(self, sink: Sink, table: str, opened: DeltaTable) -> None:
        if opened.protocol().min_reader_version > 1:
            raise SinkError(
                f"{sink.location(table)} was changed by another tool, and needs a newer reader of Delta: "
                "read it with that tool, or use another LOG_SINK"
            )
        self.table, self.version = table, opened.version()
        self.values: dict[str, int] = {}  # of each file that was read: its rows of telemetry, or of failures
        self._schema = pa.schema(SCHEMAS[table])
        self._folder, self._system = _system(sink, table)
        store = Store(sink)
        found = history.listing(store, table).commits
        known = history.read(store, table, (version for version in found if version <= self.version))
        floors = ledger.load(store, table).floors
        self.bounds = Bounds(history.points_of(known, floors, self.version))
        arrival = history.first_added(known)
        names: list[str] = pa.table(opened.get_add_actions()).column("path").to_pylist()
        self.parts = sorted(
            (DataFile(name, None if history.arrivals(name) else arrival.get(name, -1)) for name in names),
            key=lambda part: part.arrival if part.arrival is not None else (history.arrivals(part.path) or (0,))[0],
        )

    def batches(self, columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        """These columns of all rows, always in the same order; the columns of upkeep are filled in where asked for."""
        wanted = list(columns)
        for part in self.parts:
            yield from self.of(part, wanted)

    def of(self, part: DataFile, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        """These columns of one file.

        Raises:
            SinkError: the file has gone.
        """
        target = pa.schema([self._schema.field(n) if n in self._schema.names else (n, EXTRA[n]) for n in wanted])
        try:
            with self._system.open_input_file(f"{self._folder}/{part.path}") as source:
                file = pq.ParquetFile(source)
                self.values[part.path] = _values(file.metadata, self.table)
                there = [name for name in wanted if name in file.schema_arrow.names]
                for batch in file.iter_batches(_BATCH_RECORDS, columns=there):
                    yield pa.RecordBatch.from_arrays(
                        [self._column(batch, field, part) for field in target], schema=target
                    )
        except FileNotFoundError:
            raise SinkError(
                f"{self.table} at version {self.version} has lost {part.path}: rows of it were erased, or its version "
                "was not pinned; pin a newer version with make data-pin"
            ) from None
        except pa.ArrowInvalid as error:
            raise SinkError(f"{self.table}/{part.path} cannot be read: {one_line(error)}") from error

    def _column(self, batch: pa.RecordBatch, field: pa.Field, part: DataFile) -> pa.Array:
        if field.name in batch.schema.names:
            return batch.column(field.name).cast(field.type)
        if field.name == ARRIVAL and part.arrival is not None:
            return pa.repeat(pa.scalar(part.arrival, field.type), len(batch))
        return pa.nulls(len(batch), field.type)


def _values(metadata: pq.FileMetaData, table: str) -> int:
    """How many rows the largest table in a file's records has in all."""
    if not TABLES_OF[table]:
        return 0
    column = f"{TABLES_OF[table][0]}.datetime.list.element"
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    return sum(found.num_values for found in columns if found.path_in_schema == column)


def files_of(sink: Sink, table: str, version: int | None = None) -> Files | None:
    """The files of a table as it is now, or was at a version; None where there is none yet.

    Raises:
        SinkError: it has another format, or lacks that version.
        DeltaError, OSError, ValueError: the sink does not answer.
    """
    opened = sink.open(table, version)
    return None if opened is None else Files(sink, table, opened)


def _system(sink: Sink, table: str) -> tuple[str, FileSystem]:
    """A table's folder in a file system of pyarrow."""
    if sink.folder is not None:
        return str(sink.folder / table), LocalFileSystem()
    handler = DeltaStorageHandler(sink.location(table), sink.options or None)
    return "", PyFileSystem(handler)
