"""Read one table from files of any form, with our column names, as ``read:``, ``files:`` and ``columns:`` say."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from closedloop.data import files, machines, times
from closedloop.data.frames import NAME_COLUMN, Columns, convert, rename, wanted
from closedloop.data.reading import Read
from closedloop.data.schema import KEYS, DataError


def blocks(
    location: Path,
    table: str,
    paths: Collection[Path],
    columns: Columns,
    read: Read,
    *,
    named: bool = False,
    at_once: int | None = None,
    only: Collection[str] | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield one table in blocks of at most ``at_once`` rows where its form allows it, else as a whole.

    A column holds what its file holds, but for times, marks of numbers, missing values, and yes and no as 1 and 0.

    Args:
        location: the folder that ``paths`` lie in.
        table: our name of the table.
        paths: its files.
        columns: your column names for ours, by table.
        read: how the files are written.
        named: machines have names, so that their column stays text.
        at_once: rows of a block; None for one block.
        only: the columns that are wanted, by our names; None for all.

    Raises:
        DataError: a file cannot be read, or a setting names a column that it lacks.
    """
    if read.tag or read.flag or (read.time_zone and at_once):  # these need all rows of a machine together
        whole = [*_renamed(location, table, paths, columns, read, named, None, None)]
        yield finished(table, pd.concat(whole, ignore_index=True), read)
        return
    for frame in _renamed(location, table, paths, columns, read, named, at_once, only):
        yield finished(table, frame, read)


def read_table(
    location: Path, table: str, paths: Collection[Path], columns: Columns, read: Read, named: bool = False
) -> pd.DataFrame:
    """One table as a frame with our column names. :func:`blocks` explains the arguments."""
    parts = [*_renamed(location, table, paths, columns, read, named, None, None)]
    frame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return finished(table, frame, read)


def _renamed(
    location: Path,
    table: str,
    paths: Collection[Path],
    columns: Columns,
    read: Read,
    named: bool,
    at_once: int | None,
    only: Collection[str] | None,
) -> Iterator[pd.DataFrame]:
    """Yield the blocks of the files with our names of columns, before their values are converted."""
    mapping = columns.get(table, {})
    texts = {NAME_COLUMN.get(table, ""), "machineID" if named else "", "datetime" if read.time_format else ""} - {""}
    texts |= files.keys_of(mapping, texts) | {*read.date_and_time, *(read.only or ()), *filter(None, [read.tag])}
    wanted = None
    if only is not None and read.machine is None and read.machine_from is None:  # else no column names the machine
        wanted = set(only) | files.keys_of(mapping, only) | set(read.only or ())
        columns = {table: {theirs: ours for theirs, ours in mapping.items() if ours in only}}
    for path in paths:
        for frame in files.blocks(path, texts, read, at_once=at_once, only=wanted):
            frame = rename(table, _rows(joined(frame, read, table), read, table), columns)
            if "machineID" not in frame and (machine := _machine(location, path, read)) is not None:
                frame = frame.assign(machineID=machine)
            yield frame


def _machine(location: Path, path: Path, read: Read) -> int | str | None:
    """The machine of a file without a column of machines, or None where nothing says it."""
    name: str | None = read.machine
    if read.machine_from is not None:
        inside = path.relative_to(location).as_posix() if location in path.parents else path.name
        name = files.machine_of(inside, read.machine_from)
        if name is None:
            raise DataError(f"{path}: does not fit read.machine_from {read.machine_from!r}; correct it in params.yaml")
    if name is None:
        return None
    return int(name) if name.isdigit() and str(int(name)) == name else name


def _column(frame: pd.DataFrame, name: str, key: str) -> pd.Series:
    """A column that a setting names."""
    if name not in frame:
        raise DataError(f"{key}: the table has no column {name!r}, only {', '.join(map(str, frame.columns))}; "
                        "correct the name in params.yaml")  # fmt: skip
    return frame[name]


def joined(frame: pd.DataFrame, read: Read, table: str) -> pd.DataFrame:
    """The frame with the date and the time of day in one column, ``datetime``."""
    if not read.date_and_time or not set(read.date_and_time) & set(frame.columns):
        return frame
    date, clock = (_column(frame, name, f"read.{table}.date_and_time") for name in read.date_and_time)
    if pd.api.types.is_datetime64_any_dtype(date):
        date = date.dt.strftime("%Y-%m-%d")
    day = date.astype("str").str.strip().str.replace(r"[ T]00:00(?::00(?:\.0+)?)?$", "", regex=True)
    both = (day + " " + clock.astype("str").str.strip()).where(date.notna() & clock.notna())
    return frame.drop(columns=list(read.date_and_time)).assign(datetime=both)


def _rows(frame: pd.DataFrame, read: Read, table: str) -> pd.DataFrame:
    """The rows that belong to the table."""
    for name, values in (read.only or {}).items():
        column = _column(frame, name, f"read.{table}.only").astype("str").str.strip()
        frame = frame[column.isin(values)].reset_index(drop=True)
    return frame


