"""The five tables as pandas frames, and their conversion to and from NumPy columns.

A frame has the column names of Microsoft's reference data. Times without an offset are UTC; others are converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from closedloop.data import machines
from closedloop.data.marks import Marks
from closedloop.data.order import increases
from closedloop.data.schema import (
    CODE_COLUMN,
    FINDINGS,
    KEYS,
    DataError,
    Events,
    Float64,
    Int16,
    Int64,
    Schema,
    Tables,
)

Frames = dict[str, pd.DataFrame]
Columns = Mapping[str, Mapping[str, str]]  # your names for ours, by table

_EXAMPLES = 3  # how many offending rows a refusal shows


def expected_columns(schema: Schema) -> dict[str, tuple[str, ...]]:
    """The columns that each table must have, in the order in which they are written."""
    events = {table: ("datetime", "machineID", code) for table, code in CODE_COLUMN.items()}
    return {
        "telemetry": ("datetime", "machineID", *schema.sensors),
        **events,
        "machines": ("machineID", "model", "age"),
    }


MARKS = ("machineID", "until")  # the columns of the frame ``marks``, which accompanies tables that may be incomplete
FINDING = "finding"  # a column that maint may have
NAME_COLUMN = CODE_COLUMN | {"machines": "model"}  # the column of each table that holds names of the schema


def known_names(schema: Schema) -> dict[str, tuple[str, ...]]:
    """The names that each table's ``NAME_COLUMN`` may hold."""
    components = schema.components
    return {"errors": schema.errors, "maint": components, "failures": components, "machines": schema.models}


def not_one_of(known: tuple[str, ...]) -> str:
    """The rule that is reported for a name outside the schema."""
    return f"is not one of {', '.join(known)}" if known else "is not in the schema, which names none"


def refusal(
    table: str, column: str, rule: str, frame: pd.DataFrame, rows: NDArray[np.intp], count: int, remedy: str
) -> str:
    """One line: table, column, rule, count, up to three offending rows (counted from 1), and the remedy.

    ``rows`` are positions in ``frame``; ``count`` is the number of all offending rows.
    """
    shown = [name for name in dict.fromkeys((*KEYS[table], *column.split(", "))) if name in frame]

    def show(at: int) -> str:
        return f"row {at + 1} ({', '.join(f'{name} {_text(frame[name].iloc[at])}' for name in shown)})"

    examples = "; ".join(show(int(at)) for at in rows[:_EXAMPLES])
    return f"{table}.{column}: {rule}: {count:,} of {len(frame):,} rows: {examples}; {remedy}"


def _text(value: Any) -> str:
    """A value as a refusal shows it."""
    if pd.isna(value):
        return "missing"
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, pd.Timestamp) else one_line(str(value), 60)


def one_line(text: str, most: int | None = None) -> str:
    """A text for a message of one line: its first characters, and escapes where a character would not be seen."""
    cut = text if most is None or len(text) <= most else f"{text[:most]}…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _refuse(table: str, column: str, rule: str, frame: pd.DataFrame, bad: Any, remedy: str) -> None:
    """Raise DataError if any row is bad."""
    rows = np.flatnonzero(bad)
    if len(rows):
        raise DataError(refusal(table, column, rule, frame, rows, len(rows), remedy))


# --- columns: what they hold, and what they should hold ---------------------------------------------------------------

WANTED = {
    "time": ("is not a time", "write times as 2015-01-04T06:00:00Z, or without an offset for UTC"),
    "whole": ("is not a whole number", "number your machines, or say schema.machine_id: text in params.yaml"),
    "id": ("is no name of a machine", machines.RULE),
    "number": (
        "is not a number",
        "leave a missing value empty, or name what stands for it under read.missing in params.yaml",
    ),
}


# two readings of one machine at one time: both are kept, so that a person decides which column tells them apart
TWICE = "see which column tells these rows apart, and map it under columns in params.yaml, or correct the time"


def wanted(table: str, column: str, machine_id: str = machines.NUMBER) -> str:
    """What a column should hold: ``time``, ``whole``, ``id``, ``text`` or ``number``."""
    if column in ("datetime", "start", "end", "until"):
        return "time"
    if column == "machineID":
        return "id" if machine_id == machines.TEXT else "whole"
    return "text" if column in (NAME_COLUMN.get(table), FINDING) else "number"


