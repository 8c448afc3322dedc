"""Guess which file of a folder is which table, and which of its columns is which, by names and by content.

The guess is only a proposal. It is written into a parameter file for the owner of the data to read and correct.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from closedloop.data.schema import CODE_COLUMN, KEYS, DataError
from closedloop.data.sources import native, read_file

SAMPLE_ROWS = 20_000  # of a CSV file; enough to tell columns apart

# Words in the names of files and columns. Earlier ones count more. A hint of more than 3 letters may be a prefix.
FILE_WORDS = {
    "failures": ("failure", "fail", "breakdown", "breakage", "outage", "incident", "fault", "downtime"),
    "maint": ("maint", "service", "repair", "replace", "overhaul", "workorder", "work"),
    "errors": ("error", "alarm", "alert", "warning", "event", "log"),
    "machines": ("machine", "asset", "device", "equipment", "unit", "fleet", "inventory", "master"),
}
COLUMN_WORDS = {
    "datetime": ("datetime", "timestamp", "time", "date", "ts", "when", "recorded", "start"),
    "machineID": (
        "machine", "asset", "equipment", "device", "unit", "engine", "vehicle", "turbine", "pump", "motor", "robot",
        "compressor", "station", "node", "tag", "serial", "name", "id",
    ),
    "errorID": ("error", "alarm", "code", "alert", "warning", "event", "type", "message"),
    "comp": ("comp", "component", "part", "item", "action", "task", "type", "code"),
    "failure": ("failure", "component", "comp", "part", "mode", "fault", "cause", "reason", "type", "code"),
    "model": ("model", "type", "kind", "class", "variant", "make", "series"),
    "age": ("age", "years"),
}  # fmt: skip
TRUTHS = ("label", "anomaly", "outlier", "failure", "fail", "fault", "target", "class", "rul", "changepoint")
NUMBERS = ("whole", "number")
CODES = ("text", "whole")


@dataclass
class Guess:
    """The proposal for a folder: ``files`` and ``columns`` as in ``params.yaml``, and the sensors.

    ``aside`` says what is not used and why, by file; ``faults`` is what must be fixed before a run can work.
    """

    files: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    sensors: list[str] = field(default_factory=list)
    aside: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    """A file, a sample of its rows, and the kind of each column."""

    name: str
    rows: pd.DataFrame
    kinds: dict[str, str]

    def pick(self, ours: str, kinds: tuple[str, ...], taken: set[str]) -> str | None:
        """The column that is most likely ``ours``: it has a fitting kind and a fitting name."""
        fitting = [name for name, kind in self.kinds.items() if kind in kinds and name not in taken]
        if ours in fitting:
            return ours
        ranked = [(rank, name) for name in fitting if (rank := _rank(name, COLUMN_WORDS[ours])) is not None]
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


def guess(location: Path) -> Guess:
    """Guess which tables the files of a folder hold.

    Raises:
        DataError: the folder does not exist, or holds neither CSV nor Parquet files.
    """
    if not location.is_dir():
        raise DataError(
            f"{location}: is not a folder; give the folder that holds your tables as .csv or .parquet files"
        )
    paths = sorted(path for path in location.iterdir() if path.suffix in (".csv", ".parquet"))
    if not paths:
        raise DataError(f"{location}: holds no .csv or .parquet file; export your tables as one of these")
    layout = {path.name: table for table, path in native(location).items()}
    result, found = Guess(), []
    for path in paths:
        if layout.get(path.name) == "anomalies":  # ground truth in the standard layout is read as it is
            continue
        try:
            rows = read_file(path, (), SAMPLE_ROWS)
        except DataError as error:
            result.aside[path.name] = [str(error)]
            continue
        found.append(_File(path.name, rows, {str(name): _kind(str(name), rows[name]) for name in rows}))
    tables = {file.name: layout.get(file.name) or _table(file) for file in found}
    for file in sorted(found, key=lambda file: -file.rows.size):
        table = tables[file.name]
        if table is None:
            result.aside[file.name] = [_why_no_table(file)]
        elif table in result.files:
            result.aside[file.name] = [
                f"looks like {table}, as {result.files[table]} does; join them into one file if it is"
            ]
        else:
            _columns(table, file, result)
    if "telemetry" not in result.files and not result.faults:
        result.faults.append(
            "no file has a time, a machine and numbers in each row: export the readings of your sensors as one table, "
            "with a column for the time, one for the machine and one for each sensor"
        )
    if {name: table for table, name in result.files.items()} == {name: t for name, t in layout.items() if t in KEYS}:
        result.files = {}  # the standard layout needs no names
    return result


def _words(name: str) -> list[str]:
    """The words of a name in snake, kebab or camel case, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _rank(name: str, hints: tuple[str, ...]) -> int | None:
    """The place of the first hint that a word of the name equals, or starts with if the hint is long; else None."""
    words = _words(name)
    words += ["".join(words)]
    for rank, hint in enumerate(hints):
        if any(word == hint or (len(hint) > 3 and word.startswith(hint)) for word in words):
            return rank
    return None


