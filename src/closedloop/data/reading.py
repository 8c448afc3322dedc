"""The sections ``read:`` and ``files:`` of ``params.yaml``: how a fleet's own files are written.

Keys of ``read:`` hold for all tables. A table's name below it holds keys of that table alone:
``read: {separator: ";", decimal: ",", failures: {separator: ","}}``.
"""

from __future__ import annotations

import codecs
import difflib
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
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
        machine_prefix: what stands before the name of each machine, and is left out.
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
    machine_prefix: str | None = None
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
            _check_together(f"{where}: read.{key}", value)
        else:
            _check_key(f"{where}: read.{key}", str(key), value)
    _check_together(f"{where}: read", {key: value for key, value in section.items() if key not in TABLES})
    _check_shape(where, section)
    return section


def _check_key(where: str, key: str, value: Any) -> None:
    """Raise DataError unless a key is known and its value of the right kind."""
    if key not in KNOWN:
        near = difflib.get_close_matches(key.lower(), (*KNOWN, *TABLES), 1)
        fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(KNOWN)}, and the names of the tables"
        raise DataError(f"{where} is not a known key; {fix}")
    if key in LISTS:
        ok, kind = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value), "a list"
    elif key == "only":
        ok = isinstance(value, dict) and all(isinstance(values, list) for values in value.values())
        kind = "a mapping of a column to a list of its values"
    elif key == "skip_lines":
        ok, kind = type(value) is int and value >= 0, "a whole number, 0 or more"
    elif key == "age_in":
        ok, kind = type(value) is int and 1900 <= value < 2200, "a year, such as 2024"
    elif key == "machine":
        ok, kind = isinstance(value, str | int) and not isinstance(value, bool) and value != "", "a name or a number"
    else:
        ok, kind = isinstance(value, str) and value != "", "text; put it in quotes"
    if not ok:
        raise DataError(f"{where} is {value!r}; it must be {kind}")
    if (wrong := _wrong(key, value)) is not None:
        raise DataError(f"{where} is {value!r}; {wrong}")


def _wrong(key: str, value: Any) -> str | None:
    """How to fix a value of the right kind that means nothing; None where it means something."""
    if key == "epoch" and value not in EPOCHS:
        return f"choose one of {', '.join(EPOCHS)}"
    if key == "date_and_time" and len(value) != 2:
        return "name the column of the date and that of the time of day"
    if key == "machine_from" and "{machine}" not in value:
        return "write {machine} where the path names the machine"
    if key in ("separator", "decimal", "thousands") and (len(value) != 1 or value.isalnum() or value in '+-"'):
        return 'it must be one mark; a tab is "\\t"' if key == "separator" else "it must be one mark, such as , or ."
    if key == "decimal" and value not in (".", ","):
        return 'write "." or ","'
    if key == "encoding" and not _is_encoding(value):
        return "it is not an encoding of text; such are utf-8, cp1252 and utf-16"
    if key == "time_format":
        return _wrong_format(value)
    if key == "time_zone":
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            return "write a zone such as Europe/Berlin or America/Chicago"
    return None


def _is_encoding(name: str) -> bool:
    """Whether this is the name of an encoding that turns bytes into text."""
    try:
        b"a,b\n1,2\n".decode(codecs.lookup(name).name, errors="ignore")
    except LookupError:  # of bytes into bytes, such as base64, too
        return False
    return True


def _wrong_format(time_format: str) -> str | None:
    """How to fix a format of times, or None where it names a day and the codes are known."""
    codes = re.findall(r"%(.)", time_format.replace("%%", ""))
    if not codes:
        return "write the codes of strptime, such as %d.%m.%Y %H:%M"
    try:
        datetime.strptime(datetime(2024, 3, 15).strftime(time_format), time_format)
    except (ValueError, re.error) as error:
        if "does not match" not in str(error):  # an offset is not written for a time without one
            return f"{error}; write the codes of strptime, such as %d.%m.%Y %H:%M"
    if not set(codes) & set("YyGcxs"):
        return "it has no year; add %Y or %y"
    return None


def _check_together(where: str, keys: Mapping[str, Any]) -> None:
    """Raise DataError where two keys of one mapping exclude each other."""
    for one, other in (("epoch", "time_format"), ("machine", "machine_from")):
        if keys.get(one) is not None and keys.get(other) is not None:
            raise DataError(f"{where}.{other} stands beside {one}, which says the same in another way; remove one")
    if keys.get("thousands") is not None and keys["thousands"] == keys.get("decimal", "."):
        raise DataError(f"{where}.thousands is {keys['thousands']!r}, the decimal mark as well; give each its own mark")


def _check_shape(where: str, section: Mapping[str, Any]) -> None:
    """Raise DataError where a key lacks the one that it needs, or belongs to another table."""
    own = section.get("telemetry", {})
    keys = {**section, **own}
    place = {key: f"{where}: read{'.telemetry' * (key in own)}.{key}" for key in keys}
    for key, needed in (("tag", "value"), ("value", "tag"), ("tag_separator", "tag")):
        if keys.get(key) is not None and keys.get(needed) is None:
            raise DataError(f"{place[key]} stands without {needed}; add {needed}, the name of its column")
    if keys.get("flag") is not None:
        raise DataError(f"{place['flag']} marks events, and telemetry has none; move it below failures: or anomalies:")


def check_files(files: Any, where: str = "params.yaml") -> FileNames:
    """The section ``files:`` of a parameter file: for each table a file, a pattern such as ``2024/*.csv``, or a list.

    Raises:
        DataError: it is no such mapping.
    """
    files = {} if files is None else files
    if not isinstance(files, dict):
        raise DataError(f"{where}: files: is not a mapping; write 'table: file' below it, one on each line")
    for table, of in files.items():
        if table not in TABLES:
            near = difflib.get_close_matches(str(table).lower(), TABLES, 1)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(TABLES)}"
            raise DataError(f"{where}: files.{table}: is not a table; {fix}")
        names = of if isinstance(of, list) else [of]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise DataError(f"{where}: files.{table}: is {of!r}; write a file, a pattern such as 2024/*.csv, or a list")
        if far := next((name for name in names if name.startswith("/")), None):
            raise DataError(f"{where}: files.{table}: is {far!r}; write its place inside the folder that DATA names")
    if files and "telemetry" not in files:
        raise DataError(f"{where}: files.telemetry: is missing; name the file of the readings")
    return {str(table): of for table, of in files.items()}