def convert(column: pd.Series, kind: str) -> tuple[pd.Series, NDArray[np.bool_]]:
    """The column converted to ``kind``, and a mask of the values that are present and cannot be converted.

    Times become ``datetime64[us, UTC]``, whole numbers int64 (nullable where one is missing), numbers float64, ids text
    in the one form that a name has.
    """
    present = column.notna().to_numpy()
    if kind == "id":
        return _names(column)
    numeric, boolean = pd.api.types.is_numeric_dtype(column), pd.api.types.is_bool_dtype(column)
    if kind == "text":
        return column.where(present).astype("str"), np.zeros(len(column), bool)
    if kind == "time":
        if numeric or boolean:
            return pd.Series(pd.NaT, column.index, "datetime64[us, UTC]"), present
        if pd.api.types.is_datetime64_any_dtype(column):
            times = column.dt.tz_localize("UTC") if column.dt.tz is None else column.dt.tz_convert("UTC")
        else:
            bare = column.mask(column.map(lambda v: isinstance(v, int | float))) if column.dtype == object else column
            times = pd.to_datetime(bare, utc=True, format="ISO8601", errors="coerce")
        return times.dt.as_unit("us"), present & times.isna().to_numpy()
    if boolean or pd.api.types.is_datetime64_any_dtype(column):
        return pd.Series(np.nan, column.index), present
    numbers = column if numeric else pd.to_numeric(column, errors="coerce")
    if kind == "number":
        values = numbers.astype("float64")
        return values, present & values.isna().to_numpy()
    if pd.api.types.is_integer_dtype(numbers) and numbers.dtype != "uint64":
        return numbers.astype("Int64" if numbers.hasnans else "int64"), np.zeros(len(column), bool)
    values = numbers.astype("float64")
    whole = present & (values.abs() < 2**53).to_numpy() & (values.round() == values).to_numpy()
    return values.where(whole).astype("int64" if whole.all() else "Int64"), present & ~whole


def _names(column: pd.Series) -> tuple[pd.Series, NDArray[np.bool_]]:
    """A column of machines as names, and a mask of the values that can be none."""
    values = column.dropna().unique()
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column, column.notna().to_numpy()
    name = {value: _name(value) for value in values}
    if all(isinstance(value, str) and value == text for value, text in name.items()):
        names = column.astype("str")
    else:
        names = column.map(name).astype("str").where(column.notna())
    return names, names.isin([text for text in name.values() if machines.fault_of(text)]).to_numpy()


def _name(value: Any) -> str:
    """A machine's name as it stands for the machine; a whole number, as Parquet and Excel have it, as 12."""
    if isinstance(value, float | np.floating) and value == round(value):
        value = int(value)
    return machines.canonical(str(value))


def typed(table: str, frame: pd.DataFrame, machine_id: str = machines.NUMBER) -> pd.DataFrame:
    """The frame with each column converted. A column with a value that cannot be converted stays as it is."""
    new = {}
    for name in frame.columns:
        converted, unreadable = convert(frame[name], wanted(table, str(name), machine_id))
        if not unreadable.any():
            new[name] = converted
    return frame.assign(**new)


