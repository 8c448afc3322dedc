"""Read a fleet of any size, a few whole machines at a time, from CSV, Parquet or Delta tables in any order of rows.

The first pass counts the telemetry rows of each machine. Each part of the fleet is one more pass that keeps the rows of
its machines. Memory holds one part, and all events and machine descriptions, which are few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from closedloop.data.frames import NAME_COLUMN, Columns, check_mapping, convert, frames_to_tables, numbered, rename
from closedloop.data.schema import DataError, Int64, Schema, Tables
from closedloop.data.sources import separator

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
        machine_numbers: a number for each machine, where your machines have names.

    Raises:
        DataError: nothing is recognised, a file cannot be read, a column is missing, a machine has no number, or a
            table other than telemetry does not fit the schema.
    """

    def __init__(
        self,
        location: Path,
        schema: Schema,
        columns: Columns,
        files: Mapping[str, str] | None = None,
        machine_numbers: Mapping[str, int] | None = None,
    ) -> None:
        check_mapping(columns)
        self._files = find(location, files or {})
        self._schema = schema
        self._columns = columns
        self._numbers = machine_numbers or {}
        self._machine = self._theirs("telemetry", "machineID")
        frames = {table: self._whole(table, self._blocks(table)) for table in TABLES[1:] if table in self._files}
        counted: Counter[int] = Counter()
        if (first := next(self._blocks("telemetry"), None)) is not None:
            nothing = self._whole("telemetry", iter([first.head(0)]))
            self._others = frames_to_tables({"telemetry": nothing, **frames}, schema, {})
            for block in self._blocks("telemetry", only=[self._machine]):
                ids, counts = np.unique(self._ids(block), return_counts=True)
                counted.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
        if not counted:
            raise DataError(f"{self._files['telemetry']}: no rows; give at least one row of telemetry of one machine")
        self.rows = dict(sorted(counted.items()))

    def parts(self, rows_at_once: int) -> Iterator[Tables]:
        """Yield the fleet in order of its machines, in parts of at most ``rows_at_once`` rows, or of one machine.

        Raises:
            DataError: the telemetry does not fit the schema.
        """
        machines: list[int] = []
        held = 0
        for machine, rows in self.rows.items():
            if machines and held + rows > rows_at_once:
                yield self._part(machines)
                machines, held = [], 0
            machines.append(machine)
            held += rows
        yield self._part(machines)

    def _part(self, machines: list[int]) -> Tables:
        """The tables of these machines."""
        ids = np.array(machines, np.int64)
        kept = (block[np.isin(self._ids(block), ids)] for block in self._blocks("telemetry", machines=machines))
        frame = self._whole("telemetry", kept)
        if len(frame) != sum(self.rows[machine] for machine in machines):
            raise DataError(
                f"{self._files['telemetry']}: the file changed while it was read; run again when nothing writes to it"
            )
        try:
            told = frames_to_tables({"telemetry": frame}, self._schema, {})
        except DataError as error:
            if len(machines) == len(self.rows):
                raise
            raise DataError(f"{error} (rows counted among those of machines {ids[0]} to {ids[-1]})") from None
        known = self._others.select(ids)
        return replace(known, machine=told.machine, time=told.time, values=told.values)

    def _theirs(self, table: str, name: str) -> str:
        """The name in the file of one of our columns."""
        return next((theirs for theirs, ours in self._columns.get(table, {}).items() if ours == name), name)

    def _blocks(
        self, table: str, only: list[str] | None = None, machines: list[int] | None = None
    ) -> Iterator[pd.DataFrame]:
        """Yield the blocks of one table. Rows of machines other than ``machines`` are left out where the format can."""
        names = [NAME_COLUMN.get(table, ""), "machineID" if self._numbers else ""]
        texts = {self._theirs(table, name) for name in names if name}
        path = self._files[table]
        try:
            if path.suffix == ".csv" and path.is_file():
                types = dict.fromkeys(texts, "str")
                with pd.read_csv(
                    path, sep=separator(path), dtype=types, usecols=only, chunksize=ROWS, low_memory=False
                ) as blocks:
                    yield from blocks
                return
            data = DeltaTable(path).to_pyarrow_dataset() if is_delta(path) else ds.dataset(path, format="parquet")
            kept = None
            if machines and pa.types.is_integer(kind := data.schema.field(self._machine).type):
                kept = ds.field(self._machine).isin(pa.array(machines, kind))
            for batch in data.to_batches(columns=only, filter=kept, batch_size=ROWS, batch_readahead=1):
                yield batch.to_pandas()
        except (OSError, ValueError, pa.ArrowException, DeltaError) as error:  # pandas' own errors are ValueErrors
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:300]}") from error

    def _whole(self, table: str, blocks: Iterator[pd.DataFrame]) -> pd.DataFrame:
        """A table as one frame, with our column names and with numbers for machines."""
        frame = pd.concat([*blocks], ignore_index=True)
        return numbered(table, rename(table, frame, self._columns), self._numbers)

    def _ids(self, block: pd.DataFrame) -> Int64:
        """The machine of each row of a block of telemetry."""
        named = numbered("telemetry", block[[self._machine]].set_axis(["machineID"], axis=1), self._numbers)[
            "machineID"
        ]
        ids, unreadable = convert(named, "whole")
        if (bad := unreadable | ids.isna().to_numpy()).any():
            first = named[bad].iloc[0]
            what = "is missing in some row" if pd.isna(first) else f"{str(first)[:60]!r} is not a whole number"
            raise DataError(f"telemetry.machineID: {what}; number your machines, or drop the row")
        return ids.to_numpy(np.int64)


def is_delta(path: Path) -> bool:
    """Whether this is the folder of a Delta table."""
    return (path / "_delta_log").is_dir()


def find(location: Path, files: Mapping[str, str]) -> dict[str, Path]:
    """The file or Delta table of each input table of a model.

    Raises:
        DataError: the location does not exist, a table has two files, or there is no telemetry.
    """
    if not location.exists():
        raise DataError(f"{location}: no such file or folder; give the folder that holds your tables")
    if is_delta(location) or location.is_file():
        return {"telemetry": _readable(location)}
    found = {}
    for table in TABLES:
        names: Collection[str] = [
            f"{prefix}{table}{end}" for prefix in ("PdM_", "") for end in (".csv", ".parquet", "")
        ]
        if table in files:
            names = [files[table]]
        present = [path for name in names if (path := location / name).is_file() or is_delta(path)]
        if len(present) > 1:
            raise DataError(f"{location}: {present[0].name} and {present[1].name} are the same table; keep one")
        if present:
            found[table] = _readable(present[0])
        elif table in files:
            raise DataError(f"files.{table}: {location / files[table]} is not there; correct the name in params.yaml")
    if "telemetry" not in found:
        raise DataError(
            f"{location}: no telemetry is recognised; put PdM_telemetry.csv, PdM_telemetry.parquet or a Delta table "
            "PdM_telemetry there, or name your own files under files: in a parameter file, as make data-check proposes"
        )
    return found


def _readable(path: Path) -> Path:
    """The path, if its name is that of a table; raise DataError otherwise."""
    if path.is_file() and path.suffix not in (".csv", ".parquet"):
        raise DataError(f"{path}: neither CSV, Parquet nor a Delta table by its name; give .csv or .parquet")
    return path
