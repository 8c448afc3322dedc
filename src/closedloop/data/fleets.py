"""Whose readings a file holds where no column says it: one machine's, or in each file another's."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from closedloop.data import files, reading, times
from closedloop.data.kinds import texts_of
from closedloop.data.proposed import Asked, FoundTable, Guess
from closedloop.data.roles import FEW, stamp

DATED = r"(?:19|20)\d{2}(?P<mark>[-_.]?)(?:\d{2}|[A-Za-z]{3})(?:(?P=mark)\d{2})?(?:[T_-]?\d{2,6})?"


def settle(found: FoundTable, asked: Asked, result: Guess) -> bool:
    """Whether it is known whose readings these are; add the settings that say it, or a question to the faults."""
    group, time = found.group, str(found.heads.time)
    stamps = stamp(group, time, found.heads.clock)
    tags = [texts_of(group.rows[found.long.tag])] if found.long else []
    apart = ~group.rows.assign(**{"\0file": group.of}).duplicated()
    frame = pd.concat([stamps, *tags], axis=1, keys=range(1 + len(tags)))[apart]
    of = group.of[apart.to_numpy()]
    if asked.machine != "one" and (len(group.names) > 1 or asked.machine == "file"):
        patterns = _patterns(group.names)
        told_by_file = asked.machine == "file" or float(frame.duplicated().mean()) > FEW
        if told_by_file or _at_once(found, apart.to_numpy()):
            for machine_from, of_name in patterns.items():
                machines = pd.Series([of_name(name) for name in group.names]).iloc[of].set_axis(frame.index)
                if len(set(machines)) > 1 and float(frame.assign(machine=machines).duplicated().mean()) <= FEW:
                    found.own["machine_from"] = machine_from
                    names = list(dict.fromkeys(of_name(name) for name in group.names))
                    result.said.setdefault("machines", []).append(
                        "no column names the machine, and the files hold times of the same period: the name of each "
                        f"does, such as {', '.join(names[:3])} (read.machine_from; MACHINE=one if they are one machine)"
                    )
                    return True
    if asked.machine == "one" or float(frame.duplicated().mean()) <= FEW:
        found.own["machine"] = 1
        result.said.setdefault("machines", []).append(
            "no column names the machine, and each time stands once: this is one machine, 1 (read.machine; "
            "MACHINE=column if one does)"
        )
        return True
    columns = ", ".join(name for name in group.columns if name != time)
    result.faults.append(
        f"{group.name} has several rows at one time and no column that says which machine each is of: name it with "
        f"MACHINE=column, one of {columns}; where there is no such column, add one"
    )
    return False


def _at_once(found: FoundTable, apart: NDArray[np.bool_]) -> bool:
    """Whether most of the time lies within several files, as where each is one machine, and not each a day."""
    spans = _times(found)[apart].groupby(found.group.of[apart]).agg(["min", "max"]).dropna().sort_values("min")
    if len(spans) < 2:
        return False
    whole = spans["max"].max() - spans["min"].min()
    return bool((spans["max"] - spans["min"]).sum() > 1.5 * whole)


def _times(found: FoundTable) -> pd.Series:
    """The times of the rows that can be read."""
    keys: dict[str, Any] = {key: value for key, value in found.own.items() if key in ("time_format", "epoch")}
    column = found.group.rows[str(found.heads.time)]
    if found.heads.clock:
        column = column.astype("str") + " " + found.group.rows[found.heads.clock].astype("str")
    if "epoch" in keys:
        column = pd.to_numeric(column, errors="coerce")
    return pd.to_datetime(times.parsed(column, reading.settings(keys, "telemetry")), utc=True, errors="coerce")


def last_year(found: FoundTable) -> int:
    """The year of the last readings, in which ages are counted."""
    return int(_times(found).max().year)


def prefix_of(names: Collection[str], others: Collection[str]) -> str | None:
    """What stands before the machine in all of ``names``, where most of ``others`` name machines without it."""
    shared = _shared([*names]) if names else ""
    for end in (mark.end() for mark in re.finditer(r"[\W_]", shared)):
        bare = {name[end:] for name in names}
        if len(bare & {*others}) > min(len(bare), len({*others})) / 2:
            return shared[:end]
    return None


def _patterns(names: list[str]) -> dict[str, Callable[[str], str]]:
    """Ways in which the paths of files may name the machine: by folder, by the name without its date, by the name."""
    found: dict[str, Callable[[str], str]] = {}

    def by(pattern: str) -> None:
        if all(files.machine_of(name, pattern) for name in names):
            found[pattern] = lambda name: str(files.machine_of(name, pattern))

    ends = {re.sub(r"^[^.]*", "", name.rpartition("/")[2]) for name in names}
    end = ends.pop() if len(ends) == 1 else ".*"
    depths = {name.count("/") for name in names}
    if len(depths) == 1 and (depth := depths.pop()) > 0:
        lead = ["*/" * at + "{machine}/" + "*/" * (depth - 1 - at) for at in range(depth)]
        for part in lead:
            by(f"{part}*")
        base = "*/" * depth
    else:
        base = ""
    stem = names[0].rpartition("/")[2].removesuffix(end)
    if (dated := re.search(DATED, stem)) is not None:
        token = "-".join("*" * len(re.split(r"[-_.]", dated.group(0)))) if dated["mark"] == "-" else None
        token = token or re.sub(r"\w+?(?=[-_.]|$)", "*", dated.group(0))
        before, after = stem[: dated.start()], stem[dated.end() :]
        if before:
            by(f"{base}{{machine}}{before[-1] if not before[-1].isalnum() else ''}{token}{'*' if after else ''}{end}")
        elif after:
            by(f"{base}{token}{after[0] if not after[0].isalnum() else ''}{{machine}}{end}")
    by(f"{base}{{machine}}{end}")
    return found


def machines_of(found: FoundTable, location: Path) -> set[str]:
    """The names of the machines of the readings."""
    del location
    group = found.group
    if found.heads.machine is not None:
        return set(texts_of(group.rows[found.heads.machine]).dropna())
    if found.long is not None and found.long.separator:
        tags = texts_of(group.rows[found.long.tag]).dropna().unique()
        return {tag.rsplit(found.long.separator, 1)[0] for tag in tags}
    if pattern := found.own.get("machine_from"):
        return {str(files.machine_of(name, pattern)) for name in group.names}
    return {str(found.own["machine"])}


def pattern(names: list[str], others: list[str]) -> str | list[str]:
    """The files as one name, as a pattern that fits no other file, or as a list.

    The widest pattern is taken, so that the next day's file belongs to the table as well.
    """
    if len(names) == 1:
        return names[0]
    if len({name.count("/") for name in names}) > 1:
        return names
    folders = [name.rpartition("/")[0].split("/") if "/" in name else [] for name in names]
    lead = "".join(f"{parts[0] if len(set(parts)) == 1 else '*'}/" for parts in zip(*folders, strict=True))
    stems = [name.rpartition("/")[2] for name in names]
    if len(set(stems)) == 1:
        choices = [f"{lead}{stems[0]}"]
    else:
        start, end = _shared(stems), _shared([stem[::-1] for stem in stems])[::-1]
        end = re.sub("^[^.]*", "", end)
        wide, narrow = re.sub(r"(?:\d[\d_.-]*|[^-_ .]*)$", "", start), re.sub("[^-_ .]*$", "", start)
        choices = [f"{lead}{wide}*{end}", f"{lead}{narrow}*{end}"]
    for choice in choices:
        expression = "".join("[^/]*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", choice))
        if all(re.fullmatch(expression, name) for name in names) and not any(
            re.fullmatch(expression, other) for other in others
        ):
            return choice
    return names


def _shared(texts: list[str]) -> str:
    """The start that all texts have, letter by letter."""
    first, last = min(texts), max(texts)
    return first[: next((at for at, char in enumerate(first) if last[at : at + 1] != char), len(first))]
