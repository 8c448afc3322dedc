"""Which files hold failures, maintenance, errors and machines, and which flags among the readings are events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from closedloop.data import fleets, roles, words
from closedloop.data.kinds import ENOUGH, Group, texts_of
from closedloop.data.proposed import Asked, FoundTable, Guess, time_settings
from closedloop.data.roles import KeyColumns
from closedloop.data.schema import CODE_COLUMN

CODES = ("text", "whole")
MANY = 100  # rows; events of one kind are rarely so many
WHAT = {"errors": "which error", "maint": "which component was replaced", "failures": "which component failed"}


def table_of(group: Group, asked: Asked, known: set[str] | None = None) -> str | None:
    """The table that a group of files most likely holds, or None."""
    found = roles.heads(group, asked.time, asked.machine, known or set())
    named = _called(group)
    machine = found.machine
    once = machine is not None and texts_of(group.rows[machine]).is_unique
    if "machines" in named and once:
        return "machines"
    heads = {found.time, found.clock, machine}
    numbers = [name for name in group.of_kind("number") if name not in heads]
    others = [name for name in group.of_kind(*CODES) if name not in heads]
    flags = group.of_kind("flag")
    if found.time is None or (once and _about_machines(group)):
        return "machines" if once and _about_machines(group) else None
    for table in (table for table in named if table != "machines"):
        codes = [
            name
            for name in others
            if group.kinds[name].kind == "text" or words.rank(name, words.COLUMN_WORDS[CODE_COLUMN[table]]) is not None
        ]
        if table == "errors" and numbers and not codes and len(group.rows) >= MANY:
            continue  # a log of one sensor
        if (codes and not _readings(group, found)) or len({*numbers, *others}) < 2:
            return table
    if numbers or flags or any(group.kinds[name].kind == "whole" for name in others):
        return "telemetry"
    return None


def _called(group: Group) -> list[str]:
    """The tables that a group's file is called after."""
    stem = group.names[0].rpartition("/")[2].partition(".")[0]
    return [table for table, hints in words.FILE_WORDS.items() if words.rank(stem, hints) is not None]


def _about_machines(group: Group) -> bool:
    """Whether a column holds the age of a machine, the year built, or its model."""
    kinds = (("age", ("whole", "number")), ("built", ("whole", "time")), ("model", CODES))
    return any(group.pick(ours, kind, set()) is not None for ours, kind in kinds)


def _readings(group: Group, found: KeyColumns) -> bool:
    """Whether most columns are readings, and rows come at even steps, so that the name of the file misleads."""
    numbers = group.of_kind("number")
    return len(numbers) >= 2 and len(group.rows) >= MANY and found.time is not None


def add(
    tables: dict[str, FoundTable],
    groups: list[Group],
    layout: Mapping[str, str],
    asked: Asked,
    known: set[str],
    result: Guess,
) -> None:
    """Add the tables of the other files, and of the flags among the readings."""
    for group in sorted(groups, key=lambda group: -group.rows.size):
        if group.question is not None:
            result.faults.append(group.question)
        if _work_orders(tables, group, asked, known, result):
            continue
        table = next((layout[name] for name in group.names if name in layout), None) or table_of(group, asked, known)
        if table is None:
            result.aside[group.names[0]] = [_why_no_table(group, asked, known)]
            if _called(group) and (question := unknown_times([group])) is not None:
                result.faults.append(question)  # its events would be lost
        elif table in tables:
            result.aside[group.names[0]] = [_why_second(group, table, tables[table], asked, known)]
        else:
            _table(tables, table, group, asked, known, result)
    _flags(tables, asked, result)


def unknown_times(groups: Iterable[Group]) -> str | None:
    """The question of a column that is called a time and holds none that is known; None where there is no such."""
    for group in groups:
        for name in group.of_kind("text", "whole", "number"):
            values = texts_of(group.rows[name]).dropna()
            if (
                words.rank(name, words.COLUMN_WORDS["datetime"]) is None
                or not values.str.contains(r"\d").mean() > ENOUGH
            ):
                continue
            return (
                f"{group.name}: {name} has {values.iloc[0]}, and that form of time is not known: say it in the codes "
                f'of strptime, such as TIME={name} TIME_FORMAT="%d.%m.%Y %H:%M:%S"'
            )
    return None


def _why_no_table(group: Group, asked: Asked, known: set[str]) -> str:
    """Why a file is not taken for any table."""
    found = roles.heads(group, asked.time, asked.machine, known)
    if found.time is None:
        return "no column of times was found in it"
    if found.machine is None:
        return "no column that names the machine was found in it"
    return "neither its name nor its columns say whether it is errors, maint, failures or machines: rename the file"


