"""The data pin, model/data.lock.json: the parts that a fleet's tables come from, and the fingerprint of these tables.

    {"fingerprint": "sha256:…", "parts": [{"kind": "files", "location": "data/plant", "files": […]}], "holds": {…}}

``pin_rules`` says what a part may hold; ``pinned_files``, ``pinned_delta`` and ``request_log`` fetch its data.
``holds`` is for people: how many rows, machines and failures there are, and of which time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from closedloop.data import simulate, sources
from closedloop.data.frames import Frames, join_marks
from closedloop.data.schema import KEYS, DataError, Tables
from model.common import cli, pin_rules, pinned_delta, pinned_files, request_log
from model.common.params import Params
from model.common.provenance import PIN

SHOWN = 5  # slips in a message
SIMULATED = ("profile", "machines", "days", "seed")


def load(path: Path | None = None) -> dict[str, Any]:
    """Return the pin of this checkout, or of another file.

    Raises:
        DataError: it is missing or is no pin; one line for each slip.
    """
    path = path or PIN
    pin: dict[str, Any] = cli.read_json(path, "restore it from git")
    if slips := pin_rules.check(pin):
        lines = [f"{path.parent.name}/{path.name}: {slip}" for slip in slips[:SHOWN]]
        lines += [f"{path.parent.name}/{path.name}: and {len(slips) - SHOWN} more"] if len(slips) > SHOWN else []
        raise DataError("\n".join(lines))
    return pin


def write(
    parts: list[dict[str, Any]],
    fingerprint: str = "",
    holds: Mapping[str, Any] | None = None,
    path: Path | None = None,
) -> None:
    """Write the pin of these parts; ``python -m model.validate --pin`` fills in what their tables hold."""
    content = {"fingerprint": fingerprint, "parts": parts} | ({"holds": dict(holds)} if holds else {})
    cli.write_json(path or PIN, content, sort_keys=True)  # a part that did not move must not differ


def fetch(parts: list[dict[str, Any]], asked: Params) -> tuple[Frames, pd.DataFrame | None]:
    """Return the frames of a pin's parts, joined by key, and their anomaly intervals where any are known.

    Raises:
        DataError: a part cannot be had as it is pinned.
    """
    found = [_fetch_part(part, asked) for part in parts]
    anomalies = [intervals for _, intervals in found if intervals is not None]
    known = {machine for frames, _ in found for machine in frames["telemetry"]["machineID"].unique()}
    described = any(len(frames.get("machines", ())) for frames, _ in found)
    each = [
        request_log.settled(frames, asked.schema, known, place(part), described=described)
        if part["kind"] == "log"
        else frames
        for part, (frames, _) in zip(parts, found, strict=True)
    ]
    joined: Frames = {}
    for part, frames in zip(parts, each, strict=True):
        joined = join(joined, frames, place(part)) if joined else frames
    if (marks := join_marks(each)) is not None:
        joined["marks"] = marks
    if len(anomalies) < 2:
        return joined, anomalies[0] if anomalies else None
    return joined, pd.concat(anomalies, ignore_index=True).drop_duplicates(ignore_index=True)


def place(part: Mapping[str, Any]) -> str:
    """Return a part in words: its kind, and where it lies."""
    return f"{part['kind']} {part['location']}" if "location" in part else str(part["kind"])


def _fetch_part(part: dict[str, Any], asked: Params) -> tuple[Frames, pd.DataFrame | None]:
    """Return the frames of one part, and its anomaly intervals where they are known."""
    if part["kind"] == "simulator":
        cli.say("simulating {machines} machines for {days} days, profile {profile}, seed {seed}".format(**part))
        made = simulate.simulate(**{key: part[key] for key in SIMULATED}, schema=asked.schema)
        return sources.tables_to_frames(made.tables, asked.schema), made.anomalies
    if part["kind"] == "log":
        cli.say(f"reading the log at {part['location']} at its versions {part['versions']}")
        return request_log.fetch(part["location"], asked.schema, part)[0], None
    if part["kind"] == "delta":
        return pinned_delta.fetch(part, asked), None
    count = len(part["files"])
    cli.say(f"reading {count} file{'s' * (count != 1)} of {part['location']}")
    folder = pinned_files.fetch(part)
    frames = sources.read_frames(folder, asked.columns, asked.files, asked.schema.machine_id, asked.read)
    return frames, sources.read_anomalies(folder, asked.files, asked.columns, asked.schema.machine_id, asked.read)


def join(known: Frames, more: Frames, name: str) -> Frames:
    """Return the union of two parts' tables by key, in order of the keys.

    Where both have a row with one key, the values of the later part stand, and what it lacks is taken from the earlier
    one. A table that has a key twice within one part is left so, for validation to report. ``name`` says in a message
    which part is the later one.
    """
    tables = {}
    for table in (table for table in KEYS if table in known or table in more):
        if table not in more or table not in known:
            tables[table] = known[table] if table in known else more[table]
            continue
        keys = [key for key in KEYS[table] if key in known[table] and key in more[table]]
        both = pd.concat([known[table], more[table]], ignore_index=True)
        again = both.duplicated(keys, keep=False) if keys else pd.Series(False, both.index)
        if again.any() and not (known[table].duplicated(keys).any() or more[table].duplicated(keys).any()):
            pairs = both[again].groupby(keys, sort=False, dropna=False)
            if differing := int(_differ(both[again], keys).sum()):
                cli.say(f"{name}: {differing:,} rows of {table} are in an earlier part with other values; these stand")
            both = pd.concat([both[~again], pairs.last().reset_index()], ignore_index=True)[list(both.columns)]
        tables[table] = both.sort_values(keys, kind="stable", ignore_index=True) if keys else both
    return tables


def _differ(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Return for each key that occurs twice whether its two rows have different values, a missing one aside."""
    pairs = rows.groupby(keys, sort=False, dropna=False)
    first, last = pairs.first(), pairs.last()
    return (first.ne(last) & first.notna() & last.notna()).any(axis=1)


