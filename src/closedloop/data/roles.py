"""Which column of readings is the time, which names the machine or the sensor, and which are labels."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from closedloop.data import words
from closedloop.data.kinds import Group, texts_of

FEW = 0.05  # of the rows may repeat a time where there is one machine: clocks go back, and rows come twice
LONG_RUN = 10  # rows for which a machine stays the same, where each time stands once


@dataclass(frozen=True)
class KeyColumns:
    """The columns of the time, of the time of day where it stands apart, and of the machine."""

    time: str | None = None
    clock: str | None = None
    machine: str | None = None


@dataclass(frozen=True)
class Long:
    """The columns of the long format, and what parts the machine from the sensor in a tag."""

    tag: str
    value: str
    separator: str | None
    sensors: list[str]


def heads(group: Group, asked_time: str | None, asked_machine: str | None, known: set[str]) -> KeyColumns:
    """The time and the machine of a group of files. ``known`` are the machines of the readings, if any are known."""
    time, clock = _time(group, asked_time)
    taken = {name for name in (time, clock) if name}
    if asked_machine in group.rows:
        return KeyColumns(time, clock, asked_machine)
    candidates = [name for name in group.of_kind("text", "whole") if name not in taken and not is_label(group, name)]
    if known:  # events name the machines of the readings
        shares = {name: texts_of(group.rows[name]).dropna().isin(known).mean() for name in candidates}
        best = [name for name, share in shares.items() if share > 0.5]
        named = group.pick("machineID", ("text", "whole"), {*taken, *(set(group.columns) - set(best))})
        if named or best:
            return KeyColumns(time, clock, named or best[0])
    if time is None:
        return KeyColumns(time, clock, group.pick("machineID", ("text", "whole"), taken))
    return KeyColumns(time, clock, _machine(group, stamp(group, time, clock), candidates))


def _time(group: Group, asked: str | None) -> tuple[str | None, str | None]:
    """The columns of the time, and of the time of day where the first holds dates alone."""
    names = [name.strip() for name in asked.split(",")] if asked and asked not in group.rows else [asked or ""]
    if all(name in group.rows for name in names):
        return names[0], names[1] if len(names) > 1 else None
    all_times = group.of_kind("time")
    time = group.pick("datetime", ("time",), set()) or (all_times[0] if all_times else None)
    if time is None:
        return None, None
    form, clocks = group.kinds[time].form, group.of_kind("clock")
    if form is not None and form.dates and clocks:
        return time, clocks[0]
    if form is not None and form.dates:  # another column may have the time of day as well
        whole = [name for name in all_times if (other := group.kinds[name].form) is not None and not other.dates]
        hinted = [name for name in whole if words.rank(name, words.COLUMN_WORDS["datetime"]) is not None]
        return (hinted or [time])[0], None
    return time, None


def stamp(group: Group, time: str, clock: str | None) -> pd.Series:
    """The time of each row as text."""
    texts = group.rows[time].astype("str")
    return texts + " " + group.rows[clock].astype("str") if clock else texts


def _twice(*columns: pd.Series) -> float:
    """The share of rows that repeat the values of an earlier one."""
    return float(pd.concat(columns, axis=1, keys=range(len(columns))).duplicated().mean())


def _machine(group: Group, stamps: pd.Series, candidates: list[str]) -> str | None:
    """The column that names the machine: constant over long stretches, and with the time it names one row."""
    if not candidates:
        return None
    apart = ~group.rows.duplicated()
    stamps, rows = stamps[apart], group.rows[apart]
    files = pd.Series(group.of[apart.to_numpy()], index=rows.index)
    one = min(_twice(stamps), _twice(stamps, files)) <= FEW if len(group.names) > 1 else _twice(stamps) <= FEW
    ranked = []
    for name in candidates:
        place = words.rank(name, words.COLUMN_WORDS["machineID"])
        ids = texts_of(rows[name])
        if place is not None and not _is_name(group, name):
            place = None
        if one and len(group.names) == 1:
            if place is not None and _stays(ids, stamps):
                ranked.append((0, place, name))
        elif place is not None and one and _twice(stamps, ids) > FEW:
            continue  # the files tell the machines apart, and this does not, such as the hall that all stand in
        elif place is not None and ids.nunique() <= max(1, len(ids) / 2):
            ranked.append((0 if _twice(stamps, ids) <= FEW else 1, place, name))
        elif not one and not words.rank(name, words.STATES) and _grid(group, name, ids, stamps):
            ranked.append((2, 0, name))
    return min(ranked)[2] if ranked else None


def _is_name(group: Group, name: str) -> bool:
    """Whether a column's name is that of a machine, and not that of its state or of a reading of it."""
    own = words.COLUMN_WORDS["machineID"]
    if group.kinds[name].kind == "whole":
        return words.only(name, own, words.IDS)
    return not any(word in words.STATES for word in words.words(name)) or words.only(name, own, words.IDS)


def _stays(ids: pd.Series, stamps: pd.Series) -> bool:
    """Whether a column stays the same over long stretches, or all its values are seen at most of the times."""
    runs, count = int((ids != ids.shift()).sum()), ids.nunique()
    if count == len(ids) and count > 1:
        return False
    return count <= 1 or runs == count or len(ids) / runs >= LONG_RUN