def _why_second(group: Group, table: str, first: FoundTable, asked: Asked, known: set[str]) -> str:
    """Why a file that looks like a table that is there already is not used, and how it could be."""
    said = f"looks like {table}, as {first.group.name} does, with other columns: give it the same columns if it is"
    found = roles.heads(group, asked.time, asked.machine, known)
    words_in = [name for name in group.of_kind("text") if name not in (found.time, found.clock, found.machine)]
    if table == "telemetry" and words_in:
        said += f"; if each row is an event, say which kind in its name, such as failures ({words_in[0]})"
    return said


def _table(
    tables: dict[str, FoundTable],
    table: str,
    group: Group,
    asked: Asked,
    known: set[str],
    result: Guess,
    own: dict[str, Any] | None = None,
) -> None:
    """Map the columns of a group to its table's, and add it if none is lacking."""
    heads = roles.heads(group, asked.time if asked.time in group.rows else None, asked.machine, known)
    if table == "maint" and (done := group.pick("done", ("time",), set())) is not None:
        heads = KeyColumns(done, None, heads.machine)
    found = FoundTable(group, heads, own=dict(own or {}))
    lacking: list[str] = []
    taken = {name for name in (heads.time, heads.clock, heads.machine, *(found.own.get("only") or {})) if name}
    if heads.machine is None and asked.machine != "one":
        heads = _prefixed(found, known) or heads
        found.heads = heads
    if heads.machine is None and (table == "machines" or "machine" not in tables["telemetry"].own):
        lacking.append(_other_names(group, taken, known) or "a column that says which machine")
    elif heads.machine is None:
        found.own["machine"] = tables["telemetry"].own["machine"]
        if asked.machine != "one":
            _ask_whose(group, tables["telemetry"].group.name, taken, result)
    if table == "machines":
        _machines(found, tables, lacking)
    else:
        if heads.time is None:
            lacking.append("a column of times")
        else:
            time_settings(found, asked, result)
        code = group.pick(CODE_COLUMN[table], CODES, taken)
        left = [name for name in group.of_kind("text") if name not in taken]
        if (code := code or (left[0] if left else None)) is None:
            lacking.append(f"a column that says {WHAT[table]}")
        else:
            found.columns[code] = CODE_COLUMN[table]
    if lacking:
        said = f"looks like {table} and lacks {'; and '.join(lacking)}"
        result.aside[group.names[0]] = [said]
        if table != "machines":
            result.faults.append(f"{group.name} {said}")
        return
    tables[table] = found
    used = {*found.columns, *taken}
    if unused := [name for name in group.columns if name not in used]:
        result.aside.setdefault(group.names[0], []).append(f"not needed: {', '.join(unused)}")


def _ask_whose(group: Group, telemetry: str, taken: set[str], result: Guess) -> None:
    """Add a fault where a group tells machines apart and the rows of telemetry do not."""
    if (name := _named_machines(group, taken)) is None:
        return
    result.faults.append(
        f"{group.name} has a column of machines, {name} ({_few(group, name)}), and nothing says which machine each row "
        f"of {telemetry} is of: name its column with MACHINE=, or MACHINE=file where each file is a machine; "
        "MACHINE=one where all are one machine"
    )


def _named_machines(group: Group, taken: set[str]) -> str | None:
    """The column that is called after machines and has several of them, each in several rows or all at once."""
    vague = words.COLUMN_WORDS["machineID"].index("serial")
    found = group.pick("machineID", CODES, taken)
    if found is None or (words.rank(found, words.COLUMN_WORDS["machineID"]) or 0) >= vague:
        return None
    return found if texts_of(group.rows[found]).nunique() > 1 else None


def _few(group: Group, name: str) -> str:
    """The first values of a column."""
    values = texts_of(group.rows[name]).dropna().unique()
    return f"{', '.join(values[:3])}{', …' * (len(values) > 3)}"


def _other_names(group: Group, taken: set[str], known: set[str]) -> str | None:
    """What is lacking where a column names machines, and the readings have others."""
    if (name := _named_machines(group, taken)) is None:
        return None
    readings = sorted(known)
    return (
        f"machines that have readings: its column {name} has {_few(group, name)}, and the readings are of "
        f"{', '.join(readings[:3])}{', …' * (len(readings) > 3)}; give both the same names"
    )


def _prefixed(found: FoundTable, known: set[str]) -> KeyColumns | None:
    """The heads of a table whose machines have a prefix that those of the readings lack; None where none has."""
    group, heads = found.group, found.heads
    for name in group.of_kind("text"):
        if name in (heads.time, heads.clock):
            continue
        if start := fleets.prefix_of(set(texts_of(group.rows[name]).dropna()), known):
            found.own["machine_prefix"] = start
            return KeyColumns(heads.time, heads.clock, name)
    return None


