"""Read a fleet of any size, a few whole machines at a time, from CSV, Parquet or Delta tables in any order of rows.

The first pass counts the telemetry rows of each machine. Each part of the fleet is one more pass that keeps the rows of
its machines. Memory holds one part, and all events and machine descriptions, which are few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from closedloop.data import files as formats
from closedloop.data import reading, tables
from closedloop.data.frames import WANTED, Columns, check_mapping, convert, frames_to_tables, rename, wanted
from closedloop.data.machines import Id
from closedloop.data.schema import DataError, Schema, Tables
from closedloop.data.sources import named

ROWS = 65_536  # rows of one block of a pass
TABLES = ("telemetry", "errors", "maint", "machines")  # the input of a model


class Stream:
    """A fleet that is read in parts and never held in memory as a whole.

    Attributes:
        rows: the number of telemetry rows of each machine, in order of the machines.

    Args:
        location: a folder of ``PdM_<table>`` or ``<table>``, each a CSV or Parquet file or a Delta table; or one such
            file or Delta table, which is the telemetry.
        schema: what the tables must fit.
        columns: your column names for ours, by table.
        files: the name of each table's file or Delta table; without it the names above.
        read: how the files are written. The long format, and local times, need the telemetry in memory as a whole.

    Raises:
        DataError: nothing is recognised, a file cannot be read, a column is missing, or a table other than telemetry
            does not fit the schema.
    """

    def __init__(
        self,
        location: Path,
        schema: Schema,
        columns: Columns,
        files: Mapping[str, str | list[str]] | None = None,
        read: Mapping[str, Any] | None = None,
    ) -> None:
        check_mapping(columns)
        self._location = location
        self._files = find(location, files or {})
        self._read = {table: reading.settings(read or {}, table) for table in TABLES}
        self._schema = schema
        self._columns = columns
        self._as_read = True  # until a file has another form of a name: only then can it not choose rows by itself
        frames = {table: self._whole(self._blocks(table)) for table in TABLES[1:] if table in self._files}
        counted: Counter[Any] = Counter()
        if (first := next(self._blocks("telemetry"), None)) is not None:
            nothing = self._whole(iter([first.head(0)]))
            self._others = frames_to_tables({"telemetry": nothing, **frames}, schema, {})
            for block in self._blocks("telemetry", only=["machineID"]):
                counted.update(self._ids(block).value_counts().to_dict())
        if not counted:
            raise DataError(f"{self._files['telemetry']}: no rows; give at least one row of telemetry of one machine")
        self.rows: dict[Id, int] = dict(sorted(counted.items()))

    def parts(self, rows_at_once: int) -> Iterator[Tables]:
        """Yield the fleet in order of its machines, in parts of at most ``rows_at_once`` rows, or of one machine.

        Raises:
            DataError: the telemetry does not fit the schema.
        """
        machines: list[Id] = []
        held = 0
        for machine, rows in self.rows.items():
            if machines and held + rows > rows_at_once:
                yield self._part(machines)
                machines, held = [], 0
            machines.append(machine)
            held += rows
        yield self._part(machines)

    def _part(self, machines: list[Id]) -> Tables:
        """The tables of these machines."""
        chosen = self._blocks("telemetry", machines=machines)
        kept = (block[self._ids(block).isin(machines).to_numpy()] for block in chosen)
        frame = self._whole(kept)
        if len(frame) != sum(self.rows[machine] for machine in machines):
            raise DataError(
                f"{self._files['telemetry']}: the file changed while it was read; run again when nothing writes to it"
            )
        try:
            told = frames_to_tables({"telemetry": frame}, self._schema, {})
        except DataError as error:
            if len(machines) == len(self.rows):
                raise
            raise DataError(f"{error} (rows counted among those of machines {machines[0]} to {machines[-1]})") from None
        codes = self._others.codes(map(str, machines))
        known = self._others.select(np.array([code for code in codes if code is not None], np.int64))
        if told.names is not None:  # every machine of these tables has telemetry
            known = known.recoded(told.names)
        return replace(known, machine=told.machine, time=told.time, values=told.values)

    def _blocks(
        self, table: str, only: list[str] | None = None, machines: list[Id] | None = None
    ) -> Iterator[pd.DataFrame]:
        """Yield the blocks of one table, with our column names.

        Rows of machines other than ``machines`` are left out where the format can.
        """
        paths, read = self._files[table], self._read[table]
        in_file = formats.file_of(paths[0]).is_file()
        if len(paths) > 1 or (in_file and formats.suffix(paths[0]) not in formats.PARQUET) or read.tag:
            yield from tables.blocks(
                self._location, table, paths, self._columns, read,
                named=self._schema.has_names, at_once=ROWS, only=only,
            )  # fmt: skip
            return
        path = paths[0]
        mapping = self._columns.get(table, {})
        machine = next((theirs for theirs, ours in mapping.items() if ours == "machineID"), "machineID")
        try:
            data = DeltaTable(path).to_pyarrow_dataset() if is_delta(path) else ds.dataset(path, format="parquet")
            names = data.schema.names
            kept, wanted = None, None
            if machine in names and only is not None:
                wanted = [machine]
            if machines and machine in names and self._chooses(kind := data.schema.field(machine).type):
                kept = ds.field(machine).isin(pa.array(machines, kind))
            for batch in data.to_batches(columns=wanted, filter=kept, batch_size=ROWS, batch_readahead=1):
                frame = formats.tidy(formats.indexed(batch.to_pandas()), read)
                renamed = rename(table, frame, {table: mapping if wanted is None else {machine: "machineID"}})
                yield tables.finished(table, renamed, read)
        except (OSError, ValueError, pa.ArrowException, DeltaError) as error:  # pandas' own errors are ValueErrors
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:300]}") from error

    def _chooses(self, kind: pa.DataType) -> bool:
        """Whether a file or Delta table with machines of this type can leave out rows of other machines by itself."""
        if self._read["telemetry"].machine_prefix:
            return False
        if self._schema.has_names:
            return self._as_read and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
        return bool(pa.types.is_integer(kind))

    @staticmethod
    def _whole(blocks: Iterator[pd.DataFrame]) -> pd.DataFrame:
        """A table as one frame."""
        return pd.concat([*blocks], ignore_index=True)

    def _ids(self, block: pd.DataFrame) -> pd.Series:
        """The machine of each row of a block of telemetry."""
        read, kind = block["machineID"], wanted("telemetry", "machineID", self._schema.machine_id)
        ids, unreadable = convert(read, kind)
        if (bad := unreadable | ids.isna().to_numpy()).any():
            first = read[bad].iloc[0]
            what = "is missing in some row" if pd.isna(first) else f"{str(first)[:60]!r} {WANTED[kind][0]}"
            raise DataError(f"telemetry.machineID: {what}; {WANTED[kind][1]}")
        self._as_read = self._as_read and (not self._schema.has_names or ids.equals(read.astype(ids.dtype)))
        return ids


def is_delta(path: Path) -> bool:
    """Whether this is the folder of a Delta table."""
    return (path / "_delta_log").is_dir()


def find(location: Path, files: Mapping[str, str | list[str]]) -> dict[str, list[Path]]:
    """The files, or the Delta table, of each input table of a model.

    Raises:
        DataError: the location does not exist, a table has two files, or there is no telemetry.
    """
    if not location.exists():
        raise DataError(f"{location}: no such file or folder; give the folder that holds your tables")
    if is_delta(location) or location.is_file():
        return {"telemetry": [_readable(location)]}
    own = {table: files[table] for table in TABLES if table in files}
    found = named(location, own)
    for table in TABLES:
        if table in found:
            continue
        names = [f"{prefix}{table}{end}" for prefix in ("PdM_", "") for end in (".csv", ".parquet", "")]
        present = [path for name in names if (path := location / name).is_file() or is_delta(path)]
        if len(present) > 1:
            raise DataError(f"{location}: {present[0].name} and {present[1].name} are the same table; keep one")
        if present:
            found[table] = [_readable(present[0])]
    if "telemetry" not in found:
        raise DataError(
            f"{location}: no telemetry is recognised; put PdM_telemetry.csv, PdM_telemetry.parquet or a Delta table "
            "PdM_telemetry there, or name your own files under files: in a parameter file, as make data-check proposes"
        )
    return found


def _readable(path: Path) -> Path:
    """The path, if its name is that of a table; raise DataError otherwise."""
    if path.is_file() and not formats.readable(path):
        raise DataError(
            f"{path}: neither a text file, a workbook, Parquet nor a Delta table by its name; give .csv or .parquet"
        )
    return path
