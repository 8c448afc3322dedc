"""Parts of kind ``delta`` of the data pin: Delta tables at named versions, read where they lie.

What a run needs of them, by columns of time, goes into Parquet files below build/pinned and is read from there as any
files are: with your column names, and as ``read:`` of the parameters says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from closedloop.data import sources
from closedloop.data.frames import Frames
from closedloop.data.schema import KEYS, DataError
from closedloop.log.sink import FAULTS, one_line
from model.common import cli, pinned_files, places, provenance
from model.common.params import Params

TIMED = tuple(table for table in KEYS if table != "machines")


def find(part: Mapping[str, Any], names: Mapping[str, str | list[str]]) -> dict[str, Any] | None:
    """Return the part that pins the Delta tables of a place at their newest versions; None where there are none.

    Args:
        part: the location, and what it says of its store.
        names: ``files:`` of the parameters; else tables are called ``PdM_<table>`` or ``<table>``. A location that is
            itself a Delta table is the telemetry.

    Raises:
        DataError: the store does not answer, or a table is there twice.
    """
    if is_table(part, ""):
        parent, _, name = part["location"].rstrip("/").rpartition("/")
        if not parent or parent.endswith(":/"):
            raise DataError(f"{part['location']}: is a table without a folder around it; move it into a folder")
        part, found = {**part, "location": parent}, {"telemetry": name}
    else:
        found = {}
        for table in KEYS:
            given = names.get(table)
            wanted = [given] if isinstance(given, str) else [f"PdM_{table}", table] if not names else []
            there = [name for name in wanted if is_table(part, name)]
            if len(there) > 1:
                raise DataError(f"{part['location']}: {there[0]} and {there[1]} are the same table; keep one")
            if there:
                found[table] = there[0]
    if not found:
        return None
    versions = {table: _open(part, name, None).version() for table, name in found.items()}
    return {"kind": "delta", **part, "tables": found, "versions": versions}


def moved(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part with the newest version of each table."""
    return {**part, "versions": {table: _open(part, name, None).version() for table, name in part["tables"].items()}}


def fetch(part: Mapping[str, Any], asked: Params) -> Frames:
    """Return the frames of a part.

    Raises:
        DataError: a table lacks its version, or cannot be read.
    """
    folder = pinned_files.stage(part, {})
    folder.mkdir(parents=True)
    columns = part.get("columns", asked.columns)
    for table, name in part["tables"].items():
        cli.say(f"reading {part['location']}/{name} at version {part['versions'][table]}")
        _copy(part, table, columns.get(table, {}), folder / f"PdM_{table}.parquet")
    frames = sources.read_frames(folder, columns, {}, asked.schema.machine_id, asked.read)
    return {table: _within(part, frame) if table in TIMED else frame for table, frame in frames.items()}


def _copy(part: Mapping[str, Any], table: str, mapping: Mapping[str, str], path: Path) -> None:
    """Write the rows of one table that the part's time range may have into a Parquet file."""
    name, version = part["tables"][table], part["versions"][table]
    where = f"{part['location']}/{name} at version {version}"
    opened = _open(part, name, version)
    try:
        data = opened.to_pyarrow_dataset()
        time = next((theirs for theirs, ours in mapping.items() if ours == "datetime"), "datetime")
        kept = _range(part, time, data.schema) if table in TIMED else None
        with pq.ParquetWriter(path, data.schema) as writer:
            for batch in data.to_batches(filter=kept):
                writer.write_batch(batch)
    except FileNotFoundError as error:
        fix = "its files were vacuumed; pin what is there with: make data-pin"
        raise DataError(f"{where}: cannot be read ({one_line(error)}); {fix}") from error
    except (*FAULTS, pa.ArrowException) as error:
        raise places.trouble(part, where, error) from error


def _range(part: Mapping[str, Any], time: str, schema: pa.Schema) -> pc.Expression | None:
    """Return the filter of the part's time range, where the table has its times as times; None where it has not."""
    if time not in schema.names or not pa.types.is_timestamp(kind := schema.field(time).type) or kind.tz is None:
        return None
    kept = None
    for key, compare in (("from", pc.greater_equal), ("until", pc.less)):
        if key in part:
            one = compare(pc.field(time), pa.scalar(_time(part[key]).to_pydatetime(), pa.timestamp("us", "UTC")))
            kept = one if kept is None else kept & one
    return kept


def _within(part: Mapping[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows from ``from`` up to and without ``until``; times that cannot be read stay, to be reported."""
    times = frame.get("datetime")
    if times is None or not pd.api.types.is_datetime64_any_dtype(times):
        return frame
    times = times.dt.tz_localize("UTC") if times.dt.tz is None else times
    kept = pd.Series(True, frame.index)
    if "from" in part:
        kept &= ~(times < _time(part["from"]))
    if "until" in part:
        kept &= ~(times >= _time(part["until"]))
    return frame[kept].reset_index(drop=True)


def _time(text: str) -> pd.Timestamp:
    return pd.Timestamp(pd.to_datetime(text, utc=True, format="ISO8601"))


def is_table(part: Mapping[str, Any], name: str) -> bool:
    """Return whether there is a Delta table of this name, or at the location itself for an empty name."""
    if not places.scheme(part["location"]) and not (provenance.ROOT / part["location"] / name / "_delta_log").is_dir():
        return False  # asked of the disk, since a folder of files may have a name that Delta tables cannot have
    place = places.sink(part)
    try:
        return DeltaTable.is_deltatable(f"{place.place}/{name}".rstrip("/"), place.options or None)
    except FAULTS as error:
        raise places.trouble(part, f"{part['location']}/{name}".rstrip("/"), error) from error


def _open(part: Mapping[str, Any], name: str, version: int | None) -> DeltaTable:
    place = places.sink(part)
    try:
        return DeltaTable(f"{place.place}/{name}", version=version, storage_options=place.options or None)
    except FAULTS as error:
        where = f"{part['location']}/{name}" + ("" if version is None else f" at version {version}")
        raise places.trouble(part, where, error) from error