def bare_names(telemetry: FoundTable, groups: list[Group], known: set[str], result: Guess) -> set[str]:
    """The machines of the readings, without a prefix that other files leave out; the settings then say so."""
    for group in groups:
        columns = {name: set(texts_of(group.rows[name]).dropna()) for name in group.of_kind("text", "whole")}
        if any(others & known for others in columns.values()):
            continue  # it has whole names, so that another column of numbers is something else, such as an age
        for others in columns.values():
            if start := fleets.prefix_of(known, others):
                telemetry.own["machine_prefix"] = start
                result.said.setdefault("machines", []).append(
                    f"{start} stands before each machine, and {group.name} leaves it out: so do we "
                    "(read.machine_prefix)"
                )
                return {one.removeprefix(start) for one in known}
    return known


def _machines(found: FoundTable, tables: dict[str, FoundTable], lacking: list[str]) -> None:
    """Map the columns of the machines: model and age, or the year built."""
    group, taken = found.group, {found.heads.machine or ""}
    model = group.pick("model", CODES, taken)
    age = group.pick("age", ("whole", "number"), {*taken, model or ""})
    if age is None and (built := group.pick("built", ("whole", "time", "number"), {*taken, model or ""})) is not None:
        telemetry = tables["telemetry"]
        found.own["age_in"] = fleets.last_year(telemetry)
        age = built
    found.columns |= {name: ours for name, ours in ((model, "model"), (age, "age")) if name}
    if not found.columns:
        lacking.append("a column of machine models or of ages in years")


def _asked_for(text: str | None, group: Group) -> tuple[str, list[str]] | None:
    """The column and its values that a person named for a table, if they are this group's."""
    name, _, values = (text or "").partition("=")
    if not text or name.strip() not in group.rows:
        return None
    return name.strip(), [value.strip() for value in values.split(",")]


def _work_orders(tables: dict[str, FoundTable], group: Group, asked: Asked, known: set[str], result: Guess) -> bool:
    """Whether a group holds work orders of several kinds; add what was said of them, or ask."""
    answered = False
    for table, text in (("failures", asked.failures), ("maint", asked.maint)):
        if (told := _asked_for(text, group)) is not None:
            column, values = told
            there = texts_of(group.rows[column]).value_counts()
            if lost := [value for value in values if value not in there]:
                result.faults.append(f"{group.name}: {column} has no value {lost[0]!r}, only {', '.join(there.index)}")
            _table(tables, table, group, asked, known, result, own={"only": {column: values}})
            answered = True
    if answered:
        return True
    for name in group.of_kind("text"):
        orders = texts_of(group.rows[name]).dropna()
        counts = orders.value_counts()
        if not 2 <= len(counts) <= 8 or (
            len(counts) == len(orders) and words.rank(name, words.COLUMN_WORDS["work"]) is None
        ):
            continue
        bad = [value for value in counts.index if _of(value, words.CORRECTIVE)]
        good = [value for value in counts.index if _of(value, words.PREVENTIVE) and value not in bad]
        stem = group.names[0].rpartition("/")[2]
        named = (
            words.rank(name, words.COLUMN_WORDS["work"]) is not None
            and words.rank(stem, words.FILE_WORDS["maint"]) is not None
        )
        if not (bad and good) and not (named and (bad or good)):
            continue
        shown = ", ".join(f"{value} {count:,}" for value, count in counts.items())
        first = bad or [value for value in counts.index if value not in good]
        then = good or [value for value in counts.index if value not in first]
        result.faults.insert(
            0,
            f"{group.name} holds work of several kinds, by {name}: {shown}. Say which are failures and which "
            f'maintenance, such as FAILURES="{name}={",".join(first)}" MAINT="{name}={",".join(then)}"',
        )
        result.aside[group.names[0]] = [f"which rows are failures and which maintenance is not known ({name}: {shown})"]
        return True
    return False


def _of(value: str, vocabulary: tuple[str, ...]) -> bool:
    """Whether a kind of work is one of these."""
    return value.strip().lower() in vocabulary or any(word in vocabulary for word in words.words(value))


def _flags(tables: dict[str, FoundTable], asked: Asked, result: Guess) -> None:
    """Add the flags among the readings as failures, or as anomalies, where no file holds these."""
    readings = tables["telemetry"]
    group = readings.group
    if readings.long is not None:
        return
    heads = {readings.heads.time, readings.heads.clock, readings.heads.machine}
    labels = [name for name in group.columns if name not in heads and name not in result.sensors]
    labels = [
        name for name in labels if group.kinds[name].kind in ("whole", "flag", "text") and roles.is_label(group, name)
    ]
    for name in labels:
        if not roles.is_flag(group, name):
            continue
        table = "failures" if words.rank(name, words.FAILED) is not None else "anomalies"
        if table in tables:
            continue
        columns = {theirs: ours for theirs, ours in readings.columns.items() if ours == "datetime"}
        keys = ("date_and_time", "time_format", "epoch", "machine", "machine_from")
        own = {key: readings.own[key] for key in keys if key in readings.own} | {"flag": name}
        tables[table] = FoundTable(group, readings.heads, None, own, columns)
        result.said.setdefault(table, []).append(
            f"each stretch in which {name} is set counts as one (take it out under files if it does not)"
        )
