"""Read the five tables from files, and write them.

A location is a folder of ``PdM_<table>.csv`` or ``.parquet`` (format ``azure-pdm``), a folder whose files are named in
``params.yaml`` (format ``files``), or one of the public sets that ``adapters`` recognises.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import adapters, machines, reading, tables
from closedloop.data.files import file_of, matching, read_file
from closedloop.data.frames import (
    WANTED,
    Columns,
    Frames,
    check_mapping,
    convert,
    frames_to_tables,
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
    for table in (*KEYS, "anomalies", "marks"):
        names = [f"{prefix}{table}{suffix}" for prefix in ("PdM_", "") for suffix in (".csv", ".parquet")]
        paths = [location / name for name in (names if table == "anomalies" else names[:2])]
        present = [path for path in paths if path.is_file()]
        if len(present) > 1:
            raise DataError(f"{location}: {present[0].name} and {present[1].name} are the same table; keep one")
        if present:
            found[table] = present[0]
    return found


def named(location: Path, files: Mapping[str, str | list[str]]) -> dict[str, list[Path]]:
    """The files that ``files:`` of ``params.yaml`` names, by table.

    Raises:
        DataError: a file is not there, or no file fits a pattern.
    """
    found = {}
    for table, names in reading.check_files(dict(files)).items():
        others = {
            name for other, of in files.items() if other != table for name in ([of] if isinstance(of, str) else of)
        }
        found[table] = matching(location, names, others)
        lost = next((path for path in found[table] if not file_of(path).exists()), None)
        if lost is not None:
            raise DataError(f"files.{table}: {lost} is not there; correct the name in params.yaml")
        if not found[table]:
            raise DataError(f"files.{table}: no file fits {names!r} in {location}; correct it in params.yaml")
    return found


def _find(
    location: Path, files: Mapping[str, str | list[str]] | None = None
) -> dict[str, list[Path]] | adapters.Dataset:
    """The files of each table, as named or in the standard layout, or the public set that the folder holds.

    Raises:
        DataError: the location does not exist, or nothing in it is recognised.
    """
    if not location.exists():
        raise DataError(f"{location}: no such file or folder; give the folder that holds your tables")
    if files:
        return named(location, files)
    standard = native(location)
    if "telemetry" in standard:
        return {table: [path] for table, path in standard.items()}
    public = adapters.read(location)
    if public is None:
        raise DataError(
            f"{location}: no data is recognised; put PdM_telemetry.csv or PdM_telemetry.parquet there (and, as far as "
            "you have them, PdM_errors, PdM_maint, PdM_failures, PdM_machines), give SKAB, NAB or C-MAPSS, or let "
            f"make data-check DATA={location} propose how your own files fit"
        )
    return public


def discover(location: Path, files: Mapping[str, str | list[str]] | None = None) -> dict[str, Any]:
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


def read_frames(
    location: Path,
    columns: Columns,
    files: Mapping[str, str | list[str]] | None = None,
    machine_id: str = machines.NUMBER,
    read: Mapping[str, Any] | None = None,
    done: list[str] | None = None,
) -> Frames:
    """The frames of a location with your columns renamed to ours, for validation.

    A column is converted if all its values can be. Otherwise it stays as read, for the expectations to report.

    Args:
        location: folder or file.
        columns: your column names for ours, by table.
        files: the name of each table's file, a pattern or a list; without it, the names of the standard layout.
        machine_id: ``number`` or ``text``, as ``schema.machine_id`` declares.
        read: how the files are written; a mapping, even an empty one, also has rows sorted, repeated ones read once,
            and a column of models or ages that is not there left empty. Without it the tables are read as they lie.
        done: where to add what was done to the rows.

    Raises:
        DataError: nothing is recognised, a file cannot be read, or ``columns`` or ``files`` names what does not exist.
    """
    check_mapping(columns)
    found = _find(location, files)
    if isinstance(found, adapters.Dataset):
        return found.frames
    frames = {}
    for table in KEYS:
        if table in found:
            how = reading.settings(read or {}, table)
            frame = tables.read_table(location, table, found[table], columns, how, named=machine_id == machines.TEXT)
            if read is not None and table == "machines":
                frame = frame.assign(**{name: None for name in ("model", "age") if name not in frame})
            frame = typed(table, frame, machine_id)
            if read is not None:
                frame = tables.settled(table, frame, done if done is not None else [], machine_id)
            frames[table] = frame
    if "marks" in found:
        frames["marks"] = typed("marks", read_file(found["marks"][0], []), machine_id)
    return frames


def machine_names(
    location: Path, columns: Columns, files: Mapping[str, str | list[str]] | None, read: Mapping[str, Any]
) -> set[str]:
    """The names of all machines of a location, in all its tables, as its files write them."""
    found = _find(location, files)
    if isinstance(found, adapters.Dataset):
        return {str(name) for frame in found.frames.values() for name in frame["machineID"].dropna().unique()}
    names: set[str] = set()
    for table in (table for table in KEYS if table in found):
        how = reading.settings(read, table)
        frame = tables.read_table(location, table, found[table], columns, how, named=True)
        if "machineID" in frame:
            names |= {str(name) for name in frame["machineID"].dropna().unique()}
    return names


def read_tables(location: Path, schema: Schema, columns: Columns) -> Tables:
    """The tables of a location. :func:`frames_to_tables` says what is refused."""
    return frames_to_tables(read_frames(location, columns, machine_id=schema.machine_id), schema, {})


def read_anomalies(
    location: Path,
    files: Mapping[str, str | list[str]] | None = None,
    columns: Columns | None = None,
    machine_id: str = machines.NUMBER,
    read: Mapping[str, Any] | None = None,
) -> pd.DataFrame | None:
    """The labelled anomalies of a location, with times in UTC; None if it has none."""
    found = _find(location, files)
    if isinstance(found, adapters.Dataset):
        return found.anomalies
    if "anomalies" not in found:
        return None
    how = reading.settings(read or {}, "anomalies")
    path = found["anomalies"][0]
    named = machine_id == machines.TEXT
    if how.flag:
        frame = tables.read_table(location, "anomalies", found["anomalies"], columns or {}, how, named)
    else:
        frame = read_file(path, ["sensor", "kind", *(["machineID"] if named else [])])
    for name in ("machineID", "start", "end"):
        if name not in frame:
            raise DataError(f"{path}: the column {name} is missing; anomalies need machineID, start and end")
        kind = wanted("anomalies", name, machine_id)
        frame[name], unreadable = convert(frame[name], kind)
        if unreadable.any() or frame[name].isna().any():
            raise DataError(f"{path}: {name} is missing or {WANTED[kind][0]} in some rows; {WANTED[kind][1]}")
    return frame


def write_tables(tables: Tables, schema: Schema, folder: Path) -> None:
    """Write the tables as ``PdM_<table>.parquet``. Reading them back gives the same fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = tables_to_frames(tables, schema)
    for table in (*KEYS, "marks"):
        path = folder / f"PdM_{table}.parquet"
        if table in frames:
            frames[table].to_parquet(path, index=False)
        else:  # otherwise a file of an earlier call would join these tables
            path.unlink(missing_ok=True)
