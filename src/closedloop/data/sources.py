"""The five tables from files, and to files.

A location is a folder of ``PdM_<table>.csv`` or ``.parquet`` (format ``azure-pdm``), or one of the public sets that
``adapters`` knows.
"""

from __future__ import annotations

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
    "read_frames",
    "read_tables",
    "tables_to_frames",
    "write_tables",
]


def _native(location: Path) -> dict[str, Path]:
    """The file of each table in a folder of the reference layout.

    Raises:
        DataError: a table is there twice.
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


def _find(location: Path) -> dict[str, Path] | adapters.Dataset:
    """The files of a folder in the reference layout, or the public set that it holds.

    Raises:
        DataError: there is no such place, or nothing in it is recognised.
    """
    if not location.exists():
        raise DataError(f"{location}: no such file or folder; give the folder that holds your tables")
    native = _native(location)
    if "telemetry" in native:
        return native
    public = adapters.read(location)
    if public is None:
        raise DataError(
            f"{location}: no data is recognised; put PdM_telemetry.csv or PdM_telemetry.parquet there (and, as far as "
            "you have them, PdM_errors, PdM_maint, PdM_failures, PdM_machines), or give SKAB, NAB or C-MAPSS"
        )
    return public


def discover(location: Path) -> dict[str, Any]:
    """What a location holds.

    Returns:
        ``format``; ``source``, a name for the fleet; ``tables``, those that are present; ``rule``, how to split it;
        ``schema``, as in ``params.yaml``, or None for the reference layout, whose schema only its owner knows.

    Raises:
        DataError: there is no such place, or nothing in it is recognised.
    """
    found = _find(location)
    if isinstance(found, adapters.Dataset):
        form, source, rule, schema, tables = found.format, found.format, found.rule, found.schema, list(found.frames)
    else:
        form, source, rule, schema = "azure-pdm", location.resolve().name, "fleet", None
        tables = [table for table in KEYS if table in found]
    return {"format": form, "source": source, "tables": tables, "rule": rule, "schema": schema}


def _read_file(path: Path, texts: list[str]) -> pd.DataFrame:
    """One file as it is; the columns ``texts`` stay text, so that a code 007 is not 7."""
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=dict.fromkeys(texts, "str"), low_memory=False)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from error


def read_frames(location: Path, columns: Columns) -> Frames:
    """The frames of a location with your columns renamed to ours, for validation.

    Columns are converted where every value can be: a time that is none stays text, for the expectations to show.

    Raises:
        DataError: nothing is recognised, a file cannot be read, or ``columns`` names what is not there.
    """
    check_mapping(columns)
    found = _find(location)
    if isinstance(found, adapters.Dataset):
        return found.frames
    frames = {}
    for table in KEYS:
        if table in found:
            text = NAME_COLUMN.get(table, "")
            theirs = [name for name, ours in columns.get(table, {}).items() if ours == text]
            frames[table] = typed(table, rename(table, _read_file(found[table], [text, *theirs]), columns))
    return frames


def read_tables(location: Path, schema: Schema, columns: Columns) -> Tables:
    """The tables of a location. See :func:`frames_to_tables` for what is refused."""
    return frames_to_tables(read_frames(location, columns), schema, {})


def read_anomalies(location: Path) -> pd.DataFrame | None:
    """The labelled anomalies of a location, times in UTC; None where there are none."""
    found = _find(location)
    if isinstance(found, adapters.Dataset):
        return found.anomalies
    path = found.get("anomalies")
    if path is None:
        return None
    frame = _read_file(path, ["sensor", "kind"])
    for name in ("machineID", "start", "end"):
        if name not in frame:
            raise DataError(f"{path}: the column {name} is missing; anomalies need machineID, start and end")
        kind = wanted("anomalies", name)
        frame[name], unreadable = convert(frame[name], kind)
        if unreadable.any() or frame[name].isna().any():
            raise DataError(f"{path}: {name} is missing or {WANTED[kind][0]} in some rows; {WANTED[kind][1]}")
    return frame


def write_tables(tables: Tables, schema: Schema, folder: Path) -> None:
    """Write ``PdM_<table>.parquet``; reading them back gives the same fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = tables_to_frames(tables, schema)
    for table in KEYS:
        path = folder / f"PdM_{table}.parquet"
        if table in frames:
            frames[table].to_parquet(path, index=False)
        else:  # a table from an earlier writing would join this one
            path.unlink(missing_ok=True)