def _kind(name: str, column: pd.Series) -> str:
    """A column's kind: ``time``, ``odd time``, ``whole``, ``number``, ``comma``, ``flag``, ``text`` or ``empty``."""
    values = column.dropna()
    if values.empty:
        return "empty"
    if pd.api.types.is_datetime64_any_dtype(values):
        return "time"
    if pd.api.types.is_bool_dtype(values):
        return "flag"
    if pd.api.types.is_numeric_dtype(values):
        seconds = float(values.median())
        if _rank(name, COLUMN_WORDS["datetime"]) is not None and seconds > 1e8:
            return "odd time"
        return "whole" if (values == values.round()).all() else "number"
    texts = values.astype("str")
    if pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce").notna().mean() > 0.9:
        return "time"
    if texts.str.match(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}").mean() > 0.9:
        return "odd time"
    if pd.to_numeric(texts, errors="coerce").notna().mean() > 0.9:
        return "number"  # with a few texts such as n/a among them, which validation shows
    if texts.str.fullmatch(r"-?\d+,\d+").mean() > 0.5:
        return "comma"
    return "text"


def _heads(file: _File) -> tuple[str | None, str | None]:
    """The columns that hold the time and the machine, None where not found."""
    times = [name for name, kind in file.kinds.items() if kind in ("time", "odd time")]
    time = file.pick("datetime", ("time", "odd time"), set()) or (times[0] if times else None)
    taken = {time} if time else set()
    texts = [name for name, kind in file.kinds.items() if kind == "text"]
    machine = file.pick("machineID", CODES, taken) or (texts[0] if len(texts) == 1 and time else None)
    return time, machine


def _table(file: _File) -> str | None:
    """The table that a file most likely holds, or None."""
    stem = file.name.rpartition(".")[0]
    time, machine = _heads(file)
    named = [table for table, words in FILE_WORDS.items() if _rank(stem, words) is not None]
    once = machine is not None and file.rows[machine].is_unique and len(file.rows) > 0
    if "machines" in named and once:
        return "machines"
    numbers = [name for name, kind in file.kinds.items() if kind in ("number", "comma") and name not in (time, machine)]
    others = [name for name, kind in file.kinds.items() if kind in CODES and name not in (time, machine)]
    if time is None:
        return "machines" if once and file.pick("age", NUMBERS, {str(machine)}) else None
    for table in (table for table in named if table != "machines"):
        codes = [n for n in others if file.kinds[n] == "text" or _rank(n, COLUMN_WORDS[CODE_COLUMN[table]]) is not None]
        if codes or len({*numbers, *others}) < 2:  # a file of readings may be called a log, too
            return table
    return "telemetry" if numbers or any(file.kinds[name] == "whole" for name in others) else None


def _why_no_table(file: _File) -> str:
    """Why a file is not taken for any table."""
    time, machine = _heads(file)
    if time is None:
        return "no column of times was found in it"
    if machine is None:
        return "no column that names the machine was found in it"
    return "neither its name nor its columns say whether it is errors, maint, failures or machines: rename the file"


def _columns(table: str, file: _File, result: Guess) -> None:
    """Map the columns of a file to its table's, and add the file to the result if none is lacking."""
    lacking = []
    picked: dict[str, str] = {}

    def take(ours: str, name: str | None, what: str) -> None:
        if name is None:
            lacking.append(what)
        else:
            picked[ours] = name

    time, machine = _heads(file)
    if table != "machines":
        take("datetime", time, "a column of times")
    one = "; write 1 in each row if there is only one" if table == "telemetry" else ""
    take("machineID", machine, f"a column that says which machine{one}")
    if table in CODE_COLUMN:
        code, taken = CODE_COLUMN[table], set(picked.values())
        left = [name for name, kind in file.kinds.items() if kind == "text" and name not in taken]
        what = {"errors": "which error", "maint": "which component was replaced", "failures": "which component failed"}
        take(code, file.pick(code, CODES, taken) or (left[0] if left else None), f"a column that says {what[table]}")
    if table == "machines":
        taken = set(picked.values())
        take("model", file.pick("model", CODES, taken), "a column of machine models")
        take("age", file.pick("age", NUMBERS, {*taken, picked.get("model", "")}), "a column of ages in years")
    if time and table != "machines" and file.kinds[time] == "odd time":
        lacking.append(f"times as 2015-01-04T06:00:00Z, where {time} has {file.rows[time].dropna().iloc[0]}")
    if table == "telemetry":
        _sensors(file, set(picked.values()), result, lacking)
    if lacking and table != "machines":
        result.faults.append(f"{file.name} looks like {table} and lacks {'; and '.join(lacking)}")
    if lacking:
        result.aside[file.name] = [f"looks like {table} and lacks {'; and '.join(lacking)}"]
        return
    result.files[table] = file.name
    result.columns[table] = {name: ours for ours, name in picked.items() if name != ours}
    unused = [name for name in file.kinds if name not in picked.values() and name not in result.sensors]
    if unused and table != "telemetry":
        result.aside[file.name] = [f"not needed: {', '.join(unused)}"]


def _sensors(file: _File, taken: set[str], result: Guess, lacking: list[str]) -> None:
    """Add the columns of readings to the result's sensors, and set aside what only looks like one."""
    why = {"text": "text", "flag": "yes or no", "empty": "empty", "time": "a time", "odd time": "a time"}
    aside = []
    for name, kind in file.kinds.items():
        if name in taken:
            continue
        if kind == "comma":
            lacking.append(f"a decimal point in {name}, where it has {file.rows[name].dropna().iloc[0]}")
        elif kind in why:
            aside.append(f"{name} ({why[kind]})")
        elif _rank(name, TRUTHS) is not None:
            aside.append(f"{name} (a label: a model must not see it)")
        elif not _words(name) or name.startswith("Unnamed") or _words(name) in (["index"], ["id"], ["row"]):
            aside.append(f"{name} (a row number)")
        else:
            result.sensors.append(name)
    if aside:
        result.aside[file.name] = [f"not a sensor: {', '.join(aside)}"]
    if not result.sensors:
        lacking.append("a column of numbers for each sensor")
