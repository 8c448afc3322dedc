"""Read the five tables from files, and write them.

A location is a folder of ``PdM_<table>.csv`` or ``.parquet`` (format ``azure-pdm``), a folder whose files are named in
``params.yaml`` (format ``files``), or one of the public sets that ``adapters`` recognises.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import adapters
from closedloop.data.frames import (
    NAME_COLUMN,
    WANTED,
    Columns,
    Frames,
    check_mapping,
    convert,
    frames_to_tables,
    numbered,
    rename,
    tables_to_frames,
    typed,
    wanted,
)
from closedloop.data.schema import KEYS, DataError, Schema, Tables

__all__ = [
    "discover",
    "frames_to_tables",
    "read_anomalies",
    "read_file",
    "read_frames",
    "read_tables",
    "tables_to_frames",
    "write_tables",
]


def native(location: Path) -> dict[str, Path]:
    """The file of each table in a folder of the standard layout.

    Raises:
        DataError: a table has two files.
    """
    found: dict[str, Path] = {}
    for table in (*KEYS, "anomalies"):
        names = [f"{prefix}{table}{suffix}" for prefix in ("PdM_", "") for suffix in (".csv", ".parquet")]
        paths = [location / name for name in (names if table == "anomalies" else names[:2])]
        present = [path for path in paths if path.is_file()]
        if len(present) > 1:
            raise DataError(f"{location}: {present[0].name} and {present[1].name} are the same table; keep one")
        if present:
            found[table] = present[0]
    return found


def _named(location: Path, files: Mapping[str, str]) -> dict[str, Path]:
    """The files that ``files:`` of ``params.yaml`` names."""
    if unknown := sorted(set(files) - set(KEYS)):
        raise DataError(f"files: {unknown[0]!r} is not a table; known are {', '.join(KEYS)}")
    for table, name in files.items():
        if not (location / name).is_file():
            raise DataError(f"files.{table}: {location / name} is not there; correct the name in params.yaml")
    return {table: location / name for table, name in files.items()}


def _find(location: Path, files: Mapping[str, str] | None = None) -> dict[str, Path] | adapters.Dataset:
    """The files of each table, as named or in the standard layout, or the public set that the folder holds.

    Raises:
        DataError: the location does not exist, or nothing in it is recognised.
    """
    if not location.exists():
        raise DataError(f"{location}: no such file or folder; give the folder that holds your tables")
    if files:
        return _named(location, files)
    named = native(location)
    if "telemetry" in named:
        return named
    public = adapters.read(location)
    if public is None:
        raise DataError(
            f"{location}: no data is recognised; put PdM_telemetry.csv or PdM_telemetry.parquet there (and, as far as "
            "you have them, PdM_errors, PdM_maint, PdM_failures, PdM_machines), give SKAB, NAB or C-MAPSS, or let "
            f"make data-check DATA={location} propose how your own files fit"
        )
    return public


def discover(location: Path, files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a location holds.

    Returns:
        ``format``; ``source``, a name for the fleet; ``tables``, those that are present; ``split`` and ``schema``, as
        in ``params.yaml`` for a public set, and None for any other fleet: only its owner knows them.

    Raises:
        DataError: the location does not exist, or nothing in it is recognised.
    """
    found = _find(location, files)
    if isinstance(found, adapters.Dataset):
        about = {"format": found.format, "source": found.format, "split": found.split, "schema": found.schema}
        return about | {"tables": list(found.frames)}
    about = {"format": "files" if files else "azure-pdm", "source": location.resolve().name}
    return about | {"split": None, "schema": None, "tables": [table for table in KEYS if table in found]}


def separator(path: Path) -> str:
    """The separator of a CSV file: comma, semicolon or tab, the first of these that its first line has."""
    with path.open(encoding="utf-8") as file:
        head = file.readline()
    return next((mark for mark in (",", ";", "\t") if mark in head), ",")


def read_file(path: Path, texts: Collection[str], rows: int | None = None) -> pd.DataFrame:
    """One file as a frame, or its first ``rows``. The columns ``texts`` stay text, so that a code 007 is not 7.

    A CSV file may be separated by commas, semicolons or tabs.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path) if rows is None else pd.read_parquet(path).head(rows)
        return pd.read_csv(path, sep=separator(path), dtype=dict.fromkeys(texts, "str"), nrows=rows, low_memory=False)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from error


def read_frames(
    location: Path,
    columns: Columns,
    files: Mapping[str, str] | None = None,
    machine_numbers: Mapping[str, int] | None = None,
) -> Frames:
    """The frames of a location with your columns renamed to ours, for validation.

    A column is converted if all its values can be. Otherwise it stays as read, for the expectations to report.

    Args:
        location: folder or file.
        columns: your column names for ours, by table.
        files: the name of each table's file; without it, the names of the standard layout.
        machine_numbers: a number for each machine, where your machines have names.

    Raises:
        DataError: nothing is recognised, a file cannot be read, ``columns`` or ``files`` names what does not exist, or
            a machine has no number.
    """
    check_mapping(columns)
    found = _find(location, files)
    if isinstance(found, adapters.Dataset):
        return found.frames
    frames = {}
    for table in KEYS:
        if table in found:
            texts = {NAME_COLUMN.get(table, ""), "machineID" if machine_numbers else ""}
            theirs = {name for name, ours in columns.get(table, {}).items() if ours in texts}
            frame = rename(table, read_file(found[table], texts | theirs), columns)
            frames[table] = typed(table, numbered(table, frame, machine_numbers or {}))
    return frames


def read_tables(location: Path, schema: Schema, columns: Columns) -> Tables:
    """The tables of a location. :func:`frames_to_tables` says what is refused."""
    return frames_to_tables(read_frames(location, columns), schema, {})


def read_anomalies(location: Path, files: Mapping[str, str] | None = None) -> pd.DataFrame | None:
    """The labelled anomalies of a location, with times in UTC; None if it has none."""
    found = _find(location, files)
    if isinstance(found, adapters.Dataset):
        return found.anomalies
    path = found.get("anomalies")
    if path is None:
        return None
    frame = read_file(path, ["sensor", "kind"])
    for name in ("machineID", "start", "end"):
        if name not in frame:
            raise DataError(f"{path}: the column {name} is missing; anomalies need machineID, start and end")
        kind = wanted("anomalies", name)
        frame[name], unreadable = convert(frame[name], kind)
        if unreadable.any() or frame[name].isna().any():
            raise DataError(f"{path}: {name} is missing or {WANTED[kind][0]} in some rows; {WANTED[kind][1]}")
    return frame


def write_tables(tables: Tables, schema: Schema, folder: Path) -> None:
    """Write the tables as ``PdM_<table>.parquet``. Reading them back gives the same fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = tables_to_frames(tables, schema)
    for table in KEYS:
        path = folder / f"PdM_{table}.parquet"
        if table in frames:
            frames[table].to_parquet(path, index=False)
        else:  # otherwise a file of an earlier call would join these tables
            path.unlink(missing_ok=True)