def store(folder: Path, frames: Frames, anomalies: pd.DataFrame | None, about: Mapping[str, Any]) -> None:
    """Write fetched tables, as they are, into an empty folder, with ``data.json`` about them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, frame in frames.items():
        frame.to_parquet(folder / f"PdM_{name}.parquet", index=False)
    if anomalies is not None:
        anomalies.to_parquet(folder / "anomalies.parquet", index=False)
    cli.write_json(folder / "data.json", about)
    cli.say(f"wrote {folder}: " + ", ".join(f"{len(frame):,} {name}" for name, frame in frames.items()))


def moved(about: Mapping[str, Any], tables: Tables, fingerprint: str) -> str:
    """Write the pin of the fetched parts, and return what changed. Logs are told first that their versions are pinned.

    Args:
        about: ``build/data/data.json`` of these tables.
        tables: the tables, which are valid.
        fingerprint: of the tables.

    Raises:
        DataError: a log's sink does not take the pin; then nothing is changed.
    """
    before = load()
    for part in about["parts"]:
        if part["kind"] == "log":
            request_log.keep(part)
    holds = held(tables)
    write(about["parts"], fingerprint, holds)
    return "\n".join(_difference(before, {"parts": about["parts"], "fingerprint": fingerprint, "holds": holds}))


def held(tables: Tables) -> dict[str, Any]:
    """Return what tables hold, for people; ``failures`` is None where none are known of."""
    return {
        "rows": len(tables.time),
        "machines": len(np.unique(tables.machine)),
        "failures": None if tables.failures is None else len(tables.failures.time),
        "first": _time(int(tables.time.min())),
        "last": _time(int(tables.time.max())),
    }


def _time(time_us: int) -> str:
    return pd.Timestamp(time_us, unit="us", tz="UTC").isoformat().replace("+00:00", "Z")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the lines that say what a moved pin changes."""
    if before["parts"] == now["parts"] and before["fingerprint"] == now["fingerprint"]:
        return [f"{PIN.name} is unchanged: {', '.join(map(place, now['parts']))}", *_held(now["holds"], now["holds"])]
    was, are = ([place(part) for part in pin["parts"]] for pin in (before, now))
    lines = [f"{PIN.name} pins {', '.join(are)}" + (f" (before: {', '.join(was)})" if was != are else "")]
    lines += _held(before.get("holds") or {}, now["holds"])
    old = {request_log.pin_id(part): part for part in before["parts"] if part["kind"] == "log"}
    for name in old.keys() - {request_log.pin_id(part) for part in now["parts"] if part["kind"] == "log"}:
        where = old[name]["location"]
        lines.append(f"{where} still keeps what was pinned; when no branch and no release needs it: ")
        lines[-1] += f"make data-pin DATA={where} UNPIN={name}"
    return lines


def _held(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each figure: before → after, or the one where they are equal."""

    def shown(value: Any) -> str:
        return "unknown" if value is None else f"{value:,}" if isinstance(value, int) else str(value)

    lines = []
    for name, value in now.items():
        old = shown(was.get(name))
        lines.append(f"  {name:9} " + (shown(value) if old == shown(value) else f"{old} → {shown(value)}"))
    return lines
