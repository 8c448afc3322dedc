"""The sections ``read:`` and ``files:`` of ``params.yaml``: how a fleet's own files are written.

Keys of ``read:`` hold for all tables. A table's name below it holds keys of that table alone:
``read: {separator: ";", decimal: ",", failures: {separator: ","}}``.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from closedloop.data.schema import KEYS, DataError

TABLES = (*KEYS, "anomalies")
EPOCHS = ("s", "ms", "us", "ns", "excel")  # excel: days since 1899-12-30
FileNames = dict[str, "str | list[str]"]


@dataclass(frozen=True)
class Read:
    """How the files of one table are written. None: found in the file, or not used.

    Attributes:
        separator: of columns in a text file.
        decimal: the decimal mark.
        thousands: the mark between groups of three digits.
        encoding: of a text file, by Python's name for it.
        skip_lines: the lines before the names of the columns.
        time_format: of times, in the codes of ``strptime``.
        time_zone: of times without an offset; UTC by default.
        epoch: the unit of times that are numbers, one of ``EPOCHS``.
        date_and_time: the columns of the date and of the time of day, where these are two.
        missing: values that stand for a missing reading, such as -999.
        machine: the one machine, where no column names it.
        machine_from: the path of a file, with ``{machine}`` where it names the machine and ``*`` for other text.
        tag, value: in the long format, the column that names the sensor and that of the reading.
        tag_separator: what parts the machine from the sensor in a tag, at its last place.
        only: a column, and those of its values whose rows belong to this table.
        flag: a column of yes and no that marks a failure or an anomaly; each stretch of yes is one event.
        age_in: the year in which ages are counted, where the column of ages holds the year built.
    """

    separator: str | None = None
    decimal: str = "."
    thousands: str | None = None
    encoding: str | None = None
    skip_lines: int | None = None
    time_format: str | None = None
    time_zone: str | None = None
    epoch: str | None = None
    date_and_time: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    machine: str | None = None
    machine_from: str | None = None
    tag: str | None = None
    value: str | None = None
    tag_separator: str | None = None
    only: Mapping[str, tuple[str, ...]] | None = None
    flag: str | None = None
    age_in: int | None = None


KNOWN = tuple(field.name for field in fields(Read))
LISTS = ("date_and_time", "missing")


def settings(section: Mapping[str, Any], table: str) -> Read:
    """The settings of one table, from a checked section ``read:``."""
    keys = {key: value for key, value in section.items() if key not in TABLES} | dict(section.get(table, {}))
    if table != "telemetry":  # the shape of telemetry is no other table's
        own = section.get(table, {})
        keys = {key: value for key, value in keys.items() if key in own or key not in ("tag", "value", "tag_separator")}
    for name in LISTS:
        keys[name] = tuple(str(item) for item in keys.get(name, ()))
    for name in ("machine",):
        keys[name] = None if keys.get(name) is None else str(keys[name])
    if only := keys.get("only"):
        keys["only"] = {column: tuple(str(value) for value in values) for column, values in only.items()}
    return Read(**keys)


def check(section: Any, where: str = "params.yaml") -> dict[str, Any]:
    """The section ``read:`` of a parameter file, which errors call ``where``, as it is.

    Raises:
        DataError: a key is unknown, or has a value of the wrong kind.
    """
    section = {} if section is None else section
    if not isinstance(section, dict):
        raise DataError(f"{where}: read: is not a mapping; write its keys below it, indented")
    for key, value in section.items():
        if key in TABLES and not isinstance(value, dict):
            raise DataError(f"{where}: read.{key}: is not a mapping; write its keys below it, indented")
        if key in TABLES:
            for name, own in value.items():
                _check_key(f"{where}: read.{key}.{name}", str(name), own)
        else:
            _check_key(f"{where}: read.{key}", str(key), value)
    return section


def _check_key(where: str, key: str, value: Any) -> None:
    """Raise DataError unless a key is known and its value of the right kind."""
    if key not in KNOWN:
        raise DataError(f"{where} is not a known key; known are {', '.join(KNOWN)}, and the names of the tables")
    if key in LISTS:
        ok, kind = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value), "a list"
    elif key == "only":
        ok = isinstance(value, dict) and all(isinstance(values, list) for values in value.values())
        kind = "a mapping of a column to a list of its values"
    elif key in ("skip_lines", "age_in"):
        ok, kind = type(value) is int and value >= 0, "a whole number"
    elif key == "machine":
        ok, kind = isinstance(value, str | int) and not isinstance(value, bool), "a name or a number"
    else:
        ok, kind = isinstance(value, str) and value != "", "text; put it in quotes"
    if not ok:
        raise DataError(f"{where} is {value!r}; it must be {kind}")
    if key == "epoch" and value not in EPOCHS:
        raise DataError(f"{where} is {value!r}; choose one of {', '.join(EPOCHS)}")
    if key == "date_and_time" and len(value) != 2:
        raise DataError(f"{where} is {value!r}; name the column of the date and that of the time of day")
    if key == "machine_from" and "{machine}" not in value:
        raise DataError(f"{where} is {value!r}; write {{machine}} where the path names the machine")
    if key == "time_zone":
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise DataError(f"{where} is {value!r}; write a zone such as Europe/Berlin or America/Chicago") from None


def check_files(files: Any, where: str = "params.yaml") -> FileNames:
    """The section ``files:`` of a parameter file: for each table a file, a pattern such as ``2024/*.csv``, or a list.

    Raises:
        DataError: it is no such mapping.
    """
    files = {} if files is None else files
    fits = isinstance(files, dict) and all(
        isinstance(of, str) or (isinstance(of, list) and of and all(isinstance(name, str) for name in of))
        for of in files.values()
    )
    if not fits:
        raise DataError(f"{where}: files: write 'table: file' below it, one on each line; a list or a pattern will do")
    if unknown := sorted(set(map(str, files)) - set(TABLES)):
        raise DataError(f"{where}: files: {unknown[0]!r} is not a table; known are {', '.join(TABLES)}")
    return {str(table): of for table, of in files.items()}
