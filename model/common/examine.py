"""What is odd about a fleet's readings, and why rows repeat a time: what ``data_check`` says beside the counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from closedloop.data import times
from closedloop.data.frames import Frames, refusal
from closedloop.data.schema import CODE_COLUMN

FAR = 10  # a reading further off than so many spans of the middle 99.8 % is far from all others
SILENT = 0.9  # a sensor with fewer readings than the rest of the rows is nearly silent
CODES = (32767, -32768, 65535, 2147483647, -2147483648, 1e20, 1e30, -1e30)


def is_code(value: float) -> bool:
    """Whether a number looks like a code: nines alone, such as -999 or 9999, or the end of a whole number's range."""
    digits = f"{abs(value):.10g}".replace(".", "")
    return value in CODES or (len(digits) >= 2 and set(digits) == {"9"}) or abs(value) >= 1e30


def sentinels(telemetry: pd.DataFrame, sensors: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """Return the values that stand for a missing reading, with their counts, and a sentence on each.

    Such a value lies outside all other readings of a sensor and looks like a code, or repeats far outside them.
    """
    found: dict[str, int] = {}
    said: list[str] = []
    usual: dict[str, tuple[float, float]] = {}
    columns = {name: _numbers(telemetry[name]) for name in sensors if name in telemetry}
    odd: list[tuple[str, float, int]] = []
    alike: dict[str, list[tuple[str, int]]] = {}
    for name, values in columns.items():
        counts = values.value_counts()
        rest = values
        for value in sorted(counts.index, key=lambda value: -abs(value))[:20]:
            others = rest[rest != value]
            if len(others) < 2 or not _stands_apart(float(value), int(counts[value]), others):
                continue
            odd.append((name, float(value), int(counts[value])))
            rest = others
        usual[name] = (float(rest.min()), float(rest.max())) if len(rest) else (0.0, 0.0)
    for name, value, count in odd:
        text = f"{value:.15g}"
        if any(low <= value <= high for low, high in usual.values()):
            said.append(
                f"{name} is {text} in {count:,} rows, far from its other readings, and another sensor reads {text} in "
                "earnest: leave it empty in the file if it stands for a missing reading"
            )
            continue
        found[text] = found.get(text, 0) + count
        alike.setdefault(text, []).append((name, count))
    for text, sensors_of in alike.items():
        (name, count), others = sensors_of[0], [other for other, _ in sensors_of[1:]]
        said.append(
            f"{name} is {text} in {count:,} rows ({count / len(telemetry):.1%}), far from its other readings"
            f"{f', and so it is with {_listed(others)}' if others else ''}: proposed as missing; take it out of "
            "read.missing if it is a reading"
        )
    return found, said


def _listed(names: list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = len(names) - 4
    return ", ".join(names[:4]) + (f" and {more} more" if more > 0 else "")


def _stands_apart(value: float, count: int, others: pd.Series) -> bool:
    """Whether a value lies far enough outside the others to stand for a missing one."""
    low, high = float(others.min()), float(others.max())
    if low <= value <= high:
        return False
    span = high - low or abs(high) or 1.0
    distance = low - value if value < low else value - high
    return distance > span / 2 if is_code(value) else value != 0 and count >= 3 and distance > FAR * span


def _numbers(column: pd.Series) -> pd.Series:
    """Return the finite readings of a column."""
    if column.dtype.kind not in "iufb":
        column = pd.to_numeric(column, errors="coerce")
    values = column.astype("float64").dropna()
    return values[np.isfinite(values)]


def infinite(telemetry: pd.DataFrame, sensors: Iterable[str]) -> dict[str, str]:
    """Return a refusal for each sensor with an infinite reading."""
    found = {}
    for name in sensors:
        if name in telemetry and telemetry[name].dtype.kind == "f" and (odd := np.isinf(telemetry[name])).any():
            rows = np.flatnonzero(odd)
            remedy = "leave a missing reading empty, or say MISSING=inf,-inf (read.missing)"
            found[name] = refusal("telemetry", name, "is infinite", telemetry, rows, len(rows), remedy)
    return found


def remarks(telemetry: pd.DataFrame, sensors: Iterable[str]) -> list[str]:
    """Return a sentence on each sensor that never moves, only counts, hardly speaks, or reads far off a few times."""
    said = []
    for name in sensors:
        values = _numbers(telemetry[name]) if name in telemetry else pd.Series(dtype="float64")
        if not len(values):
            continue
        share = len(values) / len(telemetry)
        if share < 1 - SILENT:
            said.append(f"{name} is nearly silent: it has a reading in {share:.1%} of the rows")
        low, high = float(values.min()), float(values.max())
        if low == high:
            said.append(f"{name} never changes: it is {low:.10g} in each reading")
        elif _counts(telemetry, name):
            said.append(f"{name} only ever rises: it is a counter, and its range must leave room for what is to come")
        else:
            inner = np.quantile(values, [0.001, 0.999])
            far = FAR * (inner[1] - inner[0])
            outside = values[(values < inner[0] - far) | (values > inner[1] + far)] if far > 0 else values[:0]
            if len(outside):
                said.append(
                    f"{name} reads {outside.iloc[0]:.10g} in {len(outside):,} rows, far from all others; if that is no "
                    f"reading: MISSING={outside.iloc[0]:.10g}"
                )
    return said


def _counts(telemetry: pd.DataFrame, name: str) -> bool:
    """Whether a sensor's readings never fall but where it starts anew."""
    ordered = telemetry[["machineID", "datetime", name]].dropna()
    if len(ordered) < 20 or ordered[name].dtype.kind not in "iuf" or ordered["datetime"].dtype.kind != "M":
        return False
    ordered = ordered.sort_values(["machineID", "datetime"])
    steps = ordered.groupby("machineID")[name].diff().dropna()
    return len(steps) > 0 and bool((steps >= 0).mean() > 0.99) and bool((steps > 0).mean() > 0.2)


def elsewhen(frames: Frames) -> list[str]:
    """Return a sentence on each table most of whose rows lie before the first reading or after the last one.

    Such rows teach nothing, but for maintenance before the readings. Their times may be of another form than was taken.
    """
    said = []
    readings = frames["telemetry"]["datetime"]
    for table in (table for table in CODE_COLUMN if table in frames):
        when = frames[table]["datetime"]
        before, after = when < readings.min(), when > readings.max()
        if table == "maint" and not before.all():
            before &= False
        outside = when[before | after]
        if len(outside) > len(when) / 2:
            said.append(
                f"{table}: {len(outside):,} of {len(when):,} rows lie outside the time of the readings, such as "
                f"{outside.iloc[0]:%Y-%m-%d %H:%M}, so they teach a model little or nothing: where these times were "
                "read wrong, say how with TIME_FORMAT= or EPOCH=; else give readings of that time"
            )
    return said


# --- rows that repeat a time ------------------------------------------------------------------------------------------


def doubled(telemetry: pd.DataFrame, read: Mapping[str, Any]) -> str | None:
    """Return why rows of one machine repeat a time, with what settles it; None where no row does.

    One of the other columns of the files may tell the rows apart.
    """
    keys = telemetry[["machineID", "datetime"]]
    if keys["datetime"].dtype.kind != "M":
        return None
    again = keys.duplicated(keep=False) & keys.notna().all(axis=1)
    if not again.any():
        return None
    rows = telemetry[again]
    shown = "; ".join(
        f"machine {machine} at {time:%Y-%m-%d %H:%M:%S}"
        for machine, time in rows[["machineID", "datetime"]].drop_duplicates().head(3).itertuples(index=False)
    )
    what = f"{int(keys.duplicated().sum()):,} rows repeat the time of another row of their machine ({shown})"
    if "time_zone" not in read and (zone := times.zone_of(rows["datetime"].dt.tz_localize(None))) is not None:
        return (
            f"{what}: these are local times, of an hour that comes twice when summer time ends; say where, with "
            f"TIME_ZONE={zone} (read.time_zone: {zone}) or your own zone"
        )
    for name in [column for column in telemetry if column not in ("machineID", "datetime")]:
        ids = telemetry[name]
        if ids.dtype.kind in "fM" or not 1 < ids.nunique() <= len(ids) / 3:
            continue
        if not pd.concat([keys, ids.rename("\0")], axis=1).duplicated().any():
            return f"{what}: the column {name} tells these rows apart; if it names the machine: MACHINE={name}"
    if (keys["datetime"].dropna() == keys["datetime"].dropna().dt.normalize()).all():
        return (
            f"{what}: the times have no time of day; name its column as well, with TIME=date,time, or export the times "
            "in full"
        )
    if (rows["datetime"].dt.second == 0).all() and (telemetry["datetime"].dropna().dt.second == 0).all():
        return (
            f"{what}: the times may have been cut to the minute, or two machines share a name; export the times in "
            "full, or name the column of the machine with MACHINE="
        )
    return f"{what}: name the column that tells these rows apart with MACHINE=, or correct the times"