def finished(table: str, frame: pd.DataFrame, read: Read) -> pd.DataFrame:
    """The frame with its values converted, in the shape of the table."""
    if read.tag and table == "telemetry":
        frame = _by_tag(frame, read)
    if read.machine_prefix and "machineID" in frame:
        bare = frame["machineID"].astype("str").str.strip().str.removeprefix(read.machine_prefix)
        frame = frame.assign(machineID=bare.where(frame["machineID"].notna()))
    machines = frame.get("machineID")
    new: dict[str, pd.Series] = {}
    for name in frame.columns:
        column = frame[name]
        if name in ("datetime", "start", "end"):
            new[name] = times.parsed(column, replace(read, time_format=read.time_format), machines)
        elif table == "telemetry" and name not in KEYS[table]:
            new[name] = _yes_and_no(files.as_missing(column, read.missing))
        elif table == "machines" and name == "age":
            new[name] = _age(files.as_missing(column, read.missing), read.age_in)
    frame = frame.assign(**new)
    return _events(table, frame, read.flag) if read.flag else frame


def _yes_and_no(column: pd.Series) -> pd.Series:
    """Yes and no as 1 and 0, where the column has no other values."""
    if pd.api.types.is_bool_dtype(column):
        return column.astype("float64")
    if not (isinstance(column.dtype, pd.StringDtype) or column.dtype == object):
        return column
    words = column.astype("str").str.strip().str.lower()
    if column.notna().any() and words[column.notna()].isin(["true", "false"]).all():
        return (words == "true").astype("float64").where(column.notna())
    return column


def _age(column: pd.Series, year: int | None) -> pd.Series:
    """Ages in years, counted in ``year`` where the column holds the year built or its date."""
    if year is None:
        return column
    if pd.api.types.is_datetime64_any_dtype(column):
        return (year - column.dt.year).astype("float64")
    numbers = pd.to_numeric(column, errors="coerce")
    return year - numbers.fillna(pd.to_datetime(column.astype("str"), format="ISO8601", errors="coerce").dt.year)


def _by_tag(frame: pd.DataFrame, read: Read) -> pd.DataFrame:
    """Readings in the long format, one a row, as a table with a column for each sensor.

    A tag that has two readings at one time gets two rows, which validation then shows; none is lost.
    """
    tag, value = str(read.tag), str(read.value)
    tags = _column(frame, tag, "read.tag").astype("str").str.strip()
    readings = _column(frame, value, "read.value")
    if read.tag_separator:
        parts = tags.str.rsplit(read.tag_separator, n=1)
        frame = frame.assign(machineID=parts.str[0]) if "machineID" not in frame else frame
        tags = parts.str[-1]
    for name in ("datetime", "machineID"):
        _column(frame, name, "columns.telemetry")
    long = pd.DataFrame(
        {"machineID": frame["machineID"], "datetime": frame["datetime"], "tag": tags, "value": readings}
    )
    long = long.drop_duplicates().dropna(subset=["tag"])
    long["nth"] = long.groupby(["machineID", "datetime", "tag"], sort=False, dropna=False).cumcount()
    wide = long.set_index(["machineID", "datetime", "nth", "tag"])["value"].unstack("tag")  # noqa: PD010 - a pivot sorts
    order = [name for name in long["tag"].drop_duplicates() if name in wide]
    return wide[order].rename_axis(columns=None).reset_index().drop(columns="nth")


def _events(table: str, frame: pd.DataFrame, flag: str) -> pd.DataFrame:
    """One event for each stretch of rows of a machine in which the flag is set."""
    marked = _column(frame, flag, f"read.{table}.flag")
    words = marked.astype("str").str.strip().str.lower()
    on = pd.to_numeric(marked, errors="coerce").fillna(words.isin(["true", "yes", "y"]).astype("float64")) != 0
    rows = frame[["machineID", "datetime"]].assign(on=on & marked.notna())
    rows = rows.sort_values(["machineID", "datetime"], kind="stable", ignore_index=True)
    before = rows.groupby("machineID", sort=False)["on"].shift(fill_value=False).astype(bool)
    starts = rows["on"] & ~before
    if table != "anomalies":
        found = rows.loc[starts, ["datetime", "machineID"]].reset_index(drop=True)
        return found.assign(**{NAME_COLUMN[table]: flag})
    stretch = rows.assign(stretch=np.cumsum(starts))[rows["on"]]
    spans = stretch.groupby("stretch").agg(
        machineID=("machineID", "first"), start=("datetime", "min"), end=("datetime", "max")
    )
    empty = pd.Series(None, index=spans.index, dtype="str")
    spans = spans.assign(sensor=empty, kind=flag, severity=np.nan, leads_to_failure=False)
    return spans.reset_index(drop=True)


def settled(table: str, frame: pd.DataFrame, done: list[str], machine_id: str = machines.NUMBER) -> pd.DataFrame:
    """The frame in order of machine and time, and without a row that repeats another one; ``done`` is told of both.

    The columns must be converted. A row that differs in any value stays.
    """
    keys = [name for name in ("machineID", "datetime") if name in frame]
    if any(convert(frame[name], wanted(table, name, machine_id))[1].any() for name in keys):
        return frame
    if frame[keys].isna().any(axis=None):
        return frame  # a refusal names the rows as the files count them
    repeated = (
        frame.duplicated() if table in ("telemetry", "machines") else frame.duplicated([*keys, NAME_COLUMN[table]])
    )
    if repeated.any():
        done.append(f"{table}: {int(repeated.sum()):,} rows say what another one says, and are read once")
        frame = frame[~repeated]
    ordered = frame.sort_values(keys, kind="stable")
    if table == "telemetry" and not ordered.index.equals(frame.index):
        done.append(f"{table}: the rows are sorted by machine and time")
    return ordered.reset_index(drop=True)
