"""Guess which files of a folder are which table, and which of their columns is which, by names and by content.

The guess is only a proposal. It is written into a parameter file for the owner of the data to read and correct. What
the content leaves open is asked, with the flag of ``make data-check`` that settles it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closedloop.data import events, fleets, reading, roles, sniff, times
from closedloop.data.files import readable
from closedloop.data.kinds import FORM, Group, groups_of, kept, texts_of, written
from closedloop.data.proposed import TIMES, Asked, FoundTable, Guess, time_settings
from closedloop.data.roles import KeyColumns
from closedloop.data.schema import KEYS, UNWRITABLE, DataError
from closedloop.data.sources import native

SHOWN = 3  # files or times, in a sentence


def guess(location: Path, asked: Asked | None = None) -> Guess:
    """Guess which tables the files of a folder hold.

    Raises:
        DataError: the folder does not exist, holds no file that can be read, or lacks a column that was asked for.
    """
    asked = asked or Asked()
    if not location.is_dir():
        raise DataError(f"{location}: is not a folder; give the folder that holds your tables")
    layout = {path.name: table for table, path in native(location).items()}
    every = sorted(path for path in location.rglob("*") if path.is_file() and readable(path))
    paths = [path for path in every if not any(part.startswith(".") for part in path.relative_to(location).parts)]
    paths = [path for path in paths if path.parent != location or layout.get(path.name) != "anomalies"]
    if not paths:
        raise DataError(f"{location}: holds no .csv, .parquet or .xlsx file; export your tables as one of these")
    result = Guess()
    read = reading.settings(reading.check(asked.read, "data-check"), "telemetry")
    groups = groups_of(location, paths, read, result.aside, result.faults)
    _know(asked, groups)
    forms = [kind.form for group in groups for kind in group.kinds.values() if kind.form is not None]
    result.units = {form.epoch for form in forms if form.epoch}
    tables: dict[str, FoundTable] = {}
    telemetry = _telemetry(groups, layout, asked, result)
    if telemetry is not None:
        tables["telemetry"] = telemetry
        known = fleets.machines_of(telemetry, location)
        rest = [group for group in groups if group is not telemetry.group]
        known = events.bare_names(telemetry, rest, known, result)
        events.add(tables, rest, layout, asked, known, result)
    elif not result.faults:
        result.faults.append(
            events.unknown_times(groups)
            or "no file has a time and numbers in each row: export the readings of your sensors as one table, with a "
            "column for the time, one for the machine and one for each sensor"
        )
    _write(tables, layout, asked, result)
    _unheeded(tables, groups, asked, result)
    if zone := asked.read.get("time_zone"):
        result.faults += [fault for found in tables.values() if (fault := _without(found, zone)) is not None]
    return result


def _know(asked: Asked, groups: list[Group]) -> None:
    """Raise DataError where a column that was asked for is in no file."""
    there = {name for group in groups for name in group.columns}
    wanted = [] if asked.time in there else (asked.time or "").split(",")
    wanted += [asked.machine or "", *(text.partition("=")[0] for text in (asked.failures, asked.maint) if text)]
    for name in (name.strip() for name in wanted):
        if name and name not in there and name not in ("file", "one"):
            raise DataError(f"no file has a column {name!r}; there are {', '.join(sorted(there))}")


def _telemetry(groups: list[Group], layout: Mapping[str, str], asked: Asked, result: Guess) -> FoundTable | None:
    """The readings: the largest group with a time and numbers, unless its name says that it holds events."""
    for group in sorted(groups, key=lambda group: -group.rows.size):
        told = {layout.get(name) for name in group.names}
        if told <= {None} and events.table_of(group, asked) not in (None, "telemetry"):
            continue
        if not told <= {None, "telemetry"}:
            continue
        found = roles.heads(group, asked.time, asked.machine, set())
        numbers = [name for name in group.of_kind("whole", "number", "flag") if name not in (found.time, found.machine)]
        if found.time is None or not numbers:
            if group.question is not None and found.time is not None:
                result.faults.append(group.question)
            continue
        if group.question is not None:
            result.faults.append(group.question)
        return _shaped(group, found, asked, result)
    return None


def _shaped(group: Group, found: KeyColumns, asked: Asked, result: Guess) -> FoundTable | None:
    """The readings with their shape: wide or long, a machine in each row, in each file, or one machine."""
    long, found = (None, found) if asked.sensors else roles.long_of(group, found)
    if asked.machine in ("one", "file") and asked.machine not in group.rows:
        found = KeyColumns(found.time, found.clock, None)
    telemetry = FoundTable(group, found, long)
    if long is not None:
        telemetry.own |= {"tag": long.tag, "value": long.value}
        if long.separator:
            telemetry.own["tag_separator"] = long.separator
    time_settings(telemetry, asked, result)
    if found.machine is None and not (long and long.separator) and not fleets.settle(telemetry, asked, result):
        return None
    _sensors(telemetry, asked, result)
    if not result.sensors:
        result.faults.append(f"{group.name} looks like telemetry and lacks a column of numbers for each sensor")
        return None
    return telemetry


def _sensors(found: FoundTable, asked: Asked, result: Guess) -> None:
    """Name the sensors, and set aside what only looks like one."""
    group, long = found.group, found.long
    heads = {found.heads.time, found.heads.clock, found.heads.machine}
    aside: list[str] = []
    if long is not None:
        result.sensors = list(long.sensors)
        aside = [
            f"{name} ({_why(group, name)})" for name in group.columns if name not in (*heads, long.tag, long.value)
        ]
    elif asked.sensors:
        if lost := [name for name in asked.sensors if name not in group.rows]:
            raise DataError(f"{group.name} has no column {lost[0]!r}; it has {', '.join(group.columns)}")
        result.sensors = list(asked.sensors)
    else:
        names = [name for name in group.columns if name not in heads]
        labels = [name for name in names if roles.is_label(group, name)]
        for name in names:
            kind = group.kinds[name].kind
            led = next((label for label in labels if roles.follows(group, name, label)), None)
            if name in labels:
                aside.append(f"{name} (a label: a model must not see it)")
            elif led is not None:
                aside.append(f"{name} (a label: it is set only where {led} is; a model must not see it)")
            elif kind not in ("whole", "number", "flag"):
                aside.append(f"{name} ({_why(group, name)})")
            elif roles.counts_rows(group, name):
                aside.append(f"{name} (a row number)")
            else:
                result.sensors.append(name)
    if aside:
        result.aside.setdefault(group.names[0], []).append(f"not a sensor: {', '.join(aside)}")
    if long is None:
        _rename(found, result)
    elif bad := [name for name in result.sensors if UNWRITABLE.search(name)]:
        result.faults.append(
            f"{group.name}: the tag {bad[0]!r} has a quotation mark, a backslash or a control character, which the "
            "names of a request cannot have: rename it in your files"
        )


def _rename(found: FoundTable, result: Guess) -> None:
    """Give each sensor whose name the schema refuses another one, by the mapping of columns."""
    taken = {name for name in result.sensors if not UNWRITABLE.search(name)} - set(KEYS["telemetry"])
    for nth, name in enumerate(result.sensors):
        if name in taken:
            continue
        plain = UNWRITABLE.sub(" ", name.replace('"', "'").replace("\\", "/"))
        tries = (f"{plain} {number}" if number else plain for number in (None, *range(2, 2 + len(result.sensors))))
        new = next(text for text in tries if text not in taken and text not in KEYS["telemetry"])
        taken.add(new)
        result.sensors[nth] = found.columns[name] = new


def _why(group: Group, name: str) -> str:
    """Why a column is no sensor."""
    kind = group.kinds[name].kind
    if kind != "text":
        return {"empty": "empty", "time": "a time", "clock": "a time"}.get(kind, "not a reading")
    values = texts_of(group.rows[name]).dropna()
    if values.nunique() <= 12 and len(values) > 24:
        return f"text: {', '.join(f'{value} {count:,}' for value, count in values.value_counts().head(4).items())}"
    return "text"


def _write(tables: dict[str, FoundTable], layout: Mapping[str, str], asked: Asked, result: Guess) -> None:
    """Write the tables that were found as files, columns and settings."""
    every = sorted({name for found in tables.values() for name in found.group.names})
    used: dict[str, dict[str, Any]] = {}
    for table in (table for table in (*KEYS, "anomalies") if table in tables):
        found = tables[table]
        group = found.group
        found.columns |= {found.heads.machine: "machineID"} if found.heads.machine else {}
        result.columns[table] = {theirs: ours for theirs, ours in found.columns.items() if theirs != ours}
        others = [name for name in result.aside if name not in group.names]
        others += [name for name in every if name not in group.names]
        result.files[table] = fleets.pattern(group.names, others)
        result.names[table] = group.name
        form = sniff.as_keys(group.form, group.read)
        used[table] = form | kept(group, asked.read) | found.own
        if group.missing and table == "telemetry":
            used[table]["missing"] = group.missing
        if told := sniff.said(group.form, group.read):
            result.said[table] = told
    # what was said of the form of files and times stands with the tables that it fits
    result.read = _merged(used) | {key: asked.read[key] for key in asked.read if key not in (*FORM, *TIMES)}
    if "missing" in asked.read and "missing" in used.get("telemetry", {}):
        result.read["missing"] = [*dict.fromkeys([*asked.read["missing"], *used["telemetry"]["missing"]])]
    standard = {name: table for name, table in layout.items() if table in KEYS}
    if {name: table for table, name in result.files.items() if isinstance(name, str)} == standard:
        result.files = {}  # the standard layout needs no names


def _unheeded(tables: dict[str, FoundTable], groups: list[Group], asked: Asked, result: Guess) -> None:
    """Put a fault first for what a person said of the form of files or times, and what holds for none of them."""
    largest = sorted(groups, key=lambda group: -group.rows.size)[:SHOWN]
    for key in (key for key in (*FORM, *TIMES) if key in asked.read):
        if key in FORM and any(key in kept(group, asked.read) for group in groups):
            continue
        if key in TIMES and (key in result.heeded or not (found := _times_of(tables))):
            continue
        there = found if key in TIMES else "; ".join(written(group, key) for group in largest)
        result.faults.insert(
            0,
            f"{key.upper()}={asked.read[key]} fits none of the {'times' if key in TIMES else 'files'}: {there}; "
            "correct it, or leave it out where that is right",
        )


def _without(found: FoundTable, zone: str) -> str | None:
    """What to do about a time of a table that the zone does not have; None where it has all."""
    if (time := found.heads.time) is None:
        return None
    column, own = found.group.rows[time], {key: found.own[key] for key in TIMES if key in found.own}
    if found.heads.clock:
        column = (column.astype("str") + " " + found.group.rows[found.heads.clock].astype("str")).rename(time)
    lost = times.not_in_zone(column, reading.settings(own | {"time_zone": zone}, "telemetry"))
    if lost is None:
        return None
    return (
        f"{found.group.name} has {lost} in {time}, a time that clocks skip in {zone} when summer time begins, so these "
        "times are of another zone: leave out TIME_ZONE= if they are UTC, or give this table's zone in params.yaml, "
        "as read.failures.time_zone for failures"
    )


def _times_of(tables: dict[str, FoundTable]) -> str:
    """The first time of each table, and how it is read."""
    said = []
    for found in tables.values():
        if (time := found.heads.time) is None:
            continue
        form = next((f"{key} {found.own[key]}" for key in TIMES if key in found.own), "ISO 8601")
        said.append(f"{found.group.name} has {found.group.rows[time].dropna().iloc[0]} in {time}, read as {form}")
    return ", ".join(said[:SHOWN])


def _merged(used: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The section ``read:``: a key that all tables share stands once, any other below its table."""
    shared: dict[str, Any] = {}
    for key in dict.fromkeys(key for own in used.values() for key in own):
        values = [own.get(key) for own in used.values()]
        if all(value == values[0] for value in values):
            shared[key] = values[0]
    apart = {table: {key: value for key, value in own.items() if key not in shared} for table, own in used.items()}
    return shared | {table: own for table, own in apart.items() if own}