def rename(table: str, frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """The frame with your column names replaced by ours.

    Raises:
        DataError: the mapping names a column that the table lacks, or gives one name to two columns.
    """
    names = columns.get(table, {})
    for theirs, ours in names.items():
        if theirs not in frame:
            raise DataError(
                f"columns.{table}: the table has no column {theirs!r}, only {', '.join(map(str, frame.columns))}; "
                "correct the name in params.yaml"
            )
        if ours in frame and ours not in names:
            raise DataError(
                f"columns.{table}: {theirs!r} is mapped to {ours!r}, but the table already has a column {ours!r}; "
                "map or drop that one in params.yaml"
            )
    if len(set(names.values())) < len(names):
        raise DataError(f"columns.{table}: two columns have the same new name; give each its own")
    return frame.rename(columns=dict(names))


def check_mapping(columns: Columns) -> None:
    """Check a mapping of column names, by table.

    Raises:
        DataError: the mapping names an unknown table, or a table's entry is not a mapping of names.
    """
    for table, names in columns.items():
        if table not in (*KEYS, "anomalies") or not isinstance(names, Mapping):
            raise DataError(
                f"columns: {table!r} must be one of {', '.join(KEYS)}, with a mapping of your column names to ours"
            )


# --- frames and tables ------------------------------------------------------------------------------------------------


def frames_to_tables(frames: Frames, schema: Schema, columns: Columns) -> Tables:
    """The frames as sorted and checked tables. Only telemetry is required.

    Columns outside the schema are ignored. A machine's model and age may be missing, and so may the finding of a
    replacement. A frame ``marks`` has the maturity mark of each machine, missing where nobody vouched for it.

    Raises:
        DataError: a column is missing; a value cannot be read, is missing in a key or is infinite; a key occurs twice;
            a code or model is unknown. The message shows the first broken rule with three offending rows.
    """
    check_mapping(columns)
    if "telemetry" not in frames:
        raise DataError("telemetry: the table is missing; it is the only one that is required")
    if unknown := sorted(set(frames) - set(KEYS) - {"marks"}):
        raise DataError(f"{unknown[0]}: not a table; known are {', '.join(KEYS)}")
    given = {table: frame for table, frame in frames.items() if table != "marks"}
    checked = {table: _checked(table, rename(table, frame, columns), schema) for table, frame in given.items()}
    if "marks" in frames:
        checked["marks"] = _marks(frames["marks"], schema)
    names: tuple[str, ...] | None = None
    if schema.has_names:
        names = tuple(sorted({name for frame in checked.values() for name in frame["machineID"].unique()}))
        for table, frame in checked.items():
            codes = pd.Categorical(frame["machineID"], categories=list(names)).codes.astype(np.int64)
            checked[table] = frame.assign(machineID=codes)
    telemetry = checked["telemetry"]
    return Tables.of(
        telemetry["machineID"].to_numpy(),
        _microseconds(telemetry["datetime"]),
        np.array([telemetry[name].to_numpy() for name in schema.sensors], np.float64),
        _events("errors", checked.get("errors"), schema),
        _events("maint", checked.get("maint"), schema),
        _events("failures", checked["failures"], schema) if "failures" in checked else None,
        _machines(checked.get("machines"), schema),
        Marks.of(*(checked["marks"][name].to_numpy(np.int64) for name in MARKS)) if "marks" in checked else None,
        names,
    )


def _checked(table: str, frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The expected columns of a table, converted and checked."""
    names = expected_columns(schema)[table]
    for name in names:
        if name not in frame:
            raise DataError(
                f"{table}.{name}: the column is missing; the table has {', '.join(map(str, frame.columns))}: "
                f"add it, or map yours under columns.{table} in params.yaml"
            )
    result = {}
    for name in names:
        kind = wanted(table, name, schema.machine_id)
        result[name], unreadable = convert(frame[name], kind)
        if kind in WANTED:
            _refuse(table, name, WANTED[kind][0], frame, unreadable, WANTED[kind][1])
        if name in KEYS[table]:
            _refuse(table, name, "is missing", frame, result[name].isna(), filling(name, schema))
        if kind == "number":
            _refuse(table, name, "is infinite", frame, np.isinf(result[name]), "leave a missing value empty")
        if name == NAME_COLUMN.get(table):
            known = known_names(schema)[table]
            bad = result[name].notna() & ~result[name].isin(known)
            _refuse(table, name, not_one_of(known), frame, bad, "correct it, or add it to the schema")
    if table == "maint" and FINDING in frame:
        result[FINDING] = convert(frame[FINDING], "text")[0]
        bad = result[FINDING].notna() & ~result[FINDING].isin(FINDINGS)
        _refuse(table, FINDING, not_one_of(FINDINGS), frame, bad, "correct it, or leave it empty where it is not known")
    clean = pd.DataFrame(result)
    if table != "telemetry" or not _in_order(clean):  # a table of its keys would take as much memory as the rows
        repeated = clean.duplicated(list(KEYS[table]))
        _refuse(table, ", ".join(KEYS[table]), "the key occurs twice", frame, repeated, TWICE)
    return clean


def _in_order(telemetry: pd.DataFrame) -> bool:
    """Whether the rows of machines with numbers are sorted, so that no key occurs twice."""
    machine = telemetry["machineID"]
    return machine.dtype == np.int64 and increases(machine.to_numpy(), _microseconds(telemetry["datetime"]))


def filling(name: str, schema: Schema) -> str:
    """The remedy for a missing value of a key."""
    if name == "machineID" and schema.machine_id == machines.TEXT:
        return "fill it in (NA, NaN, None and null in a text file mean missing: call no machine so)"
    return "fill it in"


def _microseconds(column: pd.Series) -> Int64:
    """Times as int64 microseconds UTC."""
    return column.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)


def _codes(column: pd.Series, known: tuple[str, ...]) -> Int16:
    """Positions in ``known``, -1 where missing."""
    return pd.Categorical(column, categories=list(known)).codes.astype(np.int16)


def _events(table: str, frame: pd.DataFrame | None, schema: Schema) -> Events:
    if frame is None:
        return Events.empty()
    codes = _codes(frame[CODE_COLUMN[table]], known_names(schema)[table])
    finding = _codes(frame[FINDING], FINDINGS) if FINDING in frame else None
    return Events.of(frame["machineID"].to_numpy(np.int64), _microseconds(frame["datetime"]), codes, finding)


def _marks(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The columns ``MARKS`` of a frame, converted and checked; ``until`` in microseconds UTC.

    Raises:
        DataError: a column is missing, or a value cannot be read.
    """
    columns = {}
    for name in MARKS:
        if name not in frame:
            raise DataError(f"marks.{name}: the column is missing; the table needs {' and '.join(MARKS)}")
        kind = wanted("marks", name, schema.machine_id)
        columns[name], unreadable = convert(frame[name], kind)
        if unreadable.any() or (name == "machineID" and columns[name].isna().any()):
            row = int(np.flatnonzero(unreadable | columns[name].isna().to_numpy())[0]) + 1
            raise DataError(f"marks.{name}: row {row} {WANTED[kind][0]}; correct it")
    return pd.DataFrame({"machineID": columns["machineID"], "until": _microseconds(columns["until"])})


def _machines(frame: pd.DataFrame | None, schema: Schema) -> tuple[Int64, Int16, Float64]:
    if frame is None:
        return np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0)
    codes = _codes(frame["model"], schema.models)
    return frame["machineID"].to_numpy(np.int64), codes, frame["age"].to_numpy(np.float64)


def tables_to_frames(tables: Tables, schema: Schema) -> Frames:
    """The tables as frames: the inverse of :func:`frames_to_tables`. ``failures`` is absent if the tables have none."""

    def head(machine: Int64, time: Int64) -> dict[str, Any]:
        return {"datetime": pd.DatetimeIndex(time.view("datetime64[us]"), tz="UTC"), "machineID": ids(machine)}

    def ids(machine: Int64) -> Any:
        return machine if tables.names is None else pd.Series(tables.named(machine), dtype="str")

    def names(codes: Int16, known: tuple[str, ...]) -> pd.Series:
        return pd.Series(np.array([*known, None], object)[codes], dtype="str")  # code -1 takes the last, None

    telemetry = head(tables.machine, tables.time) | dict(zip(schema.sensors, tables.values, strict=True))
    frames = {"telemetry": pd.DataFrame(telemetry)}
    for table, column in CODE_COLUMN.items():
        events: Events | None = getattr(tables, table)
        if events is not None:
            codes = names(events.code, known_names(schema)[table])
            frames[table] = pd.DataFrame(head(events.machine, events.time) | {column: codes})
            if events.finding is not None:
                frames[table][FINDING] = names(events.finding, FINDINGS)
    models = names(tables.machine_model, schema.models)
    described = {"machineID": ids(tables.machine_ids), "model": models, "age": tables.machine_age}
    frames["machines"] = pd.DataFrame(described)
    if tables.marks is not None:
        until = pd.DatetimeIndex(tables.marks.until.view("datetime64[us]"), tz="UTC")
        frames["marks"] = pd.DataFrame({"machineID": ids(tables.marks.machine), "until": until})
    return frames


def join_marks(parts: list[Frames]) -> pd.DataFrame | None:
    """The frame ``marks`` of a fleet that comes in several parts; None where no part has marks.

    In a part without marks, each machine is reported up to its last telemetry. Of a machine that occurs in several
    parts the latest mark counts.
    """
    if not any("marks" in frames for frames in parts):
        return None
    last = [
        frames["telemetry"].groupby("machineID")["datetime"].max().rename("until").reset_index() for frames in parts
    ]
    named = [frames.get("marks", complete) for frames, complete in zip(parts, last, strict=True)]
    return pd.concat(named, ignore_index=True).groupby("machineID")["until"].max().reset_index()