def _grid(group: Group, name: str, ids: pd.Series, stamps: pd.Series) -> bool:
    """Whether the column's values and the times name each row once, and each value is seen at most times."""
    count = ids.nunique()
    if not 1 < count <= len(ids) / 3 or _twice(stamps, ids) > FEW:
        return False
    full = len(ids) / (count * stamps.nunique())
    return full > (0.3 if group.kinds[name].kind == "text" else 0.95)


# --- the long format --------------------------------------------------------------------------------------------------


def long_of(group: Group, found: KeyColumns) -> tuple[Long | None, KeyColumns]:
    """How a group holds one reading a row, if it does, and its heads without the tag as the machine."""
    if found.time is None:
        return None, found
    values = [
        name for name in group.of_kind("number", "whole") if words.rank(name, words.COLUMN_WORDS["value"]) is not None
    ]
    tags = [name for name in group.of_kind("text") if words.rank(name, words.COLUMN_WORDS["tag"]) is not None]
    stamps = stamp(group, found.time, found.clock)
    ids = [texts_of(group.rows[found.machine])] if found.machine and found.machine not in tags else []
    if not ids and "machineID" in group.rows:
        ids = [texts_of(group.rows["machineID"])]
    for tag in sorted(tags, key=lambda name: words.rank(name, words.COLUMN_WORDS["tag"]) or 0):
        if not values or tag in values or group.rows[tag].nunique() > len(group.rows) / 3:
            continue
        own, machine = ids, found.machine if found.machine != tag else None
        if machine is None and not own:
            others = [n for n in group.of_kind("text", "whole") if n not in (tag, *values) and n != found.clock]
            named = [n for n in others if words.only(n, words.COLUMN_WORDS["machineID"], words.IDS)]
            machine = named[0] if named else None
            own = [texts_of(group.rows[machine])] if machine else []
        texts = texts_of(group.rows[tag])
        if _twice(stamps, *own) <= FEW or _twice(stamps, *own, texts) > FEW:
            continue
        distinct = texts.dropna().unique().tolist()
        separator = None if machine else _parted(distinct)
        sensors = list(dict.fromkeys(text.rsplit(separator, 1)[-1] if separator else text for text in distinct))
        return Long(tag, values[0], separator, sensors), KeyColumns(found.time, found.clock, machine)
    return None, found


def _parted(tags: list[str]) -> str | None:
    """What parts the machine from the sensor in the tags, or None where they name the sensor alone."""
    for mark in (".", "/", ":", "|", "\\", "_", "-"):
        if not all(mark in tag for tag in tags):
            continue
        machines, sensors = ({tag.rsplit(mark, 1)[at] for tag in tags} for at in (0, 1))
        full = len(tags) / (len(machines) * len(sensors))
        if full == 1 and (mark not in "_-" or min(len(machines), len(sensors)) > 1):
            return mark
        if full >= 0.5 and mark not in "_-" and len(sensors) < len(tags):
            return mark
    return None


# --- labels and counters ----------------------------------------------------------------------------------------------


def is_label(group: Group, name: str) -> bool:
    """Whether a column holds what a model must not see: a failure or an anomaly, or what is known of it afterwards."""
    if words.rank(name, words.TRUTHS) is None:
        return False
    if words.only(
        name, words.TRUTHS, words.COLUMN_WORDS["machineID"], ("is", "flag", "type", "mode", "code", "status")
    ):
        return group.kinds[name].kind in ("whole", "number", "flag", "text")
    return is_flag(group, name)


def is_flag(group: Group, name: str) -> bool:
    """Whether a column has the values 0 and 1, or yes and no, alone."""
    numbers = group.kinds[name].numbers
    if numbers is not None:
        return bool(numbers.dropna().isin((0.0, 1.0)).all())
    texts = set(texts_of(group.rows[name]).dropna().str.lower().unique())
    return texts <= {"yes", "no", "y", "n", "true", "false"}


def follows(group: Group, name: str, label: str) -> bool:
    """Whether a flag is set in rows of the label alone, so that it tells of the failure."""
    if not is_flag(group, name) or not is_flag(group, label):
        return False
    a, b = group.kinds[name].numbers, group.kinds[label].numbers
    if a is None or b is None or (a == 1).sum() < 3:
        return False
    return bool((b[a == 1] == 1).mean() > 0.9 and (a == 1).mean() < 0.5)


def counts_rows(group: Group, name: str) -> bool:
    """Whether a column only counts the rows of its file."""
    numbers = group.kinds[name].numbers
    if numbers is None or len(numbers) < 3 or group.kinds[name].kind != "whole":
        return False
    if not (
        name.startswith("Unnamed")
        or not words.words(name)
        or words.only(name, ("index", "id", "row", "no", "nr", "idx", "number"))
    ):
        return False
    steps = numbers.groupby(group.of).diff().dropna()
    return bool(re.fullmatch(r"\D*|Unnamed: \d+", name)) and len(steps) > 0 and bool((steps == 1).mean() > 0.95)
